"""A run's numbers reach Ray's own Prometheus endpoint, and telling them never ends a run."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

import pytest
import ray
from control_suites import new_place
from measured import RUN
from test_status import COHORT, SLOT, done_event

from farm.events import CellFailed, Event, NodeLost, ReplicaBegan, RunBegan
from farm.metrics import Metrics
from farm.records import Failure

PATIENCE_S = 60.0


def _told(tainted: int) -> Metrics:
    clock = iter(range(0, 1000, 6))
    metrics = Metrics(lambda: float(next(clock)))
    failed = CellFailed(COHORT, 0, 1, "c0", Failure("failed", "it crashed"))
    events: list[Event] = [
        RunBegan(RUN, False, 0, 4, ()),
        ReplicaBegan(COHORT, 0, 1, SLOT),
        failed,
        replace(done_event(0, 1, 4), turn_ns=3 * 10**9, tainted_turns=tainted),
    ]
    for event in events:
        metrics.on(event)
    return metrics


class Numbers:
    """What was told of one kind of number."""

    def __init__(self) -> None:
        self.told: list[float] = []

    def set(self, value: float, tags: dict[str, str]) -> None:
        """A gauge."""
        assert tags == {"run": RUN}
        self.told.append(value)

    inc = set


def test_a_replica_without_a_disturbed_turn_is_told_like_any_other() -> None:
    _told(tainted=0)


def test_what_another_farm_published_says_nothing_of_this_ones_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    share, metrics = Numbers(), Metrics()
    monkeypatch.setattr(Metrics, "_turn_share", share)
    for event in (RunBegan(RUN, False, 0, 4, ()), ReplicaBegan(COHORT, 0, 1, SLOT), done_event(0, 1, 4)):
        metrics.on(event)
    assert share.told == []


def test_what_a_node_was_measuring_waits_again_when_the_node_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    queue, metrics = Numbers(), Metrics()
    monkeypatch.setattr(Metrics, "_queue", queue)
    for event in (RunBegan(RUN, False, 0, 4, ()), ReplicaBegan(COHORT, 0, 1, SLOT), NodeLost(SLOT.node_id)):
        metrics.on(event)
    assert queue.told == [4, 3, 4]


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with new_place() as place:
        for name, value in place.environment.items():
            monkeypatch.setenv(name, value)
        ray.init("local", num_cpus=0, include_dashboard=False, object_store_memory=80_000_000)
        try:
            (node,) = ray.nodes()
            yield f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        finally:
            ray.shutdown()


@pytest.mark.real
def test_prometheus_reads_cells_turns_queue_and_share(endpoint: str) -> None:
    metrics = _told(tainted=1)
    expected = {
        "ray_farm_cells_done_total": 1.0,
        "ray_farm_cells_failed_total": 1.0,
        "ray_farm_turns_tainted_total": 1.0,
        "ray_farm_queue_length": 3.0,
        "ray_farm_turn_share": 3 / 6,
    }
    deadline, found = time.monotonic() + PATIENCE_S, dict[str, float]()
    while found != pytest.approx(expected) and time.monotonic() < deadline:
        time.sleep(1)
        metrics.on(RunBegan(RUN, True, 1, 4, ()))  # whatever happens tells the gauges again
        with urllib.request.urlopen(endpoint, timeout=10) as answer:
            lines = [line for line in answer.read().decode().splitlines() if line.startswith("ray_farm")]
        found = {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in lines}
    assert found == pytest.approx(expected)
