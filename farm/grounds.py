"""What a crew works with: nodes to measure on, and where replicas are published. A simulator brings its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from farm.records import Cohort, Failure, Slot
from farm.rows import ReplicaLog
from farm.schedule import Job, Kind, Schedule
from farm.variance import VarianceParts


class NodeBusyError(Exception):
    """Other work on the cluster holds the node."""


class Grounds(Protocol):
    """Where replicas are measured: a Ray cluster, or a simulated one."""

    async def slots(self, waiting: Mapping[Kind, int]) -> Mapping[str, Sequence[Slot]]:
        """The slots of every node that is up now, by the node's id; so many jobs wait for slots of each kind."""

    def reserve(self, slot: Slot) -> AbstractAsyncContextManager[Any]:
        """Hold the slot; what it yields is handed to `attempt`. Raises NodeBusyError."""

    def attempt(
        self, job: Job, slot: Slot, place: Any, share_s: float | None, parts: VarianceParts
    ) -> AbstractAsyncContextManager[ReplicaLog]:
        """Measure one replica in a reserved slot; its processes are ended after the block, which publishes it.

        Raises ReplicaLostError; is cancelled when the node is gone.
        """


class Ledger(Protocol):
    """Where replicas are published."""

    async def adopt(self, job: Job, schedule: Schedule) -> bool:
        """Whether another farm published this replica meanwhile; then it is finished."""

    def parts(self, cohort: Cohort) -> VarianceParts:
        """What the cohort's published replicas tell of how rounds and processes differ."""

    async def publish(self, job: Job, log: ReplicaLog, schedule: Schedule) -> None:
        """Publish the replica, finish it in the schedule, ask there for as many more as it shows to be needed."""


def failed_log(job: Job, slot: Slot, failure: Failure) -> ReplicaLog:
    """What is published of a replica that could not be measured: every cell failed."""
    log = ReplicaLog(job.cohort, job.replica, job.attempt, slot)
    log.failures = {cell.cell: failure for cell in job.cohort.cells}
    return log
