"""The time that a run may take, shared out among the replicas that wait. Preparing is not counted, node by node."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from farm.records import Cohort, Slot
from farm.schedule import Job, Schedule
from farm.stopping import Effort, budget_share, replica_share_s, spendable_s, worth_starting


@dataclass
class Budget:
    """`total_s` None: as long as it needs. `clock` tells seconds; a simulator brings its own."""

    effort: Effort
    total_s: float | None
    clock: Callable[[], float] = time.monotonic
    started: float = field(init=False)
    _excluded_s: dict[str, float] = field(init=False, default_factory=lambda: defaultdict(float))
    _took_s: dict[str, list[float]] = field(init=False, default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        """The clock runs from now on."""
        self.started = self.clock()

    def wait_for_nodes(self, seconds: float) -> None:
        """The whole run waited so long before it could begin."""
        self.started += seconds

    def exclude(self, node_id: str, seconds: float) -> None:
        """A node spent so long on what no budget includes."""
        self._excluded_s[node_id] += seconds

    def took(self, cohort: Cohort, seconds: float) -> None:
        """A replica of the cohort took so long to load and measure."""
        self._took_s[cohort.cohort].append(seconds)

    def left_s(self, node_id: str) -> float | None:
        """Seconds left to a node, or None without a budget."""
        if self.total_s is None:
            return None
        return self.total_s - (self.clock() - self.started - self._excluded_s.get(node_id, 0.0))

    def worth(self, job: Job, slot: Slot) -> bool:
        """Whether to begin the job there now. A cohort's first replica always is: a table has no holes."""
        return job.replica == 0 or worth_starting(self.left_s(slot.node_id), self._usual_s(job.cohort))

    def share_s(self, job: Job, slot: Slot, schedule: Schedule) -> float | None:
        """Seconds that this replica may take, given what else waits for nodes of its class."""
        lowest = schedule.lowest_waiting(slot.hardware_class)
        pilot = min(job.replica, job.replica if lowest is None else lowest) < self.effort.pilot
        spendable = spendable_s(self.effort, self.total_s, self.left_s(slot.node_id), pilot)
        if spendable is None:
            return None
        waiting = schedule.waiting_weight(slot.hardware_class)
        fraction = budget_share(job.cohort, waiting, schedule.slots_of(slot.hardware_class))
        return replica_share_s(spendable, fraction, self._usual_s(job.cohort))

    def _usual_s(self, cohort: Cohort) -> float | None:
        """What a replica of this cohort took so far in this session."""
        took = self._took_s.get(cohort.cohort)
        return median(took) if took else None
