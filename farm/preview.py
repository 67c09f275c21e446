"""What a suite would measure: the matrix, the slots, the time. Runs nothing and trains nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from farm import connecting
from farm.bench import check_calibration
from farm.errors import RequestError
from farm.events import Silent, StepReporter
from farm.machine import describe_machine
from farm.node_wish import usual_kind
from farm.nodes import Node, discover_nodes
from farm.plan import Plan, make_plan, resolve_devices
from farm.records import ModelInfo, Slot
from farm.slots import devices_of, slots_of
from farm.stopping import EFFORTS
from farm.suite import Suite
from tasks.demo import demo_folder
from tasks.models import resolve_model

LOCAL_NODE = "this machine"

DEMO_NOT_BUILT = ModelInfo(
    name="demo",
    sha256="not built yet",
    folder="",
    family="distilbert",
    max_length=512,
    input_names=("input_ids", "attention_mask"),
    labels=("negative", "positive"),
    weight_bytes=267_830_000,
)
"""What is known of the demo before its first use, so that a plan can be shown without training it."""


@dataclass(frozen=True, slots=True)
class Preview:
    """A plan as text: a heading, a table of cohorts and cells, and what else to know."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    footer: tuple[str, ...]


def preview(suite: Suite, address: str | None) -> Preview:
    """Plan the suite on this machine, or on the cluster at `address`. Raises RequestError as a run would."""
    nodes, left_out = _nodes(address)
    there = [*map(_node_line, nodes), *left_out] if address else []
    if address and not nodes:
        wish = f"no {usual_kind(suite)} is up to plan for; a run would ask the cluster for {suite.nodes}"
        raise RequestError("\n".join([f"{wish} and wait up to {suite.limits.node_s:.0f} s", *there]))
    try:
        return _preview(suite, nodes, there)
    except RequestError as error:
        raise RequestError("\n".join([str(error), *there])) from error


def _preview(suite: Suite, nodes: Sequence[Node], there: Sequence[str]) -> Preview:
    resolve_devices(suite, [node.machine for node in nodes])
    found = [
        slot
        for node in nodes
        for slot in slots_of(node, devices_of(suite.devices, node.machine), suite.smt, suite.exclusive)
    ]
    model, machines = _model(suite), {node.machine.hardware_class: node.machine for node in nodes}
    plan = make_plan(suite, model, found, machines)
    check_calibration(suite, model, list(machines.values()), Silent())
    return Preview(
        _heading(plan, found),
        ("cohort", "length", "batch", "device", "threads", "cells"),
        _rows(plan),
        (*_footer(plan), *there),
    )


def _nodes(address: str | None) -> tuple[list[Node], list[str]]:
    """The nodes, and why others are left out. Without an address no Ray is started: this machine describes itself."""
    if address is not None:
        with connecting.connected(address):
            return discover_nodes()
    machine = describe_machine()
    return [Node(LOCAL_NODE, len(machine.usable_cpus), len(machine.gpus), machine)], []


def _node_line(node: Node) -> str:
    """By what a suite's `hardware` can name the node."""
    labels = ", ".join(f"{key}={value}" for key, value in node.labels)
    return f"node {node.machine.hostname}: class {node.machine.hardware_class}; labels {labels or 'none'}"


def _model(suite: Suite) -> ModelInfo:
    if suite.model == "demo" and not demo_folder().is_dir():
        return DEMO_NOT_BUILT
    return resolve_model(suite.model, StepReporter(Silent()))


def _heading(plan: Plan, found: list[Slot]) -> str:
    cells = sum(len(cohort.cells) for cohort in plan.cohorts)
    where = ", ".join(
        sorted({f"{slot.slot} ({len(slot.cores)} cores{', ' + slot.gpu if slot.gpu else ''})" for slot in found})
    )
    return f"{plan.suite.name}: {len(plan.cohorts)} cohorts, {cells} cells of model {plan.model.name}, on {where}"


def _rows(plan: Plan) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            cohort.cohort,
            str(cohort.workload.length),
            str(cohort.workload.batch_size),
            cohort.workload.device,
            str(cohort.workload.threads),
            ", ".join(f"({cell.name})" if cell.unsupported else cell.name for cell in cohort.cells),
        )
        for cohort in plan.cohorts
    )


def _footer(plan: Plan) -> tuple[str, ...]:
    effort = EFFORTS[plan.suite.effort]
    budget_s = plan.suite.budget_s or effort.budget_s
    time = "as long as it needs" if budget_s is None else f"at most {budget_s / 60:.1f} minutes of measuring"
    few, most = effort.replicas, effort.most_replicas
    replicas = "1 replica" if most == 1 else f"{few} replicas" if few == most else f"{few} to {most} replicas"
    lines = [f"effort {plan.suite.effort}: {replicas} of each cohort, {time}; preparing comes before and is cached"]
    if plan.suite.order == "blocked":
        lines.append("order blocked: all turns of one cell, then of the next, to see what interleaving saves")
    if plan.model is DEMO_NOT_BUILT:
        lines.append("the demo model is not built yet: the first run makes it, within three minutes on two cores")
    lines += [f"{device} is left out: {reason}" for device, reason in plan.left_out.items()]
    lines += [f"unsupported here: {name}: {reason}" for name, reason in plan.unsupported.items()]
    return tuple(lines)
