"""A Ray cluster as the crew sees it: which slots are up, holding one, and one try at a replica in it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import PlacementGroup
from rich.text import Text

from farm import nodes, reservation
from farm.bench import Bench
from farm.cargo import Cargo
from farm.cohort import CohortProcess
from farm.errors import FarmError, RequestError
from farm.events import Notice
from farm.hardware import CLASS_LABEL, admits, label_of, may_admit, nothing_fits
from farm.machine import kind_of_software, unlike
from farm.node_wish import NodeWish, nodes_wanted, usual_kind
from farm.nodes import Node
from farm.records import Failure, Machine, Slot
from farm.replica import NodeFaultError, NodeUnfitError, measure_replica, prepare_replica
from farm.rows import ReplicaLog
from farm.schedule import Job, Kind
from farm.slots import devices_of, slots_of
from farm.variance import VarianceParts

LOCK_POLL_S = 2.0
"""How often cores that another farm holds are tried again."""

CLOSE_S = 15.0
"""How long a cohort may take to end its processes before it is killed with them."""

UP_POLL_S = 1.0
"""How often the cluster is asked for nodes while there is none to begin with."""

NODE_DEATH_S = 60.0
"""Ray takes up to half a minute to be sure that a node is gone."""

MOST_SILENCES = 3
"""So many times a node is asked what it is made of, if Ray cannot get an answer."""


class RayCluster:
    """The nodes of the connected cluster that the suite admits; `machines` describes each hardware class met so far.

    The head and the node of this process take part only where there is nothing else; in a `shared` cluster, which is
    not this run's own, that is worth a warning.
    """

    def __init__(self, bench: Bench, shared: bool) -> None:
        self._bench = bench
        self._suite = bench.suite
        self.shared = shared
        self._on_head = False
        self._slots: dict[str, list[Slot]] = {}
        self._asked: dict[str, tuple[Any, float]] = {}
        self._silences: Counter[str] = Counter()
        self._refusal = ""
        self._up: set[str] = set()
        self._told: set[str] = set()
        self._wish = NodeWish()
        self._labels: dict[str, tuple[str, str]] = {}
        self._cargo = Cargo(bench.model.folder)
        self._machine_of: dict[str, Machine] = {}
        self._measured_on: dict[str, Machine] = {}
        self.machines: dict[str, Machine] = {}
        """One of each hardware class. All that are measured on have the same libraries."""

    def first_slots(self) -> list[Slot]:
        """The slots to plan for; where none is up for all that the suite names, the cluster is asked for nodes.

        Raises RequestError where none comes, or where `hardware` names what nodes that are up are not.
        """
        started, limit_s = time.monotonic(), self._suite.limits.node_s
        kind = usual_kind(self._suite)
        while not self._covers(found := self._first_look()):
            self._refuse_what_cannot_come()
            if time.monotonic() - started > limit_s:
                raise RequestError(f"no {kind} is up, nor came within {limit_s:.0f} s; start one")
            remedy = f"the cluster was asked for one; waiting up to {limit_s:.0f} s"
            self._tell_once(f"no {kind} is up yet", remedy)
            self._ask({kind: max(1, self._suite.nodes - len(found))})
            time.sleep(UP_POLL_S)
            self._bench.budget.restart()
        first = [slot for each in found.values() for slot in each]
        self._bench.budget.begin_with({slot.hardware_class for slot in first})
        return first

    async def slots(self, waiting: Mapping[Kind, int]) -> Mapping[str, Sequence[Slot]]:
        """The slots of every node that is up now and that the suite admits, by the node's id.

        The cluster is asked for such as would help with what waits.
        """
        if not self.shared:
            return (
                self._slots
            )  # a private cluster's only node is gone when this process is; asking costs its cores time
        alive = await asyncio.to_thread(nodes.alive_nodes)
        self._up = set(alive)
        workers = nodes.workers_of(alive)
        found = self._described(workers, wait_s=0)
        if self._on_head:
            found |= self._unless_replaced(nodes.makeshift_of(alive), found)
        self._ask(nodes_wanted(self._suite, waiting, found.values(), self._labels))
        return found

    def reserve(self, slot: Slot) -> AbstractAsyncContextManager[PlacementGroup]:
        """Hold the slot. Raises NodeBusyError."""
        return reservation.reserve(slot)

    @asynccontextmanager
    async def attempt(
        self, job: Job, slot: Slot, place: PlacementGroup, share_s: float | None, parts: VarianceParts
    ) -> AsyncIterator[ReplicaLog]:
        """Measure one replica in processes of its own. Raises ReplicaLostError where it must start over."""
        log = ReplicaLog(job.cohort, job.replica, job.attempt, slot, machine=self._machine_of.get(slot.node_id))
        remote = ray.remote(CohortProcess).options(**reservation.in_slot(place, slot))
        cohort = remote.remote(slot, self._suite.limits, self._bench.effort.turn_calls)
        try:
            try:
                await self._measure(log, cohort, share_s, parts)
            except RayError as error:
                # If the node is gone, it is that which must be known, and whoever sees it will cancel this.
                await _wait_for_answer(slot.node_id)
                raise NodeFaultError(Failure("failed", _explained(error))) from error
            yield log
        finally:
            await self._end(cohort, slot)

    async def _measure(self, log: ReplicaLog, cohort: Any, share_s: float | None, parts: VarianceParts) -> None:
        """All of a replica but its processes' end; waiting and fetching the model cost no budget."""
        with self._bench.budget.excluded(log.slot.node_id):
            await self._lock(cohort, log.slot)
            await self._bring_model(log.slot)
        await prepare_replica(log, cohort, self._bench)
        started = time.monotonic()
        await measure_replica(log, cohort, self._bench, share_s, parts)
        self._bench.budget.took(log.cohort, time.monotonic() - started)

    def _first_look(self) -> dict[str, list[Slot]]:
        """The slots of workers; where there is none, of this process's node or the head."""
        alive = nodes.alive_nodes()
        self._up = set(alive)
        workers = nodes.workers_of(alive)
        found = self._described(workers or nodes.makeshift_of(alive), nodes.DESCRIBE_S)
        self._on_head = not workers and bool(found)
        if self._on_head and self.shared:
            message = "the cluster has no node but its head and this driver's"
            self._tell_once(message, "their own work disturbs what is measured: add a worker node")
        return found

    def _covers(self, found: Mapping[str, Sequence[Slot]]) -> bool:
        """Whether there is a slot for every device that the suite names."""
        named = {device for device in self._suite.devices if device != "auto"} if self.shared else set()
        return bool(found) and named <= {"cuda" if slot.gpu else "cpu" for each in found.values() for slot in each}

    def _unless_replaced(
        self, own: Mapping[str, Mapping[str, Any]], workers: Mapping[str, Sequence[Slot]]
    ) -> dict[str, list[Slot]]:
        """The slots of the head or of this process's node, until a worker of its class is there."""
        here = self._described(own, wait_s=0)
        if not _classes(here) <= _classes(workers):
            return here
        self._on_head = False
        self._tell_once(
            "a worker node is there", "nothing is measured on the head any more; what was begun starts over"
        )
        return {}

    def _ask(self, wanted: Mapping[Any, int]) -> None:
        """Ask the autoscaler, once every node that is up has said whether it is a help."""
        if any(time.monotonic() - since_s < nodes.DESCRIBE_S for _, since_s in self._asked.values()):
            return
        for message in self._wish.ask(wanted, self._up):
            self._tell_once(message, "no more are asked for")

    def _described(self, told: Mapping[str, Mapping[str, Any]], wait_s: float) -> dict[str, list[Slot]]:
        """The slots of nodes that Ray told of. Those not known yet are asked what they are, and may take `wait_s`."""
        admitted = {id_: node for id_, node in told.items() if may_admit(self._suite.hardware, node.get("Labels", {}))}
        for node_id in [id_ for id_ in admitted if id_ not in self._slots and id_ not in self._asked]:
            self._asked[node_id] = (nodes.ask_machine(node_id), time.monotonic())
        asked = [reference for reference, _ in self._asked.values()]
        ready = set(ray.wait(asked, num_returns=len(asked), timeout=wait_s)[0]) if asked else set()
        answered = []
        for node_id, (reference, since_s) in list(self._asked.items()):
            if node_id in admitted and reference in ready:
                del self._asked[node_id]
                answered.append((admitted[node_id], reference))
            elif node_id not in self._up:
                del self._asked[node_id]
            elif time.monotonic() - since_s > nodes.DESCRIBE_S:
                self._tell_once(f"node {node_id} does not say what it is made of", "the run goes on without it")
        self._learn(answered)
        return {node_id: mine for node_id in admitted if (mine := self._slots.get(node_id))}

    def _learn(self, answered: Sequence[tuple[Mapping[str, Any], Any]]) -> None:
        """Remember nodes' slots. Of those that answer together, the most frequent libraries are their class's."""
        known = [(told, node) for told, asked in answered if (node := self._node(told, asked))]
        common = Counter(kind_of_software(node.machine) for _, node in known)
        for told, node in sorted(known, key=lambda pair: -common[kind_of_software(pair[1].machine)]):
            self._take(told, node)

    def _node(self, told: Mapping[str, Any], asked: Any) -> Node | None:
        """What a node says of itself; one on which the farm cannot run is left out."""
        try:
            machine = nodes.tell_machine(asked)
        except RequestError as error:
            self._leave_out(told, str(error))
            return None
        if machine is None:
            self._silences[told["NodeID"]] += 1
            if self._silences[told["NodeID"]] == MOST_SILENCES:
                self._leave_out(told, "Ray cannot get an answer from it")
            return None
        return nodes.as_node(told, machine)

    def _take(self, told: Mapping[str, Any], node: Node) -> None:
        """Measure on a node, unless its libraries are not those of its class: ratios over both would mean nothing."""
        machine, labels = node.machine, dict(node.labels)
        self.machines.setdefault(machine.hardware_class, machine)
        own_label = labels.get(CLASS_LABEL)
        if label := (CLASS_LABEL, own_label) if own_label else label_of(self._suite.hardware):
            self._labels[machine.hardware_class] = label
        devices = devices_of(self._suite.devices, machine)
        own = slots_of(node, devices, self._suite.smt, self._suite.exclusive)
        self._slots[node.node_id] = admitted = [slot for slot in own if admits(self._suite.hardware, slot)]
        if not admitted:
            return
        if others := unlike(machine, self._measured_on.setdefault(machine.hardware_class, machine)):
            reason = f"its libraries are not those of its hardware class: {others}; install the same there"
            self._leave_out(told, reason)
            return
        self.machines[machine.hardware_class] = self._machine_of[node.node_id] = machine

    def _leave_out(self, told: Mapping[str, Any], reason: str) -> None:
        self._slots[told["NodeID"]] = []
        self._refusal = self._refusal or reason
        self._tell_once(f"node {told.get('NodeManagerHostname', told['NodeID'])} is left out", reason)

    def _refuse_what_cannot_come(self) -> None:
        """A class or host that nodes which are up do not have is a mistake; a label may be of nodes still to come."""
        hardware = self._suite.hardware
        may_come = self.shared and (hardware in ("any", "all") or label_of(hardware) is not None)
        if self.machines and not may_come:
            raise RequestError(nothing_fits(hardware, self.machines))
        if self._refusal and not self.machines and not self._asked:
            raise RequestError(self._refusal)

    def _tell_once(self, message: str, remedy: str) -> None:
        if message not in self._told:
            self._told.add(message)
            self._bench.listener.on(Notice(message, remedy))

    async def _lock(self, cohort: Any, slot: Slot) -> None:
        """Wait until no other farm on that machine measures on the slot's cores."""
        while not await cohort.lock_slot.remote():
            message = f"another cohort is measuring on {slot.hostname}, on cores that are needed"
            self._tell_once(message, "waiting until it is done")
            await asyncio.sleep(LOCK_POLL_S)

    async def _bring_model(self, slot: Slot) -> None:
        """Let the node have the model; one that cannot keep it is as good as none."""
        try:
            await self._cargo.bring(slot.node_id)
        except FarmError as error:
            raise NodeUnfitError(Failure("failed", str(error))) from error

    async def _end(self, cohort: Any, slot: Slot) -> None:
        """End a cohort and all its processes, politely first where its node is up."""
        try:
            if slot.node_id in self._up:
                with contextlib.suppress(RayError, TimeoutError):
                    async with asyncio.timeout(CLOSE_S):
                        await cohort.close.remote()
        finally:
            with contextlib.suppress(RayError):
                ray.kill(cohort, no_restart=True)


def _classes(found: Mapping[str, Sequence[Slot]]) -> set[str]:
    return {slot.hardware_class for slots_of_node in found.values() for slot in slots_of_node}


def _explained(error: RayError) -> str:
    """What the cohort's process raised; else what Ray says of its end: the first line, or of one that could not even
    begin the last, which says why."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        said = str(cause) if isinstance(cause, FarmError) else f"{type(cause).__name__}: {cause}"
        return f"the cohort's process could not go on: {said.splitlines()[0] if said else type(cause).__name__}"
    lines = [line.strip() for line in Text.from_ansi(str(error)).plain.splitlines() if line.strip()]
    if not lines:
        return f"the cohort's process was lost: {type(error).__name__}"
    return f"the cohort's process was lost: {lines[-1] if 'creation task' in lines[0] else lines[0]}"


async def _wait_for_answer(node_id: str) -> None:
    """Return when the node answers. One that does not is gone or going: that takes as long as Ray needs to be sure."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(NODE_DEATH_S):
            while True:
                with contextlib.suppress(RayError):  # a node short of memory kills even those who only ask
                    await nodes.ask_machine(node_id)
                    return
                await asyncio.sleep(UP_POLL_S)
