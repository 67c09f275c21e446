"""What happened in a run, a line of JSON for each event, so that it can be told afterwards who died when and why.

    <results>/logs/<run>/<start>-<host>-<process>.jsonl       one file for each time the run was begun or continued

A file is locked as long as its farm lives: so others see that somebody is measuring the same run. Where results go to
a bucket, which knows no locks, a log is written on the driver's machine and brought there every minute, with a last
line that says when: so a farm that is killed leaves its log, and others see that it lived a moment ago.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
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

UPLOAD_EVERY_S = 60.0
"""How often a log is brought to a bucket: what a killed farm did not tell is short, and a put takes milliseconds."""

ALIVE = "alive"


@contextmanager
def logged(store: Store, run: str, listener: Listener) -> Iterator[Logbook]:
    """Write down what the listener is told from now on."""
    if isinstance(store.root, Path):
        with closing(Logbook(store.root / "logs" / run, listener)) as book:
            yield book
        return
    # Of each user: a folder that all share belongs to the first of them.
    own = Path(tempfile.gettempdir()) / f"inference-farm-logs-{os.getuid()}"
    elsewhere = _living_elsewhere(store, run)
    with closing(_Upload(store, run)) as upload, closing(Logbook(own / run, listener)) as book:
        book.others += elsewhere
        upload.begin(book.path)
        yield book


class _Upload:
    """Brings a log to a bucket now and then. The results are there, which is what counts: it may fail."""

    def __init__(self, store: Store, run: str) -> None:
        self._store = store
        self._run = run
        self._path: Path | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def begin(self, path: Path) -> None:
        """Bring this log from now on."""
        self._path = path
        self._thread.start()

    def close(self) -> None:
        """Bring it as it ended."""
        self._ended.set()
        if self._path is not None:
            self._thread.join()
            self._bring(self._path.read_bytes())

    def _work(self) -> None:
        while self._path is not None:
            alive = json.dumps({"unix_ns": time.time_ns(), "event": ALIVE})
            self._bring(self._path.read_bytes() + alive.encode() + b"\n")
            if self._ended.wait(UPLOAD_EVERY_S):
                return

    def _bring(self, content: bytes) -> None:
        if self._path is not None:
            with suppress(ResultsError):
                self._store.write_log(self._run, self._path.name, content)


class Logbook:
    """A listener that writes down and passes on."""

    def __init__(self, folder: Path, listener: Listener) -> None:
        """`others` names the farms that are at work on the same run. Raises ResultsError."""
        name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{socket.gethostname()}-{os.getpid()}.jsonl"
        self.path = folder / name
        self._listener = listener
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.others = _living(folder)
            self._file: IO[str] = self.path.open("a")
        except OSError as error:
            raise ResultsError(f"{folder}: the run's log cannot be written ({error.strerror or error})") from error
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
        try:
            with path.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            living.append("{}, process {}".format(*_host_and_process(path.stem)))
        except OSError:
            continue
    return living


def _living_elsewhere(store: Store, run: str) -> list[str]:
    """The farms on other machines whose logs, as they were last brought to the bucket, end with a sign of life."""
    living = []
    with suppress(ResultsError, FileNotFoundError):
        for name, content in store.logs(run):
            host, process = _host_and_process(name.removesuffix(".jsonl"))
            lines = content.decode(errors="replace").splitlines()
            silent_s = (time.time_ns() - _last_alive_unix_ns(lines)) / 1e9
            if host != socket.gethostname() and silent_s < 3 * UPLOAD_EVERY_S:
                living.append(f"{host}, process {process}, heard of {silent_s:.0f} s ago")
    return living


def _last_alive_unix_ns(lines: Sequence[str]) -> int:
    """When the farm of a log was alive and went on; 0 where it ended or cannot be read."""
    with suppress(ValueError, IndexError, KeyError, TypeError):
        last = json.loads(lines[-1])
        return int(last["unix_ns"]) if last["event"] == ALIVE else 0
    return 0


def _host_and_process(stem: str) -> tuple[str, str]:
    host, _, process = stem.partition("-")[2].rpartition("-")
    return host, process


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
