"""Nothing of a private Ray outlives its driver: a process of its own waits for the driver's end, then ends the rest.

Ray's raylet and GCS die with the driver, whatever ends it. What the raylet started notices by itself, as long as it
has started up: of kills while Ray was starting, most left its agents waiting for the GCS, mostly for 11 s, now and then
for longer than a minute (Ray 2.60: one agent holds the write end of the pipe that the other one watches).

This file is executed by itself, too, and therefore imports nothing of the farm's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

PASS_S = 0.05
"""Between two looks at the process table: what was killed meanwhile may have started something first."""

CLEAN_PASSES = 3
"""So often in a row nothing may be found before it counts as gone."""

LONGEST_SWEEP_S = 10.0
"""A process that cannot be killed for so long waits for a disk or a device, and its signal is with it already."""


class Guardian:
    """Kills all that was started while `marking`, and whatever that started, when this process ends or calls `close`.

    On Linux; elsewhere it does nothing, and Ray's own reaper has to do.
    """

    def __init__(self) -> None:
        self._mark = f"FARM_GUARDED_{uuid4().hex}"
        self._process = _start(self._mark) if sys.platform == "linux" else None

    @contextmanager
    def marking(self) -> Iterator[None]:
        """What is started meanwhile is guarded. It is told by its environment, so let nobody else start anything."""
        os.environ[self._mark] = "1"
        try:
            yield
        finally:
            del os.environ[self._mark]

    def close(self) -> None:
        """Kill what is left now, and end."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.communicate(timeout=2 * LONGEST_SWEEP_S)


def _start(mark: str) -> subprocess.Popen[bytes]:
    """Its standard input is a pipe from this process, which the kernel closes however this process ends."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C in the terminal is the driver's to handle
    )


def sweep(mark: str) -> None:
    """Kill every process with this mark until there is none."""
    clean, until = 0, time.monotonic() + LONGEST_SWEEP_S
    while clean < CLEAN_PASSES and time.monotonic() < until:
        found = _marked(mark)
        for pid in found:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        clean = 0 if found else clean + 1
        time.sleep(PASS_S)


def _marked(mark: str) -> list[int]:
    """Processes that were started with the mark in their environment; those of other users cannot be read."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


if __name__ == "__main__":
    sys.stdin.buffer.read()
    sweep(sys.argv[1])
