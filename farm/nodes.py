"""The nodes of the connected Ray cluster: which are up, and what each is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from farm.errors import RequestError
from farm.hardware import classify
from farm.machine import describe_machine
from farm.records import Machine

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


def makeshift_of(alive: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """What is measured on while there are no workers: this process's node, or the head where that is the only one."""
    workers = workers_of(alive)
    rest = {node_id: node for node_id, node in alive.items() if node_id not in workers}
    return {node_id: node for node_id, node in rest.items() if HEAD_RESOURCE not in node["Resources"]} or rest


def discover_nodes() -> tuple[list[Node], list[str]]:
    """Ask every node of the cluster that may be measured on what it is made of; the nodes, and why others are none."""
    alive = alive_nodes()
    found = workers_of(alive) or makeshift_of(alive)
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
