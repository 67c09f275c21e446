"""Nodes become slots: what a cohort has to itself, and how it is reserved through Ray."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from farm.errors import RequestError
from farm.guardian import Guardian
from farm.machine import describe_machine
from farm.records import Device, Gpu, Machine, Slot
from farm.side_by_side import AT_ONCE

HOUSEKEEPING_FROM_CORES = 8
"""From 8 cores on one stays outside the slot, for the kernel, Ray and everybody else; below, it would cost too much
of the machine that is to be measured."""

OBJECT_STORE_BYTES = 200_000_000
"""For a private cluster: only token arrays and logits pass through it, and shared memory is memory."""

PRIVATE_CLUSTER = {
    # Ray runs workers at niceness 15, so that whatever else is awake on the machine would go before a timed call.
    "worker_niceness": 0,
    # Each of these wakes up several times a second to report what nobody reads here.
    "enable_metrics_collection": False,
    "task_events_report_interval_ms": 0,
    # Workers that nobody asked for would start beside the first cells.
    "prestart_worker_first_driver": False,
}

RESERVE_S = 60
"""How long a reservation may take before the user is told who might hold the node."""


@dataclass(frozen=True, slots=True)
class Node:
    """An alive Ray node and what it is made of."""

    node_id: str
    cpus: float
    gpus: float
    machine: Machine


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to the cluster at `address`, or start a private one on this machine that ends with this block.

    The private one ends with this process too, however that ends.
    Raises RequestError where no cluster answers.
    """
    # Read by Ray at start: what it would print or report about itself does not belong on a benchmark's screen.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    with ExitStack() as ends:
        try:
            if address is None:
                guardian = ends.enter_context(closing(Guardian()))
                with guardian.marking():
                    ray.init(
                        address="local",
                        include_dashboard=False,
                        object_store_memory=OBJECT_STORE_BYTES,
                        _system_config=PRIVATE_CLUSTER,
                        **quiet,
                    )
            else:
                ray.init(address=address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            token = " (one that asks for a token answers with RAY_AUTH_MODE=token and its own in RAY_AUTH_TOKEN)"
            raise RequestError(
                f"--address {address or 'local'}: no Ray cluster answers there: {reason}{token if address else ''}"
            ) from error
        ends.callback(ray.shutdown)
        yield


def discover_nodes() -> list[Node]:
    """Ask every alive node of the cluster what it is made of."""
    alive = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    asked = [
        ray.remote(describe_machine)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote()
        for node in alive
    ]
    machines = ray.get(asked)
    return [
        Node(node["NodeID"], node["Resources"]["CPU"], node["Resources"].get("GPU", 0), machine)
        for node, machine in zip(alive, machines, strict=True)
    ]


def choose_cores(machine: Machine, smt: Literal["idle", "use"]) -> tuple[int, ...]:
    """The logical CPUs that measured work may use: one per physical core unless SMT siblings are wanted.

    From 8 physical cores on the first one keeps house, with all its siblings.
    """
    groups = list(machine.smt_siblings)
    if len(groups) >= HOUSEKEEPING_FROM_CORES:
        groups = groups[1:]
    return tuple(sorted(cpu for group in groups for cpu in (group if smt == "use" else group[:1])))


def slots_of(node: Node, devices: Sequence[Device], smt: Literal["idle", "use"]) -> list[Slot]:
    """The slots a node offers for these devices: all its cores once, and each of its GPUs."""
    machine = node.machine
    cores = choose_cores(machine, smt)
    slots = []
    for device in devices:
        gpus: Sequence[Gpu | None] = machine.gpu_devices[: int(node.gpus)] if device == "cuda" else (None,)
        for number, gpu in enumerate(gpus):
            slots.append(
                Slot(
                    slot=f"{machine.hostname}-{device}{number}",
                    node_id=node.node_id,
                    hostname=machine.hostname,
                    hardware_class=machine.hardware_class,
                    cores=near(gpu, cores) if gpu else cores,
                    node_cpus=node.cpus,
                    memory_bytes=machine.memory_bytes,
                    gpu=gpu.name if gpu else None,
                    gpu_index=number,
                    gpu_uuid=gpu.uuid if gpu else None,
                    gpu_memory_bytes=gpu.memory_bytes or None if gpu else None,
                    node_gpus=node.gpus,
                )
            )
    return slots


def near(gpu: Gpu, cores: Sequence[int]) -> tuple[int, ...]:
    """Those of the cores that stand on the GPU's side of the machine; all where the driver does not tell, or none do.

    Launches and copies from the other side pass through the link between the sockets.
    """
    return tuple(core for core in cores if core in gpu.near_cpus) or tuple(cores)


@asynccontextmanager
async def reserve(slot: Slot) -> AsyncIterator[PlacementGroup]:
    """Hold the slot's node through a placement group, so that nobody else's Ray work runs there.

    The group is bound to the node by its id: otherwise Ray would move it elsewhere when the node dies.
    Raises RequestError if the node is not free within a minute.
    """
    # All of the node's GPUs, for they share its cores: which of them the cells see is the slot's to say, not Ray's.
    bundle = {"CPU": slot.node_cpus} | ({"GPU": slot.node_gpus} if slot.gpu else {})
    group = placement_group([bundle], strategy="STRICT_PACK", bundle_label_selector=[{"ray.io/node-id": slot.node_id}])
    try:
        try:
            await asyncio.wait_for(_as_future(group.ready()), RESERVE_S)
        except TimeoutError:
            raise RequestError(
                f"node {slot.hostname} was not free within {RESERVE_S} s: other Ray work holds its CPUs. "
                "Wait for it to end, or name another cluster with --address"
            ) from None
        yield group
    finally:
        remove_placement_group(group)


def in_slot(group: PlacementGroup, slot: Slot) -> dict[str, Any]:
    """Options of an actor that lives in a reserved slot and costs no CPU of it.

    A second call is served while one runs, so that a round can be cut short.
    """
    strategy = PlacementGroupSchedulingStrategy(group, 0)
    return {
        "num_cpus": 0,
        "num_gpus": slot.node_gpus if slot.gpu else 0,
        "scheduling_strategy": strategy,
        "max_restarts": 0,
        "max_concurrency": 1 + AT_ONCE["cuda" if slot.gpu else "cpu"],
    }


async def _as_future(reference: Any) -> Any:
    return await reference
