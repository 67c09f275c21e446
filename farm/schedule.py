"""Which cohort replica is measured next, and where. Pure, so that a simulator can drive it."""

from __future__ import annotations

from bisect import insort
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import islice

from farm.records import Cohort, Device, Slot
from farm.stopping import weight

SPREAD_LOOK = 16
"""Among so many jobs that are next, a node prefers a cohort it measured less often: enough to keep two of a kind
apart, few enough that the order and the cost of a choice stay what they are."""

Kind = tuple[str, Device]
"""A hardware class and a device: what a cohort needs and a slot is."""


@dataclass(frozen=True, slots=True)
class Job:
    """One try at one replica of one cohort.

    `failures` counts earlier tries that ended by the cohort's own fault, `node_faults` those that are more likely the
    node's, `nodes_lost` those that ended with their node; `tried` are the nodes on which it failed.
    """

    cohort: Cohort
    replica: int
    attempt: int = 1
    failures: int = 0
    node_faults: int = 0
    nodes_lost: int = 0
    tried: frozenset[str] = frozenset()

    @property
    def key(self) -> tuple[str, int]:
        """What it will be published as."""
        return self.cohort.cohort, self.replica


@dataclass
class _Queue:
    """What waits for slots of one kind: by replica, and in each from the shortest cohort to the longest."""

    levels: dict[int, list[tuple[float, int, Cohort]]] = field(default_factory=dict)
    lowest: list[int] = field(default_factory=list)
    returned: deque[Job] = field(default_factory=deque)
    slots_on: Counter[str] = field(default_factory=Counter)
    """How many slots of this kind take part at the moment, by node."""

    @property
    def slots(self) -> int:
        return self.slots_on.total()

    def add(self, replica: int, cohort: Cohort, place: int) -> None:
        if replica not in self.levels:
            self.levels[replica] = []
            heappush(self.lowest, replica)
        insort(self.levels[replica], (weight(cohort), place, cohort), key=lambda entry: entry[:2])

    def level(self) -> tuple[int, list[tuple[float, int, Cohort]]] | None:
        """The lowest replica that has anything waiting, and what."""
        while self.lowest:
            if entries := self.levels[self.lowest[0]]:
                return self.lowest[0], entries
            del self.levels[heappop(self.lowest)]
        return None


class Schedule:
    """Hands out jobs replica by replica: every cohort gets its first before any gets its second.

    So a budget that ends early leaves a whole table. Within a replica, one slot takes the shortest cohort first, for
    an early answer; several take the longest first, so that none is left with a long one when the others are done
    (Graham, 1969). With `backwards` that is the other way round, to meet a farm that began at the usual end.
    """

    def __init__(
        self,
        cohorts: Sequence[Cohort],
        replicas: int,
        done: Iterable[tuple[str, int]] = (),
        backwards: bool = False,
    ) -> None:
        self._replicas = replicas
        self._backwards = backwards
        self._done = set(done)
        self._wanted: dict[str, int] = {}
        self._total = 0
        self._place: dict[str, int] = {}
        self._kinds: set[Kind] = set()
        self._queues: defaultdict[Kind, _Queue] = defaultdict(_Queue)
        self._in_work: set[tuple[str, int]] = set()
        self._finished = 0
        self._aside: set[str] = set()
        self._held: set[str] = set()
        self._waiting: Counter[Kind] = Counter()
        self._waiting_weight: defaultdict[str, float] = defaultdict(float)
        self._measured_on: Counter[tuple[str, str]] = Counter()
        self.add(cohorts)

    def add(self, cohorts: Iterable[Cohort]) -> None:
        """Take further cohorts in, with as many replicas as the others began with; those known already are ignored."""
        for cohort in cohorts:
            if cohort.cohort not in self._wanted:
                self._wanted[cohort.cohort] = 0
                self._place[cohort.cohort] = len(self._place)
                self._kinds.add(kind_of(cohort))
                self.want(cohort, self._replicas)

    def want(self, cohort: Cohort, replicas: int) -> None:
        """Ask for so many replicas of a cohort; never fewer than before."""
        for replica in range(self._wanted[cohort.cohort], replicas):
            self._wanted[cohort.cohort] += 1
            self._total += 1
            if (cohort.cohort, replica) in self._done:
                self._finished += 1
            else:
                self._queues[kind_of(cohort)].add(replica, cohort, self._place[cohort.cohort])
                self._count_waiting(cohort, 1)

    def wanted(self, cohort: Cohort) -> int:
        """How many replicas of this cohort are asked for."""
        return self._wanted[cohort.cohort]

    def join(self, slot: Slot) -> None:
        """The slot takes part from now on."""
        self._queues[slot_kind(slot)].slots_on[slot.node_id] += 1

    def leave(self, slot: Slot) -> None:
        """The slot takes part no more."""
        on = self._queues[slot_kind(slot)].slots_on
        on[slot.node_id] -= 1
        if not on[slot.node_id]:
            del on[slot.node_id]
            self._held.discard(slot.node_id)

    def set_aside(self, node_id: str) -> None:
        """The node gets no work until it is let back."""
        self._aside.add(node_id)

    def let_back(self, node_id: str) -> None:
        """The node gets work again."""
        self._aside.discard(node_id)

    def hold(self, node_id: str, by_others: bool) -> None:
        """Whether other work holds the node: then nothing waits for just this one."""
        (self._held.add if by_others else self._held.discard)(node_id)

    def replaceable(self, slot: Slot) -> bool:
        """Whether another node takes part that can do what the slot can and is not set aside."""
        on = self._queues[slot_kind(slot)].slots_on
        return len(on) > len((self._aside | {slot.node_id}) & on.keys())

    def slots_of(self, hardware_class: str) -> int:
        """How many slots of the class take part, of the device that has most of them."""
        return max((queue.slots for kind, queue in self._queues.items() if kind[0] == hardware_class), default=0)

    def knows(self, slot: Slot) -> bool:
        """Whether any cohort was planned for the slot's kind."""
        return slot_kind(slot) in self._kinds

    def has_work(self, slot: Slot) -> bool:
        """Whether anything waits that the slot can run."""
        queue = self._queues[slot_kind(slot)]
        if slot.node_id in self._aside:
            return False
        return queue.level() is not None or any(self._is_for(job, queue, slot.node_id) for job in queue.returned)

    def take(self, slot: Slot) -> Job | None:
        """The next job that this slot can run, now its own; None when there is none left for it."""
        if slot.node_id in self._aside:
            return None
        queue = self._queues[slot_kind(slot)]
        job = self._take_returned(queue, slot) or self._take_new(queue, slot)
        if job is not None:
            self._in_work.add(job.key)
            self._count_waiting(job.cohort, -1)
            self._measured_on[job.cohort.cohort, slot.node_id] += 1
        return job

    def finish(self, job: Job) -> None:
        """The job's replica is published."""
        self._in_work.discard(job.key)
        self._finished += job.key not in self._done
        self._done.add(job.key)

    def drop(self, job: Job) -> None:
        """The job will not be measured in this run."""
        self._in_work.discard(job.key)

    def give_back(self, job: Job) -> None:
        """The job was not finished and waits again: before all others, but where it failed before."""
        self._in_work.discard(job.key)
        self._queues[kind_of(job.cohort)].returned.append(job)
        self._count_waiting(job.cohort, 1)

    def in_work(self, job: Job) -> bool:
        """Whether somebody works on the job's replica."""
        return job.key in self._in_work

    def waiting_by_kind(self) -> dict[Kind, int]:
        """How many jobs nobody has taken, by what they need."""
        return {kind: count for kind, count in self._waiting.items() if count}

    def waiting_weight(self, hardware_class: str) -> float:
        """What waits for nodes of a class, in the units of `stopping.weight`."""
        return max(0.0, self._waiting_weight[hardware_class])

    def lowest_waiting(self, hardware_class: str) -> int | None:
        """The lowest number of a replica that waits for nodes of the class; None where nothing waits."""
        queues = [queue for kind, queue in self._queues.items() if kind[0] == hardware_class]
        numbers = [level[0] for queue in queues if (level := queue.level())]
        return min([*numbers, *(job.replica for queue in queues for job in queue.returned)], default=None)

    def classes_waited_for(self) -> list[str]:
        """Hardware classes that something waits for and no slot of which takes part."""
        idle = {
            kind[0] for kind, queue in self._queues.items() if not queue.slots and (queue.returned or queue.level())
        }
        return sorted(idle)

    def unfinished_classes(self) -> set[str]:
        """Hardware classes that something waits for."""
        return {hardware_class for hardware_class, _ in self.waiting_by_kind()}

    @property
    def complete(self) -> bool:
        """Whether nothing waits and nobody works."""
        return not self._in_work and not self._waiting.total()

    @property
    def unfinished(self) -> int:
        """How many replicas are asked for and neither published nor dropped."""
        return self._waiting.total() + len(self._in_work)

    @property
    def done(self) -> int:
        """How many of the replicas that are asked for are published, from before this schedule began or since."""
        return self._finished

    @property
    def total(self) -> int:
        """How many replicas are asked for altogether."""
        return self._total

    def _is_for(self, job: Job, queue: _Queue, node_id: str) -> bool:
        """Whether a node may take a job that was given back: one where it failed, only when no other is left to try."""
        if node_id not in job.tried:
            return True
        return not any(on not in job.tried and on not in self._aside and on not in self._held for on in queue.slots_on)

    def _take_returned(self, queue: _Queue, slot: Slot) -> Job | None:
        """The first job that was given back and is for this slot's node. One that failed there before comes after what
        is new, unless that is of a later replica."""
        mine = [job for job in queue.returned if self._is_for(job, queue, slot.node_id)]
        job = min(mine, key=lambda job: slot.node_id in job.tried, default=None)
        level = queue.level()
        if job is None or (slot.node_id in job.tried and level is not None and level[0] <= job.replica):
            return None
        queue.returned.remove(job)
        return job

    def _take_new(self, queue: _Queue, slot: Slot) -> Job | None:
        """A job of the lowest replica, from the end whose turn it is, of a cohort that this node measured least."""
        level = queue.level()
        if level is None:
            return None
        replica, entries = level
        count = len(entries)
        longest_first = (queue.slots > 1) != self._backwards
        order = range(count - 1, -1, -1) if longest_first else range(count)
        index = min(islice(order, SPREAD_LOOK), key=lambda i: self._measured_on[entries[i][2].cohort, slot.node_id])
        return Job(entries.pop(index)[2], replica)

    def _count_waiting(self, cohort: Cohort, change: int) -> None:
        self._waiting[kind_of(cohort)] += change
        self._waiting_weight[cohort.hardware_class] += change * weight(cohort)


def kind_of(cohort: Cohort) -> Kind:
    """What the cohort was planned for."""
    return cohort.hardware_class, cohort.workload.device


def slot_kind(slot: Slot) -> Kind:
    """What the slot is."""
    return slot.hardware_class, "cpu" if slot.gpu is None else "cuda"
