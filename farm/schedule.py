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

    `failures` counts earlier tries that ended by the cohort's own fault, `nodes_lost` those that ended with their
    node; `avoid` is a node to keep away from while others are there.
    """

    cohort: Cohort
    replica: int
    attempt: int = 1
    failures: int = 0
    nodes_lost: int = 0
    avoid: str | None = None

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
    slots: int = 0
    """Slots of this kind that take part at the moment."""
    working: int = 0
    idle_on: Counter[str] = field(default_factory=Counter)
    """Of those, how many work, and how many on each node do not."""

    def change(self, node_id: str, slots: int = 0, working: int = 0) -> None:
        """So many slots of a node joined, or began to work."""
        self.slots += slots
        self.working += working
        self.idle_on[node_id] += slots - working

    def is_for(self, job: Job, node_id: str) -> bool:
        """Whether a job that was given back may be taken by a node: not where it failed, while another one idles."""
        return job.avoid != node_id or self.slots - self.working <= self.idle_on[node_id]

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
        self._dropped = 0
        self._wanted: dict[str, int] = {}
        self._total = 0
        self._place: dict[str, int] = {}
        self._kinds: set[Kind] = set()
        self._queues: defaultdict[Kind, _Queue] = defaultdict(_Queue)
        self._in_work: dict[tuple[str, int], str] = {}
        self._waiting = 0
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
            if (cohort.cohort, replica) not in self._done:
                self._queues[kind_of(cohort)].add(replica, cohort, self._place[cohort.cohort])
                self._count_waiting(cohort, 1)

    def wanted(self, cohort: Cohort) -> int:
        """How many replicas of this cohort are asked for."""
        return self._wanted[cohort.cohort]

    def join(self, slot: Slot) -> None:
        """The slot takes part from now on."""
        self._queues[slot_kind(slot)].change(slot.node_id, slots=1)

    def leave(self, slot: Slot) -> None:
        """The slot takes part no more."""
        self._queues[slot_kind(slot)].change(slot.node_id, slots=-1)

    def slots_of(self, hardware_class: str) -> int:
        """How many slots of the class take part, of the device that has most of them."""
        return max((queue.slots for kind, queue in self._queues.items() if kind[0] == hardware_class), default=0)

    def knows(self, slot: Slot) -> bool:
        """Whether any cohort was planned for the slot's kind."""
        return slot_kind(slot) in self._kinds

    def has_work(self, slot: Slot) -> bool:
        """Whether anything waits that the slot can run."""
        queue = self._queues[slot_kind(slot)]
        return queue.level() is not None or any(queue.is_for(job, slot.node_id) for job in queue.returned)

    def take(self, slot: Slot) -> Job | None:
        """The next job that this slot can run, now its own; None when there is none left for it."""
        queue = self._queues[slot_kind(slot)]
        job = self._take_returned(queue, slot) or self._take_new(queue, slot)
        if job is not None:
            self._in_work[job.key] = slot.node_id
            queue.change(slot.node_id, working=1)
            self._count_waiting(job.cohort, -1)
            self._measured_on[job.cohort.cohort, slot.node_id] += 1
        return job

    def finish(self, job: Job) -> None:
        """The job's replica is published."""
        self._end(job)
        self._done.add(job.key)

    def drop(self, job: Job) -> None:
        """The job will not be measured in this run."""
        self._end(job)
        self._dropped += 1

    def give_back(self, job: Job) -> None:
        """The job was not finished and waits again, before all others."""
        self._end(job)
        self._queues[kind_of(job.cohort)].returned.append(job)
        self._count_waiting(job.cohort, 1)

    def waiting(self) -> list[Job]:
        """Jobs that nobody has taken, in the order in which one slot after another would take them."""
        given_back = [job for queue in self._queues.values() for job in queue.returned]
        new = [
            (replica, *entry)
            for queue in self._queues.values()
            for replica, entries in queue.levels.items()
            for entry in entries
        ]
        return given_back + [Job(cohort, replica) for replica, _, _, cohort in sorted(new, key=lambda each: each[:3])]

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

    @property
    def complete(self) -> bool:
        """Whether nothing waits and nobody works."""
        return not self._waiting and not self._in_work

    @property
    def unfinished(self) -> int:
        """How many replicas are asked for and neither published nor dropped."""
        return self._waiting + len(self._in_work)

    @property
    def done(self) -> int:
        """How many replicas are published, those from before this schedule began included."""
        return len(self._done)

    @property
    def total(self) -> int:
        """How many replicas are asked for altogether."""
        return self._total

    def _end(self, job: Job) -> None:
        """Nobody works on the job any more."""
        node_id = self._in_work.pop(job.key, None)
        if node_id is not None:
            self._queues[kind_of(job.cohort)].change(node_id, working=-1)

    def _take_returned(self, queue: _Queue, slot: Slot) -> Job | None:
        """The first job that was given back and is for this slot's node."""
        job = next((job for job in queue.returned if queue.is_for(job, slot.node_id)), None)
        if job is not None:
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
        self._waiting += change
        self._waiting_weight[cohort.hardware_class] += change * weight(cohort)


def kind_of(cohort: Cohort) -> Kind:
    """What the cohort was planned for."""
    return cohort.hardware_class, cohort.workload.device


def slot_kind(slot: Slot) -> Kind:
    """What the slot is."""
    return slot.hardware_class, "cpu" if slot.gpu is None else "cuda"


def fits(cohort: Cohort, slot: Slot) -> bool:
    """Whether the slot has the hardware that the cohort was planned for."""
    return kind_of(cohort) == slot_kind(slot)
