"""A run's log tells what happened, and whether another farm is at work on the same run."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from made_up import SLOT, plan_of
from simulated_cluster import Told

from farm.errors import ResultsError
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


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("farm.addresses.LOST_WITH_THE_PROCESS", frozenset())
    yield Store("memory://results")
    MemoryFileSystem.store.clear()


def _events_in(bucket: Store) -> list[list[str]]:
    return [[json.loads(line)["event"] for line in content.splitlines()] for _, content in bucket.logs("run")]


def _wait_until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_farm_that_is_killed_leaves_its_log_in_the_bucket(bucket: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farm.logbook.UPLOAD_EVERY_S", 0.01)
    with logged(bucket, "run", Told()) as book:
        book.on(Notice("beware"))
        _wait_until(lambda: _events_in(bucket) == [["notice", "alive"]])
    assert _events_in(bucket) == [["notice", "farm-ended"]]


def test_a_farm_at_work_on_another_machine_is_seen_in_the_bucket_until_it_ends(
    bucket: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with logged(bucket, "run", Told()) as book:
        assert book.others == []
        _wait_until(lambda: bool(_events_in(bucket)))
        monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
        monkeypatch.setattr("tempfile.tempdir", str(book.path.parent / "of-elsewhere"))
        with logged(bucket, "run", Told()) as second:
            (other,) = second.others
            assert f"process {os.getpid()}, heard of " in other
    with logged(bucket, "run", Told()) as third:
        assert third.others == []


def test_a_farm_of_which_nothing_was_heard_for_long_is_not_at_work(bucket: Store) -> None:
    bucket.write_log("run", "20260101T000000Z-elsewhere-7.jsonl", b'{"unix_ns": 1, "event": "alive"}\n')
    with logged(bucket, "run", Told()) as book:
        assert book.others == []


def test_a_log_that_another_user_keeps_to_himself_is_an_error_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ResultsError, match="log cannot be written"):
        Logbook(tmp_path, Told())
