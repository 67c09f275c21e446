"""Nodes become slots: what a cohort has to itself. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from farm.records import Device, Gpu, Machine, Slot

if TYPE_CHECKING:
    from farm.nodes import Node

HOUSEKEEPING_FROM_CORES = 8
"""From 8 cores on one stays outside the slot, for the kernel, Ray and everybody else; below, it would cost too much
of the machine that is to be measured."""


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
