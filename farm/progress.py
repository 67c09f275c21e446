"""How a run stands, gathered from its events: done, running where, failed why, time left. Kept beside the results."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from pydantic import BaseModel, ConfigDict, ValidationError

from farm.errors import ResultsError
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
from farm.folders import open_folder

WRITE_EVERY_S = 5.0
"""How often the state of a run is written: often enough for whoever asks, and no work beside what a replica costs."""

MOST_FAILURES = 50
"""Failures that are kept word for word; all are counted."""


class Running(BaseModel):
    """A try at a replica that is under way."""

    model_config = ConfigDict(frozen=True)

    cohort: str
    replica: int
    attempt: int
    node_id: str = ""
    hostname: str
    slot: str
    since_unix_s: float


class Failed(BaseModel):
    """A cell, or a whole try at a replica, that failed, and why."""

    model_config = ConfigDict(frozen=True)

    what: str
    status: str
    reason: str


class Progress(BaseModel):
    """How a run stands, times in Unix seconds: `done` of `total` cohort replicas, `began_with` of them from earlier.

    `note` is the newest notice, such as what a run waits for, until something is measured again.
    """

    run: str = ""
    began_unix_s: float = 0.0
    heard_unix_s: float = 0.0
    began_with: int = 0
    done: int = 0
    total: int = 0
    stage: str = ""
    note: str = ""
    running: dict[str, Running] = {}
    failures: list[Failed] = []
    ended: bool = False

    def take(self, event: Event, now_unix_s: float) -> None:
        """Take notice of one event."""
        self.heard_unix_s = now_unix_s
        match event:
            case RunBegan():
                self.run, self.began_unix_s = event.run, now_unix_s
                self.began_with = self.done = event.done
                self.total = event.total
            case Notice():
                self.note = event.message + (f" ({event.remedy})" if event.remedy else "")
            case ReplicaBegan():
                self.note = ""
                self._begin(event, now_unix_s)
            case ReplicaDone():
                self.running.pop(_key(event.cohort.cohort, event.replica), None)
                self.done, self.total = event.done, event.total
            case AttemptFailed():
                self.running.pop(_key(event.cohort.cohort, event.replica), None)
                self._fail(f"attempt {event.attempt} of {event.cohort.cohort}", event)
            case CellFailed():
                self._fail(event.cell, event)
            case NodeLost():
                self.running = {key: each for key, each in self.running.items() if each.node_id != event.node_id}
            case Step():
                self.stage = event.stage
            case RoundDone():
                self.stage = self.note = ""

    def left_s(self) -> float | None:
        """Seconds that the rest takes at the pace since this farm began; None before a replica is done."""
        if self.done <= self.began_with or self.done >= self.total:
            return None
        pace = (self.heard_unix_s - self.began_unix_s) / (self.done - self.began_with)
        return pace * (self.total - self.done)

    def _begin(self, event: ReplicaBegan, now_unix_s: float) -> None:
        self.running[_key(event.cohort.cohort, event.replica)] = Running(
            cohort=event.cohort.cohort,
            replica=event.replica,
            attempt=event.attempt,
            node_id=event.slot.node_id,
            hostname=event.slot.hostname,
            slot=event.slot.slot,
            since_unix_s=now_unix_s,
        )

    def _fail(self, what: str, event: AttemptFailed | CellFailed) -> None:
        if len(self.failures) < MOST_FAILURES:
            self.failures.append(Failed(what=what, status=event.failure.status, reason=event.failure.reason))


class ProgressFile:
    """Keeps `progress/<run>.json` beside the results, for `farm status`. Derived: losing it loses nothing.

    With `aside`, a thread writes, for nobody may wait for a bucket that stalls. On the machine that measures it runs
    beside turns, a few milliseconds of CPU time a write: there, write rarely.
    """

    def __init__(
        self,
        results: str,
        clock: Callable[[], float] = time.time,
        aside: bool = False,
        every_s: float = WRITE_EVERY_S,
    ) -> None:
        """Write when so many seconds have passed since the last time."""
        self._folder = open_folder(results)
        self._clock = clock
        self._every_s = every_s
        self._written_s = 0.0
        self._writer = ThreadPoolExecutor(1) if aside else None
        self._writing: Future[None] | None = None
        self.progress = Progress()

    def on(self, event: Event) -> None:
        """Take notice, and write now and then; always where a run begins."""
        self.progress.take(event, self._clock())
        due = self._clock() - self._written_s > self._every_s
        if not self.progress.run or not (due or isinstance(event, RunBegan)):
            return
        if self._writer is None:
            self._write(*self._told())
        elif self._writing is None or self._writing.done():
            self._writing = self._writer.submit(self._write, *self._told())

    def end(self) -> None:
        """The run is over, for now or for good."""
        if self._writer is not None:
            self._writer.shutdown()
        self.progress.ended = True
        self.progress.running = {}
        if self.progress.run:
            self._write(*self._told())

    def _told(self) -> tuple[str, bytes]:
        """The run, and what is written of it."""
        self._written_s = self._clock()
        return self.progress.run, self.progress.model_dump_json(indent=1).encode()

    def _write(self, run: str, content: bytes) -> None:
        try:
            self._folder.replace(self._folder.root / "progress" / f"{run}.json", content)
        except ResultsError:
            # Nobody's measurement may end because its progress could not be told; publishing reports a full disk.
            return


def read_progress(results: str, run: str) -> Progress | None:
    """What was last told of a run; None where nothing was, or it cannot be read."""
    folder = open_folder(results)
    try:
        return Progress.model_validate_json(folder.read(folder.root / "progress" / f"{run}.json"))
    except (FileNotFoundError, ResultsError, ValidationError):
        return None


def _key(cohort: str, replica: int) -> str:
    return f"{cohort}-{replica}"
