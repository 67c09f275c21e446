"""What happened in a run, a line of JSON for each event, so that it can be told afterwards who died when and why.

    <results>/logs/<run>/<start>-<host>-<process>.jsonl       one file for each time the run was begun or continued

A file is locked as long as its farm lives: so others see that somebody is measuring the same run. Where results go to
a bucket, which knows no locks, a log is written on the driver's machine and brought there when the farm ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from farm.errors import ResultsError
from farm.events import (
    AttemptFailed,
    CellFailed,
    Event,
    Listener,
    NodeJoined,
    NodeLost,
    Notice,
    ReplicaBegan,
    ReplicaDone,
    RunBegan,
)
from farm.store import Store


@contextmanager
def logged(store: Store, run: str, listener: Listener) -> Iterator[Logbook]:
    """Write down what the listener is told from now on."""
    local = isinstance(store.root, Path)
    root = store.root if isinstance(store.root, Path) else Path(tempfile.gettempdir()) / "inference-farm-logs"
    book = Logbook(root / "logs" / run, listener)
    try:
        yield book
    finally:
        book.close()
        if not local:
            with suppress(ResultsError):  # the results are there, which is what counts; the log stays where it is
                store.write_log(run, book.path.name, book.path.read_bytes())


class Logbook:
    """A listener that writes down and passes on."""

    def __init__(self, folder: Path, listener: Listener) -> None:
        """`others` names the farms that are at work on the same run."""
        folder.mkdir(parents=True, exist_ok=True)
        self.others = _living(folder)
        name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{socket.gethostname()}-{os.getpid()}.jsonl"
        self.path = folder / name
        self._listener = listener
        self._file: IO[str] = self.path.open("a")
        with suppress(OSError):  # a file system without locks: nobody will know of us
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def on(self, event: Event) -> None:
        """Write down what is worth it, and pass the event on."""
        entry = _entry(event)
        if entry is not None:
            self.write(**entry)
        self._listener.on(event)

    def write(self, **entry: Any) -> None:
        """One line, with what the driver cost so far; a full disk must not end a run that can still publish."""
        now = {"unix_ns": time.time_ns(), "driver_cpu_s": round(time.process_time(), 3)}
        with suppress(OSError, ValueError):
            self._file.write(json.dumps(now | entry) + "\n")
            self._file.flush()

    def close(self) -> None:
        """The last line, and let go of the file."""
        self.write(event="farm-ended")
        with suppress(OSError):
            self._file.close()


def _living(folder: Path) -> list[str]:
    """The farms whose files are still locked, as host and process id."""
    living = []
    for path in sorted(folder.glob("*.jsonl")):
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                host, process = path.stem.partition("-")[2].rsplit("-", 1)
                living.append(f"{host}, process {process}")
            except OSError:
                continue
    return living


def _entry(event: Event) -> dict[str, Any] | None:
    """What is written of an event; None for progress, which is gone when it is seen."""
    entry: dict[str, Any] | None = None
    match event:
        case RunBegan():
            entry = {"event": "run-began", "run": event.run, "continued": event.continued, "total": event.total}
        case NodeJoined():
            entry = {"event": "node-joined", "node": event.node_id, "host": event.hostname}
            entry["class"] = event.hardware_class
        case NodeLost():
            entry = {"event": "node-lost", "node": event.node_id}
        case ReplicaBegan():
            entry = {"event": "attempt-began", **_tried(event), "node": event.slot.node_id, "slot": event.slot.slot}
        case AttemptFailed():
            entry = {"event": "attempt-failed", **_tried(event), "node": event.slot.node_id}
            entry["reason"] = event.failure.reason
        case CellFailed():
            entry = {"event": "cell-failed", **_tried(event), "cell": event.cell, "reason": event.failure.reason}
            entry["status"] = event.failure.status
        case ReplicaDone():
            entry = {"event": "published", "cohort": event.cohort.cohort, "replica": event.replica, "done": event.done}
        case Notice():
            entry = {"event": "notice", "message": event.message}
    return entry


def _tried(event: ReplicaBegan | AttemptFailed | CellFailed) -> dict[str, Any]:
    return {"cohort": event.cohort.cohort, "replica": event.replica, "attempt": event.attempt}
