"""A run that is cut short loses nothing, counts nothing twice and leaves nobody behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import pytest
from control_suites import Place, new_place

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

LENGTHS = [8, 12, 16, 20]
PATIENCE_S = 300.0
GONE_S = 10.0
"""How long processes may take to go with their run; most are within a second. Ray's own, left to themselves while they
start, take longer than that."""


@dataclass(frozen=True, slots=True)
class Story:
    """One run killed, continued, interrupted, completed; then the same command twice more."""

    place: Place
    before_kill: Sequence[str]
    left_after_kill: list[str]
    parts_after_kill: dict[Path, tuple[int, bytes]]
    continued: str
    interrupted_code: int
    interrupted_said: str
    left_after_interrupt: list[str]
    parts_after_interrupt: dict[Path, tuple[int, bytes]]
    completed_code: int
    completed_said: str
    again: str
    ended_code: int
    left_after_ending: list[str]
    fresh: str


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with new_place() as place:
        suite = place.suite(methods=["control-null", "control-work"], lengths=LENGTHS, budget_s=10)
        command = ("run", str(suite))
        running = place.start(*command, new_session=True)
        _line_with(running, f"measuring length {LENGTHS[1]}")
        before_kill = _statuses_amid_a_turn(place)
        running.kill()
        running.wait(PATIENCE_S)
        left_after_kill = _left(place)
        parts_after_kill = _parts(place)

        running = place.start(*command, new_session=True)
        continued = _line_with(running, "run 2")
        _line_with(running, f"measuring length {LENGTHS[2]}")
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to the whole group
        interrupted_said, _ = running.communicate(timeout=PATIENCE_S)
        interrupted_code, left_after_interrupt = running.returncode, _left(place)
        parts_after_interrupt = _parts(place)

        completed_code, completed_said = place.farm(*command)

        running = place.start(*command)
        again = _line_with(running, "run 2")
        running.terminate()
        running.communicate(timeout=PATIENCE_S)
        ended_code, left_after_ending = running.returncode, _left(place)

        beginning = place.start(*command, "--fresh")
        fresh = _line_with(beginning, "run 2")
        yield Story(
            place,
            before_kill,
            left_after_kill,
            parts_after_kill,
            continued,
            interrupted_code,
            interrupted_said,
            left_after_interrupt,
            parts_after_interrupt,
            completed_code,
            completed_said,
            again,
            ended_code,
            left_after_ending,
            fresh,
        )


def _line_with(running: subprocess.Popen[str], words: str) -> str:
    assert running.stdout is not None
    for line in running.stdout:
        if words in line:
            return line.strip()
    raise AssertionError(f"the run ended without saying {words!r}")


def _statuses_amid_a_turn(place: Place) -> list[str]:
    """Of all processes, at a moment when cells wait, stopped, for another one's turn to end."""
    deadline = time.monotonic() + PATIENCE_S
    statuses: list[str] = []
    while psutil.STATUS_STOPPED not in statuses and time.monotonic() < deadline:
        statuses = [process.status() for process in place.processes()]
    return statuses


def _left(place: Place) -> list[str]:
    """Processes of this place that are still there after a while."""
    deadline = time.monotonic() + GONE_S
    while (left := place.processes()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return [_describe(process) for process in left]


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {process.name()} {process.status()}"
    except psutil.Error:
        return f"{process.pid} gone"


def _parts(place: Place) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in place.measured()}


def test_a_killed_driver_leaves_no_process_behind(story: Story) -> None:
    assert len(story.before_kill) >= 6  # the driver, Ray's own, the cohort's and three cells were there
    assert psutil.STATUS_STOPPED in story.before_kill  # which could not have noticed anything by themselves
    assert story.left_after_kill == []


def test_a_driver_killed_while_ray_starts_leaves_no_process_behind() -> None:
    with new_place() as place:
        running = place.start("run", str(place.suite(methods=["control-null"])), new_session=True)
        deadline = time.monotonic() + PATIENCE_S
        while not any("agent" in _command(process) for process in place.processes()):
            assert running.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        running.kill()
        running.wait(PATIENCE_S)
        assert _left(place) == []


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_a_killed_run_keeps_what_it_published(story: Story) -> None:
    assert [path.name.split("-")[3] for path in story.parts_after_kill] == ["l8"]


def test_the_same_command_says_that_it_continues_the_unfinished_run(story: Story) -> None:
    (run,) = {path.parent.name for path in story.parts_after_kill}
    done = len(story.parts_after_kill)
    there = f"{done} of {len(LENGTHS)} cohort replicas are there already"
    assert story.continued == f"continuing unfinished run {run}: {there}"


def test_an_interrupted_run_exits_with_130_and_says_how_to_continue(story: Story) -> None:
    assert story.interrupted_code == 130, story.interrupted_said
    assert "interrupted; everything published is kept. The same command continues the run" in story.interrupted_said
    assert "Traceback" not in story.interrupted_said


def test_an_interrupted_run_leaves_no_process_behind(story: Story) -> None:
    assert story.left_after_interrupt == []


def test_nothing_published_is_written_again(story: Story) -> None:
    final = _parts(story.place)
    for earlier in (story.parts_after_kill, story.parts_after_interrupt):
        assert {path: final[path] for path in earlier} == earlier
    assert len(story.parts_after_interrupt) > len(story.parts_after_kill)


def test_the_continued_run_completes_with_every_cell_once(story: Story) -> None:
    assert story.completed_code == 0, story.completed_said
    (run,) = {path.parent.name for path in story.parts_after_kill}
    assert f"continuing unfinished run {run}" in story.completed_said
    frame = pd.read_parquet(story.place.results / "measurements" / run)
    assert len(frame) == len(LENGTHS) * 3
    assert not frame.duplicated(["cell", "replica"]).any()
    assert set(frame["run"]) == {run}
    assert sorted(frame["length"].unique()) == LENGTHS
    assert set(frame["status"]) == {"ok"}


def test_after_a_finished_run_the_same_command_begins_a_new_one(story: Story) -> None:
    (run,) = {path.parent.name for path in story.parts_after_kill}
    assert story.again.startswith("new run ")
    assert run not in story.again


def test_a_polite_request_to_end_is_taken_like_an_interruption(story: Story) -> None:
    assert story.ended_code == 130
    assert story.left_after_ending == []


def test_fresh_begins_a_new_run_beside_an_unfinished_one(story: Story) -> None:
    assert story.fresh.startswith("new run ")
    assert story.fresh != story.again
