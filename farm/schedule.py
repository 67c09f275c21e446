"""Which cohort replica is measured next, and where. Pure, so that a simulator can drive it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from farm.records import Cohort, Slot


@dataclass(frozen=True, slots=True)
class Job:
    """One replica of one cohort."""

    cohort: Cohort
    replica: int


class Schedule:
    """Hands out jobs replica by replica: every cohort gets its first before any gets its second.

    So a budget that ends early leaves a whole table. Within a replica, cohorts keep the plan's order.
    """

    def __init__(self, cohorts: Sequence[Cohort], replicas: int, done: Iterable[tuple[str, int]] = ()) -> None:
        self._cohorts = tuple(cohorts)
        self._wanted = {cohort.cohort: replicas for cohort in cohorts}
        self._done = set(done)
        self._taken: set[tuple[str, int]] = set()

    def want(self, cohort: Cohort, replicas: int) -> None:
        """Ask for so many replicas of a cohort; never fewer than before."""
        self._wanted[cohort.cohort] = max(replicas, self._wanted[cohort.cohort])

    def wanted(self, cohort: Cohort) -> int:
        """How many replicas of this cohort are asked for."""
        return self._wanted[cohort.cohort]

    def take(self, slot: Slot) -> Job | None:
        """The next job that this slot can run, now its own; None when there is none left for it."""
        fitting = [job for job in self.waiting() if fits(job.cohort, slot)]
        if not fitting:
            return None
        self._taken.add((fitting[0].cohort.cohort, fitting[0].replica))
        return fitting[0]

    def finish(self, job: Job) -> None:
        """The job's replica is published."""
        self._done.add((job.cohort.cohort, job.replica))

    def waiting(self) -> list[Job]:
        """Jobs that nobody has taken, in the order they will be handed out."""
        most = max(self._wanted.values(), default=0)
        return [
            Job(cohort, replica)
            for replica in range(most)
            for cohort in self._cohorts
            if replica < self._wanted[cohort.cohort] and (cohort.cohort, replica) not in self._done | self._taken
        ]

    @property
    def done(self) -> int:
        """How many replicas are published, those from before this schedule began included."""
        return len(self._done)

    @property
    def total(self) -> int:
        """How many replicas are asked for altogether."""
        return sum(self._wanted.values())


def fits(cohort: Cohort, slot: Slot) -> bool:
    """Whether the slot has the hardware that the cohort was planned for."""
    return cohort.hardware_class == slot.hardware_class and (slot.gpu is not None) == (cohort.workload.device == "cuda")
