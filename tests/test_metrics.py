"""A run's numbers reach Ray's own Prometheus endpoint, and telling them never ends a run."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from control_suites import new_place
from measured import RUN, measured_row, run_record
from test_status import COHORT, SLOT, done_event

from farm.events import CellFailed, Event, ReplicaBegan, RunBegan
from farm.metrics import Metrics
from farm.records import Failure
from farm.store import Store

PATIENCE_S = 60.0
QUIET, DISTURBED = [[], [], []], [["steal"], [], []]


def _told(results: Path, taints: list[list[str]]) -> Metrics:
    store = Store(results)
    store.write_run(run_record())
    row = measured_row("cpu-b1-l64", 0, "pytorch", 9.0, round_turn_ns=[10**9] * 3, round_taint_reasons=taints)
    store.publish_replica(RUN, "cpu-b1-l64", 0, [row])
    clock = iter(range(0, 1000, 6))
    metrics = Metrics(str(results), lambda: float(next(clock)))
    failed = CellFailed(COHORT, 0, 1, "c0", Failure("failed", "it crashed"))
    events: list[Event] = [
        RunBegan(RUN, False, 0, 4, ()),
        ReplicaBegan(COHORT, 0, 1, SLOT),
        failed,
        done_event(0, 1, 4),
    ]
    for event in events:
        metrics.on(event)
    return metrics


def test_a_replica_without_a_disturbed_turn_is_told_like_any_other(tmp_path: Path) -> None:
    _told(tmp_path / "results", QUIET)


def test_results_that_cannot_be_read_take_numbers_away_and_nothing_else(tmp_path: Path) -> None:
    metrics = Metrics(str(tmp_path / "nowhere"))
    metrics.on(RunBegan(RUN, False, 0, 4, ()))
    metrics.on(done_event(0, 1, 4))


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
def test_prometheus_reads_cells_turns_queue_and_share(endpoint: str, tmp_path: Path) -> None:
    metrics = _told(tmp_path / "results", DISTURBED)
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
