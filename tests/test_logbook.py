"""A run's log tells what happened, and whether another farm is at work on the same run."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from made_up import SLOT, plan_of
from simulated_cluster import Told

from farm.events import AttemptFailed, CellFailed, NodeJoined, NodeLost, Notice, ReplicaBegan, ReplicaDone, Step
from farm.logbook import Logbook, logged
from farm.records import Failure
from farm.store import Store

COHORT = plan_of().cohorts[0]
LOST = Failure("failed", "the process died", "last words")


def _lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def test_what_happened_is_written_down_and_passed_on(tmp_path: Path) -> None:
    told = Told()
    events = [
        NodeJoined("n1", "here", "plain", 1),
        ReplicaBegan(COHORT, 0, 1, SLOT),
        CellFailed(COHORT, 0, 1, "quantized", LOST),
        AttemptFailed(COHORT, 0, 1, SLOT, LOST),
        NodeLost("n1"),
        ReplicaDone(COHORT, 0, 1, 1, 2, ()),
        Notice("beware"),
    ]
    with logged(Store(tmp_path), "run", told) as book:
        for event in events:
            book.on(event)
    assert told.events == events
    lines = _lines(tmp_path / "logs" / "run")
    assert [line["event"] for line in lines] == [
        *("node-joined", "attempt-began", "cell-failed", "attempt-failed", "node-lost", "published", "notice"),
        "farm-ended",
    ]
    assert lines[2]["cell"] == "quantized"
    assert lines[3]["reason"] == "the process died"
    assert all(isinstance(line["unix_ns"], int) for line in lines)


def test_progress_is_not_written_down(tmp_path: Path) -> None:
    with logged(Store(tmp_path), "run", Told()) as book:
        book.on(Step("load", 1, 2))
    assert [line["event"] for line in _lines(tmp_path / "logs" / "run")] == ["farm-ended"]


def test_every_session_of_a_run_has_a_file_of_its_own(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        Logbook(tmp_path, Told()).close()
        os._exit(0)
    os.waitpid(child, 0)
    Logbook(tmp_path, Told()).close()
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


def test_another_farm_at_work_is_seen_as_long_as_it_lives(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        book = Logbook(tmp_path, Told())
        os.write(writing, str(len(book.others)).encode())
        signal.pause()
    assert os.read(reading, 1) == b"0"
    second = Logbook(tmp_path, Told())
    assert [f"process {child}" in other for other in second.others] == [True]
    second.close()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert Logbook(tmp_path, Told()).others == []
