"""What a run tells whoever is watching: values, never text on a screen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from farm.records import Cohort, Failure, Slot
from farm.stats import Estimate


@dataclass(frozen=True, slots=True)
class RunBegan:
    """A run was started, or an unfinished one is continued (`done` of its replicas are there already)."""

    run: str
    continued: bool
    done: int
    total: int
    cohorts: tuple[Cohort, ...]


@dataclass(frozen=True, slots=True)
class NodeJoined:
    """A node takes part from now on, with so many slots."""

    node_id: str
    hostname: str
    hardware_class: str
    slots: int


@dataclass(frozen=True, slots=True)
class NodeLost:
    """A node that took part is gone; what it was measuring starts over elsewhere."""

    node_id: str


@dataclass(frozen=True, slots=True)
class ReplicaBegan:
    """A try at a replica begins on a slot."""

    cohort: Cohort
    replica: int
    attempt: int
    slot: Slot


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """A try at a replica ended without a result; a Notice says so to the user."""

    cohort: Cohort
    replica: int
    attempt: int
    slot: Slot
    failure: Failure


@dataclass(frozen=True, slots=True)
class CellFailed:
    """A cell fell out of a replica; the others go on."""

    cohort: Cohort
    replica: int
    attempt: int
    cell: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class Step:
    """Progress of one stage (fetching, fine-tuning, preparing, ...): `done` of `total`, with a note."""

    stage: str
    done: float
    total: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class RoundDone:
    """A round ended. `speedups` holds the estimates from this replica's rounds so far, by method name."""

    cohort: Cohort
    replica: int
    rounds: int
    speedups: Mapping[str, Estimate]
    left_s: float | None


@dataclass(frozen=True, slots=True)
class ReplicaDone:
    """A cohort replica was published; `speedups` are its cells over all replicas so far (SPEEDUP_SCHEMA).

    `replicas` are wanted of this cohort; `done` of `total` are published of the whole run. `turn_ns` of turns were
    measured for it here, `tainted_turns` of which a guard saw disturbed: none where another farm published it.
    """

    cohort: Cohort
    replica: int
    replicas: int
    done: int
    total: int
    speedups: tuple[Mapping[str, Any], ...]
    turn_ns: int = 0
    tainted_turns: int = 0


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the user should know; `remedy` says what to do about it."""

    message: str
    remedy: str = ""


Lifecycle = NodeJoined | NodeLost | ReplicaBegan | AttemptFailed | CellFailed
"""What concerns who looks back at a run rather than who watches it."""

Event = RunBegan | Step | RoundDone | ReplicaDone | Notice | Lifecycle


class Listener(Protocol):
    """Whoever is told what happens. Called between turns only, so drawing a screen disturbs no measurement."""

    def on(self, event: Event) -> None:
        """Take notice of one event."""


class Silent:
    """Listens to nothing."""

    def on(self, event: Event) -> None:
        """Ignore the event."""


@dataclass(frozen=True, slots=True)
class StepReporter:
    """Lets the tasks report progress without knowing events."""

    listener: Listener

    def step(self, stage: str, done: float, total: float, note: str = "") -> None:
        """Pass progress on to the listener."""
        self.listener.on(Step(stage, done, total, note))
