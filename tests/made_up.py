"""A made-up model, machine, slot and plan, for tests of planning and scheduling that need no hardware."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from farm.errors import MethodUnsupportedError
from farm.plan import Plan, Support, make_plan
from farm.records import Device, Machine, ModelInfo, Slot
from farm.suite import Suite, parse_suite

GIB = 1024**3

MODEL = ModelInfo("made-up", "a" * 64, "/nowhere", "distilbert", 512, ("input_ids",), ("no", "yes"), 268_000_000)

MACHINE = Machine(
    hostname="here",
    system="Linux",
    cpu_model="Made Up",
    sockets=1,
    physical_cores=4,
    logical_cpus=4,
    usable_cpus=(0, 1, 2, 3),
    smt_siblings=((0,), (1,), (2,), (3,)),
    memory_bytes=64 * GIB,
    instruction_sets=(),
    gpus=(),
    hardware_class="plain",
)

SLOT = Slot("here-cpu0", "node", "here", "plain", (0, 1, 2, 3), 4.0, 64 * GIB)
GPU_SLOT = replace(SLOT, slot="here-cuda0", gpu="Made Up GPU")

METHODS = ("control-null", "control-work", "control-wrong")


def suite_of(**keys: Any) -> Suite:
    """A suite of control methods at two lengths, with some keys set."""
    return parse_suite({"methods": list(METHODS), "lengths": [64, 128], **keys})


def supports_all(method_id: str, machine: Machine, device: Device) -> None:
    """Whatever is asked for runs."""
    del method_id, machine, device


def supports_all_but(*missing: str) -> Support:
    """These methods lack something, all others run."""

    def check(method_id: str, machine: Machine, device: Device) -> None:
        del machine, device
        if method_id in missing:
            raise MethodUnsupportedError(f"{method_id} needs what is not here")

    return check


def plan_of(
    suite: Suite | None = None,
    slots: tuple[Slot, ...] = (SLOT,),
    model: ModelInfo = MODEL,
    supported: Support = supports_all,
    machines: Mapping[str, Machine] | None = None,
) -> Plan:
    """The plan of a suite (two lengths of three methods unless given) on made-up slots."""
    known = machines or {slot.hardware_class: replace(MACHINE, hardware_class=slot.hardware_class) for slot in slots}
    return make_plan(suite or suite_of(), model, slots, known, supported)
