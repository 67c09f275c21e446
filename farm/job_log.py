"""A run's events as lines of a cluster job's log, and back, so that whoever follows the job sees what the driver tells.

Ordinary lines stand between them, written for people who read the log in Ray's dashboard.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

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


def as_line(event: JobEvent) -> str:
    """One line that `from_line` reads; what a screen does not show is left out of it."""
    kind = type(event).__name__
    # Not pydantic's own JSON, which turns the NaN of a spread that is not known into null.
    body = json.dumps(_KINDS[kind].dump_python(_shortened(event)), default=float)
    return f"{MARK}{kind} {body}"


def from_line(line: str) -> JobEvent | None:
    """The event of a line; None for any other line, and for an event that this release does not know."""
    if not line.startswith(MARK):
        return None
    kind, _, body = line[len(MARK) :].partition(" ")
    try:
        found: JobEvent = _KINDS[kind].validate_json(body)
    except (KeyError, ValidationError):
        return None
    return found


class LineWriter:
    """Writes events as lines, rounds and steps only now and then. `write` takes a line, `clock` tells seconds."""

    def __init__(self, write: Any, clock: Any) -> None:
        self._write = write
        self._clock = clock
        self._told = {RoundDone: -ROUND_EVERY_S, Step: -STEP_EVERY_S}
        self._stage = ""

    def on(self, event: Event) -> None:
        """Write the event, unless its like was written a moment ago."""
        if isinstance(event, RoundDone | Step):
            new_stage = isinstance(event, Step) and event.stage != self._stage
            self._stage = event.stage if isinstance(event, Step) else ""
            every_s = ROUND_EVERY_S if isinstance(event, RoundDone) else STEP_EVERY_S
            now = self._clock()
            if not new_stage and now - self._told[type(event)] < every_s:
                return
            self._told[type(event)] = now
        self._write(as_line(event))


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
