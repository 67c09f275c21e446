"""The time that a run may take, shared out among the replicas that wait. Waiting and preparing are not counted."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

from farm.records import Cohort, Slot
from farm.schedule import Job, Schedule
from farm.stopping import Effort, budget_share, replica_share_s, spendable_s, worth_starting


@dataclass
class _Excluded:
    """What a node spent on what no budget includes; what its slots did at the same time counts once."""

    total_s: float = 0.0
    going_on: int = 0
    since_s: float = 0.0


@dataclass
class Budget:
    """`total_s` None: as long as it needs. `clock` tells seconds; a simulator brings its own.

    Each hardware class has all of it, from when its first node is there.
    """

    effort: Effort
    total_s: float | None
    clock: Callable[[], float] = time.monotonic
    started: float = field(init=False)
    _began: dict[str, float] = field(init=False, default_factory=dict)
    _excluded: dict[str, _Excluded] = field(init=False, default_factory=lambda: defaultdict(_Excluded))
    _took_s: dict[str, list[float]] = field(init=False, default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        """The clock runs from now on."""
        self.started = self.clock()

    def restart(self) -> None:
        """The whole run could not begin before now."""
        self.started = self.clock()

    def begin_with(self, hardware_classes: Iterable[str]) -> None:
        """These classes are there from the beginning."""
        self._began |= dict.fromkeys(hardware_classes, self.started)

    def join(self, hardware_class: str) -> None:
        """A node of the class is there: where it is the first, the time of its class begins."""
        self._began.setdefault(hardware_class, self.clock())

    @contextmanager
    def excluded(self, node_id: str) -> Iterator[None]:
        """What a node does meanwhile is not counted: it waits for others, fetches the model, or prepares."""
        node = self._excluded[node_id]
        if not node.going_on:
            node.since_s = self.clock()
        node.going_on += 1
        try:
            yield
        finally:
            node.going_on -= 1
            if not node.going_on:
                node.total_s += self.clock() - node.since_s

    def took(self, cohort: Cohort, seconds: float) -> None:
        """A replica of the cohort took so long to load and measure."""
        self._took_s[cohort.cohort].append(seconds)

    def left_s(self, slot: Slot) -> float | None:
        """Seconds left to a slot's node, or None without a budget."""
        if self.total_s is None:
            return None
        now, node = self.clock(), self._excluded[slot.node_id]
        excluded_s = node.total_s + (now - node.since_s if node.going_on else 0.0)
        return self.total_s - (now - self._began.get(slot.hardware_class, self.started) - excluded_s)

    def worth(self, job: Job, slot: Slot) -> bool:
        """Whether to begin the job there now. A cohort's first replica always is: a table has no holes."""
        return job.replica == 0 or worth_starting(self.left_s(slot), self._usual_s(job.cohort))

    def share_s(self, job: Job, slot: Slot, schedule: Schedule) -> float | None:
        """Seconds that this replica may take, given what else waits for nodes of its class."""
        lowest = schedule.lowest_waiting(slot.hardware_class)
        pilot = min(job.replica, job.replica if lowest is None else lowest) < self.effort.pilot
        spendable = spendable_s(self.effort, self.total_s, self.left_s(slot), pilot)
        if spendable is None:
            return None
        waiting = schedule.waiting_weight(slot.hardware_class)
        fraction = budget_share(job.cohort, waiting, schedule.slots_of(slot.hardware_class))
        return replica_share_s(spendable, fraction, self._usual_s(job.cohort))

    def _usual_s(self, cohort: Cohort) -> float | None:
        """What a replica of this cohort has taken since this farm began."""
        took = self._took_s.get(cohort.cohort)
        return median(took) if took else None
