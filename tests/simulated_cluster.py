"""A cluster that exists in memory alone: nodes that join and fail, replicas that take virtual time, a ledger to count.

What decides (plan, schedule, crew, budget) is the farm's own; only its edges to Ray and to the store are replaced.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from farm.budget import Budget
from farm.crew import Crew
from farm.events import Event
from farm.grounds import NodeBusyError
from farm.records import Cohort, Failure, Slot
from farm.replica import ReplicaLostError
from farm.rows import ReplicaLog
from farm.schedule import Job, Kind, Schedule
from farm.stopping import EFFORTS, known_parts, weight
from farm.variance import VarianceParts

SECONDS_PER_WEIGHT = 0.01
"""A replica of three cells at length 64 then takes about ten seconds, as it does on a real machine."""


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for nothing: the loop's clock is put forward instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("everybody waits and nothing will happen any more")
            self.now += max(0.0, timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which sleeping costs no time."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Seconds of virtual time."""
        return self._jumping.now


def run_virtually(main: Callable[[VirtualLoop], Coroutine[Any, Any, None]]) -> float:
    """Run a coroutine in virtual time; how many seconds it took."""
    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main(loop))
        return loop.time()


@dataclass
class SimulatedNode:
    """A node with one slot or more; up from `joins_s` on until `fails_s`, while `busy_until_s` held by others."""

    slots: Sequence[Slot]
    joins_s: float = 0.0
    fails_s: float = float("inf")
    busy_until_s: float = 0.0
    bad: type[ReplicaLostError] | None = None
    """What every try on it ends with."""

    def is_up(self, now: float) -> bool:
        """Whether it is there at a time."""
        return self.joins_s <= now < self.fails_s


@dataclass
class Measured:
    """A replica that was measured: by whom, from when to when."""

    job: Job
    slot: Slot
    began_s: float
    ended_s: float


@dataclass
class SimulatedGrounds:
    """Replicas take as long as `seconds_of` says; one in `failing` tries fails by itself, as `seed` decides."""

    nodes: Mapping[str, SimulatedNode]
    clock: Callable[[], float]
    seconds_of: Callable[[Job], float]
    failing: float = 0.0
    seed: int = 0
    ending_s: float = 0.0
    """How long the processes of a replica take to end."""
    measured: list[Measured] = field(default_factory=list)
    attempts: int = 0
    shares: list[float | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Chance is seeded."""
        self._random = random.Random(self.seed)

    async def slots(self, waiting: Mapping[Kind, int]) -> Mapping[str, Sequence[Slot]]:
        """Those of the nodes that are up now."""
        del waiting
        now = self.clock()
        return {node_id: node.slots for node_id, node in self.nodes.items() if node.is_up(now)}

    @asynccontextmanager
    async def reserve(self, slot: Slot) -> AsyncIterator[None]:
        """At once, or after a while not."""
        if self.clock() < self.nodes[slot.node_id].busy_until_s:
            await asyncio.sleep(1.0)
            raise NodeBusyError(f"somebody holds {slot.node_id}")
        yield

    @asynccontextmanager
    async def attempt(
        self, job: Job, slot: Slot, place: None, share_s: float | None, parts: VarianceParts
    ) -> AsyncIterator[ReplicaLog]:
        """Let virtual time pass. On a node that failed meanwhile nothing ever ends, as nobody is there to tell."""
        del place, parts
        self.attempts += 1
        self.shares.append(share_s)
        began_s = self.clock()
        if error := self.nodes[slot.node_id].bad:
            await asyncio.sleep(1.0)
            raise error(Failure("failed", "the disk is full"))
        await asyncio.sleep(self.seconds_of(job))
        await self._nothing_if_gone(slot)
        if self._random.random() < self.failing:
            raise ReplicaLostError(Failure("failed", "the process died"))
        self.measured.append(Measured(job, slot, began_s, self.clock()))
        yield ReplicaLog(job.cohort, job.replica, job.attempt, slot)
        await asyncio.sleep(self.ending_s)
        await self._nothing_if_gone(slot)

    async def _nothing_if_gone(self, slot: Slot) -> None:
        if not self.nodes[slot.node_id].is_up(self.clock()):
            await asyncio.sleep(float("1e9"))


@dataclass
class MemoryLedger:
    """Counts what is published; `elsewhere` has what another farm publishes first."""

    elsewhere: set[tuple[str, int]] = field(default_factory=set)
    takes_s: float = 0.0
    published: Counter[tuple[str, int]] = field(default_factory=Counter)
    failed: set[tuple[str, int]] = field(default_factory=set)
    want: Callable[[Job], int] = lambda _: 0

    async def adopt(self, job: Job, schedule: Schedule) -> bool:
        """Whether the other farm was first."""
        if job.key not in self.elsewhere:
            return False
        schedule.finish(job)
        return True

    def parts(self, cohort: Cohort) -> VarianceParts:
        """Nothing is known."""
        del cohort
        return known_parts([])

    async def publish(self, job: Job, log: ReplicaLog, schedule: Schedule) -> None:
        """Count it."""
        await asyncio.sleep(self.takes_s)
        self.published[job.key] += 1
        if log.failures:
            self.failed.add(job.key)
        schedule.finish(job)
        schedule.want(job.cohort, self.want(job))


@dataclass
class Told:
    """A listener that remembers what it was told."""

    events: list[Event] = field(default_factory=list)

    def on(self, event: Event) -> None:
        """Remember."""
        self.events.append(event)


@dataclass
class Simulation:
    """One simulated run, and what came of it."""

    schedule: Schedule
    nodes: Mapping[str, SimulatedNode]
    seconds_of: Callable[[Job], float] = lambda job: SECONDS_PER_WEIGHT * weight(job.cohort)
    failing: float = 0.0
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    told: Told = field(default_factory=Told)
    plan_for: Callable[[Sequence[Slot]], Iterable[Cohort]] = lambda _: ()
    patience_s: float = 600.0
    budget_s: float | None = None
    ending_s: float = 0.0
    grounds: SimulatedGrounds = field(init=False)
    took_s: float = field(init=False)

    def run(self) -> Simulation:
        """Run it to its end; this simulation."""
        self.took_s = run_virtually(self._work)
        return self

    async def _work(self, loop: VirtualLoop) -> None:
        self.grounds = SimulatedGrounds(self.nodes, loop.time, self.seconds_of, self.failing, ending_s=self.ending_s)
        budget = Budget(EFFORTS["standard"], self.budget_s, clock=loop.time)
        rest = {"plan_for": self.plan_for, "patience_s": self.patience_s}
        await Crew(self.grounds, self.schedule, self.ledger, budget, self.told, **rest).work()


def simulated_nodes(count: int, slot: Slot, **times: float) -> dict[str, SimulatedNode]:
    """So many nodes with one slot each, like this one."""
    names = [f"{slot.hardware_class}-{number}" for number in range(count)]
    return {name: SimulatedNode([replace(slot, node_id=name, hostname=name)], **times) for name in names}


def lower_bound_s(seconds: Sequence[float], slots: int) -> float:
    """No schedule on so many slots is shorter: all work shared evenly; the longest job alone; and, as of the k * slots
    + 1 longest jobs some slot gets k + 1, the k + 1 shortest of those together (Graham, 1969, for k = 1)."""
    longest = sorted(seconds, reverse=True)
    together = [sum(longest[k * slots - k : k * slots + 1]) for k in range(1, (len(longest) - 1) // slots + 1)]
    return max(sum(longest) / slots, longest[0], *together)
