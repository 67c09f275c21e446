"""What a guardian has marked ends with its process, however that ends; nothing else does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Ray has a reaper of its own")

OWNER = """
import subprocess, sys, time
from farm.guardian import Guardian

nap = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
with_child = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:], start_new_session=True); time.sleep(600)"
alone = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "start_new_session": True}
before = subprocess.Popen(nap, **alone)
guardian = Guardian()
with guardian.marking():
    marked = subprocess.Popen([sys.executable, "-S", "-c", with_child, *nap], **alone)
after = subprocess.Popen(nap, **alone)
print(before.pid, after.pid, guardian._process.pid, marked.pid, flush=True)
sys.stdin.readline()
guardian.close()
"""


@dataclass(frozen=True, slots=True)
class Family:
    """A process with a guardian, and what it has started."""

    owner: subprocess.Popen[str]
    bystanders: list[psutil.Process]
    guardian: psutil.Process
    marked: list[psutil.Process]


@pytest.fixture
def family() -> Iterator[Family]:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert owner.stdout is not None
    *bystanders, guardian, marked = [psutil.Process(int(pid)) for pid in owner.stdout.readline().split()]
    assert _wait_until(lambda: len(marked.children()) == 1)
    made = Family(owner, bystanders, guardian, [marked, *marked.children()])
    yield made
    owner.kill()
    owner.communicate()
    for process in [*made.bystanders, *made.marked, made.guardian]:
        if not _gone(process):
            process.kill()


def _gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def _wait_until(happened: Callable[[], bool]) -> bool:
    """Whether it happens within a few seconds."""
    until = time.monotonic() + 15
    while not happened() and time.monotonic() < until:
        time.sleep(0.02)
    return happened()


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_marked_ends_with_its_process(family: Family, ending: signal.Signals) -> None:
    family.marked[1].suspend()
    os.killpg(family.owner.pid, ending)
    assert _wait_until(lambda: all(_gone(process) for process in [*family.marked, family.guardian]))
    assert not any(_gone(process) for process in family.bystanders)


def test_what_was_marked_ends_when_the_guardian_is_closed(family: Family) -> None:
    family.owner.communicate("close\n")
    assert family.owner.returncode == 0
    assert all(_gone(process) for process in [*family.marked, family.guardian])


def test_nothing_ends_as_long_as_its_process_lives(family: Family) -> None:
    time.sleep(0.5)
    assert not any(_gone(process) for process in [*family.marked, *family.bystanders, family.guardian])
