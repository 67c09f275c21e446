"""One worker for each node: takes jobs as long as there are any, while nodes come and go. Knows nothing of Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from farm.budget import Budget
from farm.errors import FarmError
from farm.events import AttemptFailed, Listener, NodeJoined, NodeLost, Notice, ReplicaBegan
from farm.grounds import Grounds, Ledger, NodeBusyError, failed_log
from farm.idlers import Idlers
from farm.quarantine import MOST_IN_A_ROW, QUARANTINE_S, Quarantine
from farm.records import Cohort, Failure, Slot
from farm.replica import NodeFaultError, NodeUnfitError, ReplicaLostError
from farm.rows import ReplicaLog
from farm.schedule import Job, Schedule

MOST_FAILURES = 3
"""Tries at one replica that may end by its own fault, or by nodes', before its cells are published as failed."""

MOST_NODES_LOST = 5
"""Nodes that may go away under one replica before it is taken for the reason."""

POLL_S = 2.0
"""How often the cluster is asked which nodes are up: one request to its head, whatever the number of nodes."""

BUSY_RETRY_S = 5.0
"""After this long a node that other work holds is tried again."""


class Crew:
    """Measures all that a schedule holds on the nodes that there are."""

    def __init__(
        self,
        grounds: Grounds,
        schedule: Schedule,
        ledger: Ledger,
        budget: Budget,
        listener: Listener,
        *,
        plan_for: Callable[[Sequence[Slot]], Iterable[Cohort]],
        patience_s: float,
    ) -> None:
        """`plan_for` gives the cohorts that slots of a node that joined make possible, if the suite wants them.

        After `patience_s` without any node to work on, the crew gives up; nodes that others hold are waited for.
        """
        self._grounds = grounds
        self._schedule = schedule
        self._ledger = ledger
        self._budget = budget
        self._listener = listener
        self._plan_for = plan_for
        self._patience_s = patience_s
        self._idlers = Idlers()
        self._complete = asyncio.Event()
        self._serving: dict[str, asyncio.Task[None]] = {}
        self._useless: set[str] = set()
        self._quarantine = Quarantine()
        self._reserved = 0
        self._held: set[Slot] = set()
        self._unfit = ""
        self._told: set[str] = set()

    async def work(self) -> None:
        """Let every node work until nothing is left. Raises FarmError where results cannot be written or no node is
        left to work on."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._watch(group)
        except* FarmError as errors:
            raise _first(errors) from errors  # the groups' own wrapping means nothing to a user

    async def _watch(self, group: asyncio.TaskGroup) -> None:
        """Give every node that is up a worker, and end those of nodes that are gone."""
        clock = asyncio.get_running_loop().time
        idle_since = clock()
        while not self._schedule.complete:
            up = await self._grounds.slots(self._schedule.waiting_by_kind())
            for node_id in [node_id for node_id in self._serving if node_id not in up]:
                self._serving.pop(node_id).cancel()
                self._listener.on(NodeLost(node_id))
            for node_id in up.keys() - self._serving.keys() - self._useless:
                self._welcome(group, node_id, up[node_id])
            if self._reserved or any(map(self._schedule.has_work, self._held)):
                idle_since = clock()
            self._bear_idleness(clock() - idle_since)
            try:
                await asyncio.wait_for(self._complete.wait(), POLL_S)
            except TimeoutError:
                continue
        self._idlers.dismiss()

    def _welcome(self, group: asyncio.TaskGroup, node_id: str, slots: Sequence[Slot]) -> None:
        """Let a node that is new take part, if the run has work for its kind."""
        self._schedule.add(self._plan_for(slots))
        useful = [slot for slot in slots if self._schedule.knows(slot)]
        if not useful:
            self._useless.add(node_id)
            return
        self._listener.on(NodeJoined(node_id, slots[0].hostname, slots[0].hardware_class, len(useful)))
        self._budget.join(slots[0].hardware_class)
        for slot in useful:
            self._schedule.join(slot)
        worker = group.create_task(self._serve(useful))
        worker.add_done_callback(lambda _: self._let_go(useful))
        self._serving[node_id] = worker

    def _let_go(self, slots: Sequence[Slot]) -> None:
        for slot in slots:
            self._schedule.leave(slot)
        self._held -= set(slots)
        self._idlers.tell_all()  # it may have been told of a job that it did not take any more

    def _bear_idleness(self, idle_s: float) -> None:
        """Say once what is waited for; raise FarmError when it has been long enough."""
        missing = [f"no node of class {each} is up" for each in self._schedule.classes_waited_for()]
        reason = "; ".join([*missing, *([self._unfit] if self._unfit else [])])
        if not reason:
            return
        if idle_s > self._patience_s:
            raise FarmError(
                f"gave up after {self._patience_s:.0f} s without a node to measure on: {reason}. "
                f"{self._schedule.unfinished} replicas are missing; start a node, then the same command continues"
            )
        if missing and reason not in self._told:
            self._told.add(reason)
            self._listener.on(Notice(reason, "waiting for one to join; the work of other classes goes on"))

    async def _serve(self, slots: Sequence[Slot]) -> None:
        """Let the slots of one node work: those of a device at the same time, devices one after another, as they
        share the cores."""
        working: dict[Slot, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while not self._schedule.complete:
                for slot in self._next_to_work(slots, working):
                    working[slot] = group.create_task(self._work(slot))
                with self._idlers.join(partial(self._next_to_work, slots, working)) as more_work:
                    await asyncio.wait([more_work, *working.values()], return_when=asyncio.FIRST_COMPLETED)
                working = {slot: task for slot, task in working.items() if not task.done()}

    def _next_to_work(self, slots: Sequence[Slot], working: Collection[Slot]) -> list[Slot]:
        """The idle slots that have work waiting, of the device that is being measured already or else of the first."""
        having = [slot for slot in slots if slot not in working and self._schedule.has_work(slot)]
        leading = next(iter(working), None) or next(iter(having), None)
        return [slot for slot in having if leading and (slot.gpu is None) == (leading.gpu is None)]

    async def _work(self, slot: Slot) -> None:
        """Reserve the slot once and measure replica after replica on it."""
        job = self._schedule.take(slot)
        if job is None:
            return
        try:
            async with self._reserve(slot) as place:
                while job is not None:
                    taken, job = job, None
                    await self._measure(taken, slot, place)
                    job = self._schedule.take(slot)
        except NodeBusyError as busy:
            self._hold(slot, by_others=True)
            self._tell_once(str(busy), "waiting until it is free, however long; nodes that are free go on")
            self._give_back(job)
            job = None
            with self._budget.excluded(slot.node_id):
                await asyncio.sleep(BUSY_RETRY_S)
        finally:
            self._give_back(job)

    @asynccontextmanager
    async def _reserve(self, slot: Slot) -> AsyncIterator[Any]:
        """Hold the slot; waiting for it costs no budget. Raises NodeBusyError."""
        async with AsyncExitStack() as ends:
            with self._budget.excluded(slot.node_id):
                place = await ends.enter_async_context(self._grounds.reserve(slot))
            self._hold(slot, by_others=False)
            self._reserved += 1
            try:
                yield place
            finally:
                self._reserved -= 1

    def _hold(self, slot: Slot, by_others: bool) -> None:
        """Note whether other work holds the slot's node: what failed elsewhere does not wait for it then."""
        (self._held.add if by_others else self._held.discard)(slot)
        self._schedule.hold(slot.node_id, by_others)
        if by_others:
            self._idlers.tell_all()

    async def _measure(self, job: Job, slot: Slot, place: Any) -> None:
        """Measure and publish one replica; whatever keeps it from that, it waits again."""
        settled = False
        try:
            again = await self._settle(job, slot, place)
            settled = True
        finally:
            if not settled and self._schedule.in_work(job):  # the node is gone, or the run ends
                self._give_back(replace(job, attempt=job.attempt + 1, nodes_lost=job.nodes_lost + 1))
        self._give_back(again)
        if self._schedule.complete:
            self._complete.set()

    async def _settle(self, job: Job, slot: Slot, place: Any) -> Job | None:
        """Publish the job's replica, measured or failed, or drop it; the job to try again where that is worth it."""
        if await self._ledger.adopt(job, self._schedule):
            return None
        if not self._budget.worth(job, slot):
            self._schedule.drop(job)
            remedy = "intervals are wider than the effort aims at; give more time with --set budget_s=SECONDS"
            self._tell_once("the time budget ended before every replica was measured", remedy)
            return None
        if job.nodes_lost >= MOST_NODES_LOST:
            lost = Failure("failed", f"{job.nodes_lost} nodes went away while it was measured")
            await self._publish(job, failed_log(job, slot, lost))
            return None
        self._listener.on(ReplicaBegan(job.cohort, job.replica, job.attempt, slot))
        share_s = self._budget.share_s(job, slot, self._schedule)
        try:
            async with self._grounds.attempt(job, slot, place, share_s, self._ledger.parts(job.cohort)) as log:
                await self._publish(job, log)
        except ReplicaLostError as lost:
            return await self._after_failure(job, slot, lost)
        self._quarantine.succeeded(slot.node_id)
        return None

    async def _after_failure(self, job: Job, slot: Slot, lost: ReplicaLostError) -> Job | None:
        """The next try, on another node if there is one; None once the replica is published as failed."""
        failure = lost.failure
        self._listener.on(AttemptFailed(job.cohort, job.replica, job.attempt, slot, failure))
        self._listener.on(Notice(f"attempt {job.attempt} of {job.cohort.cohort} failed: {failure.reason}"))
        again = replace(job, attempt=job.attempt + 1, tried=job.tried | {slot.node_id})
        if isinstance(lost, NodeUnfitError):
            self._unfit = failure.reason
            self._set_aside(slot, f"{slot.hostname} is left out: {failure.reason}", "mend it and start the node again")
            return again
        if failure.status == "failed":
            self._suspect(job, slot, failure)
        if isinstance(lost, NodeFaultError):
            again = replace(again, node_faults=job.node_faults + 1)
        else:
            again = replace(again, failures=job.failures + 1)
            failure = replace(failure, reason=f"the baseline failed: {failure.reason}")
        if failure.status == "failed" and max(again.failures, again.node_faults) < MOST_FAILURES:
            return again
        await self._publish(job, failed_log(job, slot, failure))
        if len(again.tried) > 1:
            for node_id in self._quarantine.fails_everywhere(job.cohort.cohort):
                self._let_back(node_id)
        return None

    def _suspect(self, job: Job, slot: Slot, failure: Failure) -> None:
        """A node where nothing succeeds any more is left alone for a while, if another can do its work."""
        if self._quarantine.failed(slot.node_id, job.cohort.cohort) and self._schedule.replaceable(slot):
            self._quarantine.begin(slot.node_id)
            message = f"{MOST_IN_A_ROW} cohorts in a row failed on {slot.hostname}, the last because: {failure.reason}"
            self._set_aside(slot, message, f"it gets no work for {QUARANTINE_S:.0f} s; other nodes go on")
            asyncio.get_running_loop().call_later(QUARANTINE_S, self._end_quarantine, slot.node_id)

    def _end_quarantine(self, node_id: str) -> None:
        if self._quarantine.end(node_id):
            self._let_back(node_id)

    def _set_aside(self, slot: Slot, message: str, remedy: str) -> None:
        self._schedule.set_aside(slot.node_id)
        self._listener.on(Notice(message, remedy))
        self._idlers.tell_all()

    def _let_back(self, node_id: str) -> None:
        self._schedule.let_back(node_id)
        self._idlers.tell_all()

    async def _publish(self, job: Job, log: ReplicaLog) -> None:
        """Publish a replica. Once that has begun it is done, even where its node goes or the run ends meanwhile."""
        before = self._schedule.total
        publishing = asyncio.ensure_future(self._ledger.publish(job, log, self._schedule))
        try:
            await asyncio.shield(publishing)
        except asyncio.CancelledError:
            await publishing
            raise
        finally:
            self._idlers.tell(self._schedule.total - before)

    def _give_back(self, job: Job | None) -> None:
        if job is not None:
            self._schedule.give_back(job)
            self._idlers.tell(1)

    def _tell_once(self, message: str, remedy: str) -> None:
        if message not in self._told:
            self._told.add(message)
            self._listener.on(Notice(message, remedy))


def _first(errors: BaseExceptionGroup[FarmError]) -> BaseException:
    """The first error of a group of groups."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
