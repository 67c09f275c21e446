"""A long step in a process of its own, whose progress and errors arrive as lines of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from farm.errors import FarmError, RequestError
from tasks.progress import Progress

_ERROR_TAIL_LINES = 12
_EXIT_ERROR = 2


def run_with_progress(module: str, doing: str, progress: Progress) -> None:
    """Run `python -m module`, which must call `serve_progress`, and hand its reports to `progress`.

    Keeps what the module imports (PyTorch, say) out of this process. Raises the RequestError that the module raised;
    a FarmError with the tail of its error output if it died. The child ends when this process does: its next report
    finds no reader.
    """
    # The child must find this package, not a module of the same name in the user's current folder.
    packages = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            env=os.environ | {"PYTHONPATH": packages},
        )
        try:
            _forward(child.stdout, progress)
            status = child.wait()
        finally:
            _end(child)
        if status != 0:
            errors.seek(0)
            tail = "".join(errors.readlines()[-_ERROR_TAIL_LINES:])
            raise FarmError(f"{doing} failed (exit status {status}):\n{tail}")


def serve_progress(work: Callable[[Progress], object]) -> int:
    """Do `work`, writing its progress to standard output for `run_with_progress`; returns the exit status."""
    reports = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    # Whatever a library prints, from C too, must not be taken for a report.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        work(_JsonProgress(reports))
    except (FarmError, KeyboardInterrupt) as error:
        kind = "request" if isinstance(error, RequestError) else "farm"
        _write(reports, {"error": kind, "message": str(error) or "interrupted"})
        return _EXIT_ERROR
    return 0


class _JsonProgress:
    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def step(self, stage: str, done: float, total: float, note: str = "") -> None:
        _write(self._stream, {"stage": stage, "done": done, "total": total, "note": note})


def _write(stream: IO[str], report: dict[str, Any]) -> None:
    stream.write(json.dumps(report) + "\n")
    stream.flush()


def _forward(reports: IO[str] | None, progress: Progress) -> None:
    assert reports is not None
    for line in reports:
        report = json.loads(line)
        if "error" in report:
            raise (RequestError if report["error"] == "request" else FarmError)(report["message"])
        progress.step(report["stage"], report["done"], report["total"], report["note"])


def _end(child: subprocess.Popen[str]) -> None:
    """Leave no process behind, also when this one was interrupted."""
    if child.stdout is not None:
        child.stdout.close()
    if child.poll() is None:
        child.terminate()
    try:
        child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
