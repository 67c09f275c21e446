"""How a run stands, told from its events and from its results."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from measured import RUN, measured_row, run_record, simulated_cohort

from farm.errors import RequestError
from farm.events import (
    AttemptFailed,
    CellFailed,
    Event,
    NodeLost,
    Notice,
    ReplicaBegan,
    ReplicaDone,
    RoundDone,
    RunBegan,
    Step,
)
from farm.folders import LocalFolder
from farm.job_log import JobEnded, LineWriter, as_line, from_line
from farm.progress import Progress, ProgressFile, read_progress
from farm.records import Cell, Cohort, Failure, Slot, Workload
from farm.stats import Estimate
from farm.status import of_job_log, of_results
from farm.store import Store

COHORT = Cohort(
    "cpu-b1-l64", "a class", (Cell("c0", "baseline", "pytorch", "pytorch-fp32", "fp32", Workload("cpu", 1, 1, 64)),), 1
)
SLOT = Slot("vm-cpu0", "node-id", "vm", "a class", (0, 1), 2.0, 10**9)
BEGAN_S = 1_000_000.0
ROW = {"name": "pytorch", "status": "ok", "reasons": [], "role": "baseline", "log_ratios": [[0.1] * 1000]}


def done_event(replica: int, done: int, total: int) -> ReplicaDone:
    return ReplicaDone(COHORT, replica, 5, done, total, (ROW,))


def told(events: list[tuple[float, Event]]) -> Progress:
    progress = Progress()
    for after_s, event in events:
        progress.take(event, BEGAN_S + after_s)
    return progress


def test_what_runs_where_and_how_long_the_rest_takes_follow_from_the_events() -> None:
    progress = told(
        [
            (0, RunBegan(RUN, True, 2, 6, (COHORT,))),
            (1, ReplicaBegan(COHORT, 2, 1, SLOT)),
            (60, done_event(2, 3, 6)),
            (61, ReplicaBegan(COHORT, 3, 1, SLOT)),
        ]
    )
    assert [(each.replica, each.hostname) for each in progress.running.values()] == [(3, "vm")]
    # One replica in a minute, and those from before this session say nothing of its pace.
    assert progress.left_s() == pytest.approx(3 * 61)


def test_a_failed_attempt_is_over_and_its_reason_is_kept() -> None:
    failure = Failure("failed", "its node went away")
    progress = told(
        [
            (0, RunBegan(RUN, False, 0, 1, (COHORT,))),
            (1, ReplicaBegan(COHORT, 0, 1, SLOT)),
            (2, AttemptFailed(COHORT, 0, 1, SLOT, failure)),
            (3, ReplicaBegan(COHORT, 0, 2, SLOT)),
            (4, CellFailed(COHORT, 0, 2, "c0", Failure("failed", "out of memory"))),
        ]
    )
    assert [each.attempt for each in progress.running.values()] == [2]
    assert [each.reason for each in progress.failures] == ["its node went away", "out of memory"]


def test_nothing_runs_on_a_node_that_is_gone() -> None:
    elsewhere = replace(SLOT, node_id="another", hostname="alive")
    progress = told(
        [
            (0, RunBegan(RUN, False, 0, 2, (COHORT,))),
            (1, ReplicaBegan(COHORT, 0, 1, SLOT)),
            (1, ReplicaBegan(COHORT, 1, 1, elsewhere)),
            (2, NodeLost(SLOT.node_id)),
        ]
    )
    assert [each.hostname for each in progress.running.values()] == ["alive"]


def test_every_event_comes_back_from_its_line_as_a_screen_needs_it() -> None:
    nan_spread = Estimate(1.5, 1.2, 1.8, "one-round", 1, 1, spread=float("nan"), p_value=0.01)
    events: list[Event] = [
        Notice("disturbed", "stop it"),
        Step("prepare", 1, 2, "pytorch"),
        RoundDone(COHORT, 0, 3, {"quantized": nan_spread}, 12.5),
        ReplicaBegan(COHORT, 0, 1, SLOT),
        done_event(0, 1, 2),
    ]
    for event in events:
        back = from_line(as_line(event, BEGAN_S))
        assert back is not None
        assert back.at_unix_s == BEGAN_S
        assert type(back.event) is type(event)
    assert from_line(as_line(events[0], 0.0)).event == events[0]  # type: ignore[union-attr]
    shown = from_line(as_line(events[-1], 0.0))
    assert shown is not None and isinstance(shown.event, ReplicaDone)
    assert shown.event.speedups == ({"name": "pytorch", "status": "ok", "reasons": [], "role": "baseline"},)
    assert from_line(as_line(JobEnded(1, RUN, 2), 0.0)).event == JobEnded(1, RUN, 2)  # type: ignore[union-attr]


def test_lines_that_are_not_the_farms_are_left_alone() -> None:
    for line in (
        "",
        "measuring length 64",
        "@farm",
        "@farm soon Notice {}",
        "@farm 1.0 Unheard {}",
        "@farm 1.0 Notice [",
    ):
        assert from_line(line) is None


def test_rounds_are_told_now_and_then_and_everything_else_always() -> None:
    now, lines = [0.0], list[str]()
    writer = LineWriter(lines.append, lambda: now[0])
    for number in range(100):
        now[0] = number * 0.1
        writer.on(RoundDone(COHORT, 0, number, {}, None))
    assert 4 <= len(lines) <= 6
    writer.on(Notice("once"))
    writer.on(Notice("twice"))
    assert [line.split()[2] for line in lines[-2:]] == ["Notice", "Notice"]


def test_a_jobs_log_tells_how_its_run_stands() -> None:
    lines = [
        as_line(RunBegan(RUN, False, 0, 4, ()), BEGAN_S),
        "measuring length 64",
        as_line(ReplicaBegan(COHORT, 0, 1, SLOT), BEGAN_S),
        as_line(done_event(0, 1, 4), BEGAN_S + 60),
        as_line(ReplicaBegan(COHORT, 1, 1, SLOT), BEGAN_S + 60),
    ]
    told = dict(of_job_log("\n".join(lines), BEGAN_S + 90))
    assert told["done"] == "1 of 4 cohort replicas"
    assert told["running"] == "cpu-b1-l64, replica 2, on vm (vm-cpu0) for 30 s"
    assert told["left"] == "about 2 min at the pace so far"
    ended = of_job_log("\n".join([*lines, as_line(JobEnded(130, message="stopped"), BEGAN_S + 91)]), BEGAN_S + 99)
    assert ("ended", "stopped") in ended
    assert not [text for about, text in ended if about == "running"]


def test_what_a_job_waits_for_is_told_until_it_measures() -> None:
    waits = as_line(Notice("no node is up", "waiting for one to join"), BEGAN_S)
    starting = of_job_log(waits, BEGAN_S + 1)
    assert ("note", "no node is up (waiting for one to join)") in starting
    began = as_line(RunBegan(RUN, False, 0, 4, (COHORT,)), BEGAN_S)
    assert "note" in dict(of_job_log(f"{began}\n{waits}", BEGAN_S + 1))
    for measuring in (ReplicaBegan(COHORT, 0, 1, SLOT), RoundDone(COHORT, 0, 3, {}, 12.5)):
        log = "\n".join((began, waits, as_line(measuring, BEGAN_S)))
        assert "note" not in dict(of_job_log(log, BEGAN_S + 1))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "results")
    store.write_run(run_record())
    store.publish_replica(RUN, "cpu-b1-l64", 0, simulated_cohort(64, 0, rounds=4))
    bad = measured_row("odd", 0, "quantized", 9.0, status="failed", reasons=["killed by signal 9"])
    store.publish_replica(RUN, "odd", 0, [measured_row("odd", 0, "pytorch", 9.0), bad])
    return store


def test_results_alone_tell_what_is_done_and_what_failed_why(store: Store) -> None:
    lines = of_results(str(store.root), None, BEGAN_S)
    told = dict(lines)
    assert told["done"].startswith("2 cohort replicas; cells: ")
    assert told["failed"] == "quantized at length 64: failed: killed by signal 9"
    assert "the same command continues it" in told["run"]
    store.finish_run(RUN)
    assert "finished" in dict(of_results(str(store.root), RUN, BEGAN_S))["run"]


def test_a_run_that_goes_on_tells_of_itself_beside_its_results(store: Store) -> None:
    now = [BEGAN_S]
    kept = ProgressFile(str(store.root), lambda: now[0])
    kept.on(RunBegan(RUN, False, 0, 10, (COHORT,)))
    now[0] += 60
    kept.on(ReplicaBegan(COHORT, 0, 1, SLOT))
    told = dict(of_results(str(store.root), RUN, now[0] + 10))
    assert told["done"].startswith("2 of 10 cohort replicas")
    assert told["running"].endswith("on vm (vm-cpu0) for 10 s")
    assert "driver may be gone" in dict(of_results(str(store.root), RUN, now[0] + 600))["heard"]
    kept.end()
    after = dict(of_results(str(store.root), RUN, now[0] + 600))
    assert after["state"].startswith("nobody is measuring it")
    assert "running" not in after


def test_a_full_disk_does_not_end_a_run_for_its_progress(store: Store) -> None:
    (Path(str(store.root)) / "progress").write_text("in the way")
    kept = ProgressFile(str(store.root))
    kept.on(RunBegan(RUN, False, 0, 10, (COHORT,)))
    assert read_progress(str(store.root), RUN) is None


def test_a_store_that_stalls_keeps_nobody_waiting_and_hears_of_the_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, now = threading.Event(), [BEGAN_S]
    replace_ordinarily = LocalFolder.replace

    def stalled(folder: LocalFolder, place: Path, content: bytes) -> None:
        assert goes_on.wait(60)
        replace_ordinarily(folder, place, content)

    monkeypatch.setattr(LocalFolder, "replace", stalled)
    kept = ProgressFile(str(store.root), lambda: now[0], aside=True)
    for done in range(3):
        kept.on(RunBegan(RUN, False, done, 10, (COHORT,)))
        now[0] += 60
    assert read_progress(str(store.root), RUN) is None
    goes_on.set()
    kept.end()
    told = read_progress(str(store.root), RUN)
    assert told is not None and (told.done, told.ended) == (2, True)


def test_many_replicas_that_end_at_once_are_written_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    monkeypatch.setattr(LocalFolder, "replace", lambda _, place, __: written.append(place))
    kept = ProgressFile(str(store.root), lambda: BEGAN_S)
    kept.on(RunBegan(RUN, False, 0, 10, (COHORT,)))
    for done in range(10):
        kept.on(done_event(done, done + 1, 10))
    assert len(written) == 1


def test_no_results_are_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="farm run"):
        of_results(str(tmp_path / "nowhere"), None, BEGAN_S)
