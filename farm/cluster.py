"""A Ray cluster as the crew sees it: which slots are up, holding one, and one try at a replica in it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from farm import slots
from farm.cargo import Cargo
from farm.cohort import CohortProcess
from farm.errors import FarmError, RequestError
from farm.events import Notice
from farm.hardware import admits, label_of, nothing_fits
from farm.records import Failure, Machine, Slot
from farm.replica import Bench, ReplicaLostError, measure_replica, prepare_replica
from farm.rows import ReplicaLog
from farm.schedule import Job
from farm.suite import Suite
from farm.variance import VarianceParts

LOCK_POLL_S = 2.0
"""How often cores that another farm holds are tried again."""

CLOSE_S = 15.0
"""How long a cohort may take to end its processes before it is killed with them."""

UP_POLL_S = 1.0
"""How often the cluster is asked for nodes while there is none to begin with."""


NODE_DEATH_S = 60.0
"""Ray takes up to half a minute to be sure that a node is gone."""


class RayCluster:
    """The nodes of the connected cluster that the suite admits; `machines` describes each hardware class met so far.

    The head and the node of this process take part only where there is nothing else; in a `shared` cluster, which is
    not this run's own, that is worth a warning.
    """

    def __init__(self, bench: Bench, shared: bool) -> None:
        self._bench = bench
        self._suite = bench.suite
        self._shared = shared
        self._on_head = False
        self._slots: dict[str, list[Slot]] = {}
        self._asked: dict[str, Any] = {}
        self._up: set[str] = set()
        self._told: set[str] = set()
        self._wish = NodeWish(bench.suite)
        self._cargo = Cargo(bench.model.folder)
        self.machines: dict[str, Machine] = {}

    def first_slots(self) -> list[Slot]:
        """The slots to plan for; where no node that fits is up yet, the cluster is asked for some and waited for.

        Raises RequestError where none comes, or where `hardware` names what nodes that are up are not.
        """
        started, limit_s = time.monotonic(), self._suite.limits.node_s
        waiting = False
        while not (found := self._first_look()):
            self._refuse_unknown_name()
            if time.monotonic() - started > limit_s:
                raise RequestError(f"{self._wish.words()}, nor came within {limit_s:.0f} s; start one")
            self._wish.ask(self._suite.nodes)
            if not waiting:
                waiting = True
                remedy = f"the cluster was asked for one; waiting up to {limit_s:.0f} s"
                self._bench.listener.on(Notice(f"{self._wish.words()} yet", remedy))
            time.sleep(UP_POLL_S)
        if waiting:
            self._bench.budget.wait_for_nodes(time.monotonic() - started)
        return [slot for each in found.values() for slot in each]

    async def slots(self) -> Mapping[str, Sequence[Slot]]:
        """The slots of every node that is up now and that the suite admits, by the node's id."""
        if not self._shared:
            return (
                self._slots
            )  # a private cluster's only node is gone when this process is; asking costs its cores time
        alive = await asyncio.to_thread(slots.alive_nodes)
        self._up = set(alive)
        found = self._described(alive if self._on_head else slots.workers_of(alive), wait_s=0)
        self._wish.ask(self._suite.nodes - len(found))
        return found

    def reserve(self, slot: Slot) -> AbstractAsyncContextManager[PlacementGroup]:
        """Hold the slot. Raises NodeBusyError."""
        return slots.reserve(slot)

    async def attempt(
        self, job: Job, slot: Slot, place: PlacementGroup, share_s: float | None, parts: VarianceParts
    ) -> ReplicaLog:
        """Measure one replica in processes of its own. Raises ReplicaLostError where it must start over."""
        log = ReplicaLog(job.cohort, job.replica, job.attempt, slot)
        remote = ray.remote(CohortProcess).options(**slots.in_slot(place, slot))
        cohort = remote.remote(slot, self._suite.limits, self._bench.effort.turn_calls)
        try:
            await self._lock(cohort, slot)
            await self._bring_model(slot)
            await prepare_replica(log, cohort, self._bench)
            started = time.monotonic()
            await measure_replica(log, cohort, self._bench, share_s, parts)
            self._bench.budget.took(job.cohort, time.monotonic() - started)
            return log
        except RayError as error:
            # If the node is gone, it is that which must be known, and whoever sees it will cancel this.
            await _wait_for_answer(slot.node_id)
            raise ReplicaLostError(
                Failure("failed", f"the cohort's process was lost: {_first_words(error)}")
            ) from error
        finally:
            await self._end(cohort, slot)

    def _first_look(self) -> dict[str, list[Slot]]:
        """The slots of workers; without any, of whatever there is."""
        alive = slots.alive_nodes()
        self._up = set(alive)
        found = self._described(slots.workers_of(alive), slots.DESCRIBE_S)
        if not found:
            found = self._described(alive, slots.DESCRIBE_S)
            self._on_head = bool(found)
            if found and self._shared:
                message = "the cluster has no node but its head and this driver's"
                self._bench.listener.on(Notice(message, "their own work disturbs what is measured: add a worker node"))
        return found

    def _described(self, nodes: Mapping[str, Mapping[str, Any]], wait_s: float) -> dict[str, list[Slot]]:
        """The slots of these nodes. Those not known yet are asked what they are; their answers may take `wait_s`."""
        for node_id in nodes.keys() - self._slots.keys() - self._asked.keys():
            self._asked[node_id] = slots.ask_machine(node_id)
        for node_id, asked in list(self._asked.items()):
            ready, _ = ray.wait([asked], timeout=wait_s)
            if ready or node_id not in nodes:
                del self._asked[node_id]
                if ready and node_id in nodes:
                    self._learn(nodes[node_id], asked, may_fail=wait_s == 0)
        return {node_id: mine for node_id in nodes if (mine := self._slots.get(node_id))}

    def _learn(self, told: Mapping[str, Any], asked: Any, may_fail: bool) -> None:
        """Remember a node's slots; a late one on which the farm is not installed is none of the run's business."""
        try:
            machine = slots.tell_machine(asked)
        except RequestError as error:
            if not may_fail:
                raise
            self._slots[told["NodeID"]] = []
            self._bench.listener.on(Notice("a node that joined is left out", str(error)))
            return
        if machine is None:
            return
        node = slots.as_node(told, machine)
        self.machines[node.machine.hardware_class] = node.machine
        devices = slots.devices_of(self._suite.devices, node.machine)
        own = slots.slots_of(node, devices, self._suite.smt, self._suite.exclusive)
        self._slots[node.node_id] = [slot for slot in own if admits(self._suite.hardware, slot)]

    def _refuse_unknown_name(self) -> None:
        """A class or host that nodes which are up do not have is a mistake; a label may be of nodes still to come."""
        hardware = self._suite.hardware
        may_come = self._shared and (hardware in ("any", "all") or label_of(hardware) is not None)
        if self.machines and not may_come:
            raise RequestError(nothing_fits(hardware, self.machines))

    async def _lock(self, cohort: Any, slot: Slot) -> None:
        """Wait until no other farm on that machine measures on the slot's cores."""
        while not await cohort.lock_slot.remote():
            if slot.hostname not in self._told:
                self._told.add(slot.hostname)
                message = f"another cohort is measuring on {slot.hostname}, on cores that are needed"
                self._bench.listener.on(Notice(message, "waiting until it is done"))
            await asyncio.sleep(LOCK_POLL_S)

    async def _bring_model(self, slot: Slot) -> None:
        """Let the node have the model; one that cannot keep it is as good as none."""
        try:
            await self._cargo.bring(slot.node_id)
        except FarmError as error:
            raise ReplicaLostError(Failure("failed", str(error))) from error

    async def _end(self, cohort: Any, slot: Slot) -> None:
        """End a cohort and all its processes, politely first where its node is up."""
        if slot.node_id in self._up:
            with contextlib.suppress(RayError, TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await cohort.close.remote()
        with contextlib.suppress(RayError):
            ray.kill(cohort, no_restart=True)


def _first_words(error: RayError) -> str:
    """Ray's first line; of an actor that could not even begin, the last one, which says why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if "creation task" in lines[0] else lines[0]


async def _wait_for_answer(node_id: str) -> None:
    """Return when the node answers. One that does not is gone or going: that takes as long as Ray needs to be sure."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(NODE_DEATH_S):
            while True:
                with contextlib.suppress(RayError):  # a node short of memory kills even those who only ask
                    await slots.ask_machine(node_id)
                    return
                await asyncio.sleep(UP_POLL_S)


class NodeWish:
    """Asks the cluster's autoscaler for nodes that a suite can use, by a placement group that waits for them.

    A group, because it ends with this process and adds to what others ask for; `request_resources` would replace it.
    """

    def __init__(self, suite: Suite) -> None:
        self._label = label_of(suite.hardware)
        self._bundle = {"CPU": 1} | ({"GPU": 1} if set(suite.devices) == {"cuda"} else {})
        self._group: PlacementGroup | None = None

    def words(self) -> str:
        """What is missing."""
        kind = "GPU" if "GPU" in self._bundle else "CPU"
        label = f" and the label {'='.join(self._label)}" if self._label else ""
        return f"no node with a {kind}{label} is up"

    def ask(self, missing: int) -> None:
        """Ask for so many nodes more than there are; what was asked for is taken back when it is there."""
        if self._group is not None and (missing <= 0 or _is_placed(self._group)):
            remove_placement_group(self._group)
            self._group = None
        if missing > 0 and self._group is None:
            selector = {"bundle_label_selector": [dict([self._label])] * missing} if self._label else {}
            self._group = placement_group([self._bundle] * missing, strategy="STRICT_SPREAD", **selector)


def _is_placed(group: PlacementGroup) -> bool:
    return bool(placement_group_table(group).get("state") == "CREATED")
