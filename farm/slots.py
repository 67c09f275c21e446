"""Nodes become slots: what a cohort has to itself, and how it is reserved through Ray."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import ray
from ray.exceptions import AuthenticationError, RayError, RayTaskError, RuntimeEnvSetupError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from farm.errors import RequestError
from farm.grounds import NodeBusyError
from farm.guardian import Guardian
from farm.hardware import classify
from farm.machine import describe_machine
from farm.reachable import require_listening
from farm.records import Device, Gpu, Machine, Slot
from farm.side_by_side import AT_ONCE
from tasks.native_output import STDERR, native_output

HOUSEKEEPING_FROM_CORES = 8
"""From 8 cores on one stays outside the slot, for the kernel, Ray and everybody else; below, it would cost too much
of the machine that is to be measured."""

_TOKEN_HELP = (
    "the cluster asks for another token, or for one at all: RAY_AUTH_MODE=token, and in RAY_AUTH_TOKEN what "
    "`ray get-auth-token` prints on the head node"
)

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

RESERVE_S = 10
"""How long a reservation may take before the node counts as held by others: Ray places a group within a second."""

DESCRIBE_S = 60
"""A node that has not said by then what it is made of is left alone: it is starting, or going."""

HEAD_RESOURCE = "node:__internal_head__"
"""What Ray itself gives the head node, and no other."""


@dataclass(frozen=True, slots=True)
class Node:
    """An alive Ray node and what it is made of. Its machine's hardware class takes the node's labels into account."""

    node_id: str
    cpus: float
    gpus: float
    machine: Machine
    labels: tuple[tuple[str, str], ...] = ()


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
    require_listening(address)
    with ExitStack() as ends:
        said: Callable[[], list[str]] = list
        guardian = ends.enter_context(closing(Guardian())) if address is None else None
        try:
            # What Ray's own code says there is nothing to users, who would read it for as long as it tries.
            with native_output(STDERR) as said:
                if guardian is None:
                    ray.init(address=address, **quiet)
                else:
                    with guardian.marking():
                        ray.init(
                            address="local",
                            include_dashboard=False,
                            object_store_memory=OBJECT_STORE_BYTES,
                            _system_config=PRIVATE_CLUSTER,
                            **quiet,
                        )
        except AuthenticationError as error:  # a token is asked for and there is none
            raise RequestError(f"--address {address or 'local'}: {_TOKEN_HELP}") from error
        except (ValueError, RuntimeError, OSError) as error:
            raise RequestError(_why_not_connected(address, error, said())) from error
        ends.callback(ray.shutdown)
        yield


def _why_not_connected(address: str | None, error: Exception, said: Sequence[str]) -> str:
    """One line on what Ray's start, or the way to a cluster, met; `said` is what Ray printed meanwhile."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    if address is None:
        home = "; let HOME name a folder that can be written: Ray keeps its token there" if ".ray" in first else ""
        return f"Ray does not start on this machine: {first}{home}"
    if any("Unauthenticated" in line for line in said):
        return f"--address {address}: {_TOKEN_HELP}"
    return f"--address {address}: no Ray cluster answers there: {first}"


def alive_nodes() -> dict[str, Mapping[str, Any]]:
    """What Ray's head says of every node that is up and has a CPU for work, by id."""
    return {node["NodeID"]: node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1}


def workers_of(alive: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Of what `alive_nodes` gives, the nodes that are neither the head nor where this process runs.

    A head plans, stores and serves a dashboard: it is measured on only where there is nothing else.
    """
    own = ray.get_runtime_context().get_node_id()
    return {
        node_id: node for node_id, node in alive.items() if HEAD_RESOURCE not in node["Resources"] and node_id != own
    }


def discover_nodes() -> tuple[list[Node], list[str]]:
    """Ask every node of the cluster that may be measured on what it is made of; the nodes, and why others are none."""
    alive = alive_nodes()
    found = workers_of(alive) or alive
    asked = {node_id: ask_machine(node_id) for node_id in found}
    nodes, left_out = [], []
    for node_id, node in found.items():
        try:
            machine = tell_machine(asked[node_id])
            if machine is None:
                raise RequestError(f"it went away, or did not answer within {DESCRIBE_S:.0f} s")
            nodes.append(as_node(node, machine))
        except RequestError as error:
            left_out.append(f"node {node.get('NodeManagerHostname', node_id)} is left out: {error}")
    return nodes, left_out


def ask_machine(node_id: str) -> Any:
    """Ask a node what it is made of: a reference to the answer."""
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(describe_machine).options(num_cpus=0, scheduling_strategy=strategy, max_retries=0).remote()


def tell_machine(asked: Any) -> Machine | None:
    """The answer, or None where the node went away or does not answer.

    Raises RequestError where the farm is not installed there, or cannot be sent there.
    """
    try:
        machine: Machine = ray.get(asked, timeout=DESCRIBE_S)
    except RuntimeEnvSetupError as error:
        reason = str(error).strip().splitlines()[-1]
        raise RequestError(f"what this job brings along cannot be set up there: {reason}") from error
    except RayTaskError as error:
        reason = str(error).strip().splitlines()[-1]
        raise RequestError(
            f"a node of the cluster cannot run the farm: {reason}. Install the same farm there, or send it along with "
            "`farm submit`"
        ) from error
    except RayError:
        return None
    return machine


def as_node(node: Mapping[str, Any], machine: Machine) -> Node:
    """What Ray says of a node, and what it says of itself."""
    labels = tuple(sorted(node.get("Labels", {}).items()))
    alike = replace(machine, hardware_class=classify(machine.hardware_class, dict(labels)))
    return Node(node["NodeID"], node["Resources"]["CPU"], node["Resources"].get("GPU", 0), alike, labels)


def devices_of(asked: Collection[str], machine: Machine) -> tuple[Device, ...]:
    """Those of a suite's devices that a machine has, `auto` being all of them."""
    here: tuple[Device, ...] = ("cpu", "cuda") if machine.gpus else ("cpu",)
    return tuple(device for device in here if device in asked or "auto" in asked)


def choose_cores(machine: Machine, smt: Literal["idle", "use"]) -> tuple[int, ...]:
    """The logical CPUs that measured work may use: one per physical core unless SMT siblings are wanted.

    From 8 physical cores on the first one keeps house, with all its siblings.
    """
    groups = list(machine.smt_siblings)
    if len(groups) >= HOUSEKEEPING_FROM_CORES:
        groups = groups[1:]
    return tuple(sorted(cpu for group in groups for cpu in (group if smt == "use" else group[:1])))


def slots_of(
    node: Node,
    devices: Sequence[Device],
    smt: Literal["idle", "use"],
    exclusive: Literal["node", "slot"] = "node",
) -> list[Slot]:
    """The slots a node offers for these devices: all its cores once, and each of its GPUs.

    With `exclusive: slot` those of a device can be used at the same time: each NUMA node's cores, and each GPU with its
    part of the cores on its side.
    """
    machine = node.machine
    cores = choose_cores(machine, smt)
    slots: list[Slot] = []
    for device in devices:
        gpus: Sequence[Gpu | None] = machine.gpu_devices[: int(node.gpus)] if device == "cuda" else (None,)
        if exclusive == "node":
            shares = [near(gpu, cores) if gpu else cores for gpu in gpus]
        elif device == "cuda":
            shares = shares_of_gpus(machine.gpu_devices[: len(gpus)], cores)
        else:
            shares = [own for each in machine.numa_nodes if (own := tuple(sorted(set(cores) & set(each))))] or [cores]
            gpus = (None,) * len(shares)
        packed = exclusive == "slot"
        parts = len(shares) if packed else 1
        for number, (gpu, share) in enumerate(zip(gpus, shares, strict=True)):
            slot = Slot(
                slot=f"{machine.hostname}-{device}{number}",
                node_id=node.node_id,
                hostname=machine.hostname,
                hardware_class=machine.hardware_class,
                cores=share,
                ray_cpus=max(1.0, node.cpus // parts) if packed else node.cpus,
                memory_bytes=machine.memory_bytes // parts,
                packed=packed,
                labels=node.labels,
            )
            slots.append(_with_gpu(slot, gpu, number, node.gpus) if gpu else slot)
    return slots


def _with_gpu(slot: Slot, gpu: Gpu, number: int, node_gpus: float) -> Slot:
    """A slot of its own takes the one GPU that Ray gives it; otherwise all of the node's, for they share its cores."""
    return replace(
        slot,
        gpu=gpu.name,
        gpu_index=0 if slot.packed else number,
        gpu_uuid=None if slot.packed else gpu.uuid,
        gpu_memory_bytes=gpu.memory_bytes or None,
        ray_gpus=1.0 if slot.packed else node_gpus,
    )


def near(gpu: Gpu, cores: Sequence[int]) -> tuple[int, ...]:
    """Those of the cores that stand on the GPU's side of the machine; all where the driver does not tell, or none do.

    Launches and copies from the other side pass through the link between the sockets.
    """
    return tuple(core for core in cores if core in gpu.near_cpus) or tuple(cores)


def shares_of_gpus(gpus: Sequence[Gpu], cores: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The cores of GPUs that are used at the same time: those on one side of the machine share that side's.

    Where sides overlap, as they do if the driver tells some and not others, each gets its part of all, in order.
    """
    sides = [near(gpu, cores) for gpu in gpus]
    if sum(map(len, set(sides))) > len({core for side in sides for core in side}):
        return _parts(cores, len(gpus))
    mates = [[other for other, its in enumerate(sides) if its == side] for side in sides]
    return [_parts(side, len(mates[n]))[mates[n].index(n)] for n, side in enumerate(sides)]


def _parts(cores: tuple[int, ...], count: int) -> list[tuple[int, ...]]:
    """The cores in so many parts of almost equal size; where there are fewer, neighbours share one."""
    if len(cores) < count:
        return [(cores[number * len(cores) // count],) for number in range(count)]
    return [cores[number * len(cores) // count : (number + 1) * len(cores) // count] for number in range(count)]


@asynccontextmanager
async def reserve(slot: Slot) -> AsyncIterator[PlacementGroup]:
    """Hold the slot through a placement group, so that nobody else's Ray work runs there.

    The group is bound to the node by its id: otherwise Ray would move it elsewhere when the node dies.
    Raises NodeBusyError if the slot's CPUs are not free within some seconds.
    """
    # Which of the GPUs the cells see is the slot's to say, not Ray's.
    bundle = {"CPU": slot.ray_cpus} | ({"GPU": slot.ray_gpus} if slot.gpu else {})
    group = placement_group([bundle], strategy="STRICT_PACK", bundle_label_selector=[{"ray.io/node-id": slot.node_id}])
    try:
        try:
            await asyncio.wait_for(_as_future(group.ready()), RESERVE_S)
        except TimeoutError:
            raise NodeBusyError(f"other Ray work holds the CPUs of node {slot.hostname}") from None
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
        "num_gpus": slot.ray_gpus if slot.gpu else 0,
        "scheduling_strategy": strategy,
        "max_restarts": 0,
        "max_concurrency": 1 + AT_ONCE["cuda" if slot.gpu else "cpu"],
    }


async def _as_future(reference: Any) -> Any:
    return await reference
