"""A run's events as lines of a cluster job's log, and back, so that whoever follows the job sees what the driver tells.

Ordinary lines stand between them, written for people who read the log in Ray's dashboard.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import TypeAdapter

from farm.events import Event, Listener, ReplicaDone, RoundDone, RunBegan, Step

MARK = "@farm "
"""Begins a line that is meant for the farm."""

ROUND_EVERY_S = 2.0
STEP_EVERY_S = 2.0
"""How often a round or a step is told: a screen that follows from afar needs no more, and the log is kept."""


@dataclass(frozen=True, slots=True)
class JobEnded:
    """What a job came to: its run and how many cells failed, or the message that it ended with and its exit code."""

    code: int
    run: str = ""
    failed_cells: int = 0
    message: str = ""


JobEvent = Event | JobEnded

_KINDS: Mapping[str, TypeAdapter[Any]] = {kind.__name__: TypeAdapter(kind) for kind in (*get_args(Event), JobEnded)}


@dataclass(frozen=True, slots=True)
class Told:
    """An event out of a log, and when it was told (Unix seconds)."""

    event: JobEvent
    at_unix_s: float


def as_line(event: JobEvent, at_unix_s: float) -> str:
    """One line that `from_line` reads; what a screen does not show is left out of it."""
    kind = type(event).__name__
    # Not pydantic's own JSON, which turns the NaN of a spread that is not known into null.
    body = json.dumps(_KINDS[kind].dump_python(_shortened(event)), default=float)
    return f"{MARK}{at_unix_s:.1f} {kind} {body}"


def from_line(line: str) -> Told | None:
    """The event of a line; None for any other line, and for an event that this release does not know."""
    if not line.startswith(MARK):
        return None
    try:
        at, kind, body = line.removeprefix(MARK).split(" ", 2)
        return Told(_KINDS[kind].validate_json(body), float(at))
    except (KeyError, ValueError):  # pydantic's own error is a ValueError
        return None


class LineWriter:
    """Writes events as lines, rounds and steps only now and then. `write` takes a line, `clock` tells Unix seconds."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._write = write
        self._clock = clock
        self._told: dict[type, float] = {}
        self._stage = ""

    def on(self, event: Event) -> None:
        """Write the event, unless its like was written a moment ago."""
        if isinstance(event, RoundDone | Step):
            new_stage = isinstance(event, Step) and event.stage != self._stage
            self._stage = event.stage if isinstance(event, Step) else ""
            every_s = ROUND_EVERY_S if isinstance(event, RoundDone) else STEP_EVERY_S
            told = self._told.get(type(event))
            if not new_stage and told is not None and self._clock() - told < every_s:
                return
            self._told[type(event)] = self._clock()
        self._write(as_line(event, self._clock()))


@dataclass(frozen=True, slots=True)
class Together:
    """Tells several listeners the same."""

    listeners: Iterable[Listener]

    def on(self, event: Event) -> None:
        """Pass the event on to each."""
        for listener in self.listeners:
            listener.on(event)


def _shortened(event: JobEvent) -> JobEvent:
    if isinstance(event, RunBegan):
        return dataclasses.replace(event, cohorts=())
    if isinstance(event, ReplicaDone):
        return dataclasses.replace(event, speedups=tuple(map(_scalars, event.speedups)))
    return event


def _scalars(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without its lists of ratios and states, which grow with every replica; reasons stay, they are shown."""
    return {name: value for name, value in row.items() if name == "reasons" or not isinstance(value, list | dict)}
