"""A hundred thousand cells over a thousand simulated nodes: what planning and scheduling cost, and how good they are.

Plan, schedule, crew and budget are the farm's own; Ray and the store are replaced by memory, time is virtual. Nodes of
four hardware classes; one in twenty fails while the run goes on and another joins in its place; one in two hundred
tries fails by itself. Every cell must be published exactly once.
"""

from __future__ import annotations

import random
import resource
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

sys.path.append(str(Path(__file__).parents[1]))

from made_up import MACHINE, MODEL, SLOT, suite_of, supports_all
from provenance import print_figures, where_and_when
from simulated_cluster import SimulatedNode, Simulation, lower_bound_s, simulated_nodes

from farm.plan import make_plan
from farm.records import Cohort
from farm.schedule import Job, Schedule
from farm.stopping import weight

CLASSES = 4
CELLS_PER_COHORT = 10
CELLS_PER_NODE = 100
FAILING_NODES = 0.05
FAILING_TRIES = 0.005
MEAN_REPLICA_S = 60.0
NOISE = 0.1
"""Replicas of equal cohorts take times that differ by up to a tenth either way."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run of so many cells cost, in seconds of CPU time and bytes, and how long its schedule is."""

    cells: int
    nodes: int
    plan_s: float
    schedule_s: float
    peak_bytes: int
    attempts: int
    above_bound: float

    @property
    def cells_per_s(self) -> float:
        """Cells planned and scheduled in a second of CPU time."""
        return self.cells / (self.plan_s + self.schedule_s)


def planned(cells: int) -> list[Cohort]:
    """Cohorts of four hardware classes with about so many cells in all."""
    shapes = max(1, cells // (CLASSES * CELLS_PER_COHORT))
    batches = max(1, shapes // 50)
    methods = [{"method": "control-null", "name": f"m{number}"} for number in range(CELLS_PER_COHORT - 1)]
    suite = suite_of(
        methods=methods,
        lengths=[10 * (number + 1) for number in range(min(50, shapes))],
        batch_sizes=list(range(1, batches + 1)),
        hardware="all",
    )
    slots = [replace(SLOT, hardware_class=f"class-{number}") for number in range(CLASSES)]
    machines = {slot.hardware_class: replace(MACHINE, hardware_class=slot.hardware_class) for slot in slots}
    return list(make_plan(suite, MODEL, slots, machines, supports_all).cohorts)


def cluster(count: int, chance: random.Random, failing: float, length_s: float) -> dict[str, SimulatedNode]:
    """So many nodes of four classes, some of which fail at some time and are replaced later."""
    nodes: dict[str, SimulatedNode] = {}
    for number in range(CLASSES):
        nodes |= simulated_nodes(max(1, count // CLASSES), replace(SLOT, hardware_class=f"class-{number}"))
    for node_id in chance.sample(sorted(nodes), int(failing * len(nodes))):
        nodes[node_id].fails_s = chance.uniform(0.0, length_s)
        slot = replace(nodes[node_id].slots[0], node_id=f"{node_id}-again")
        nodes[slot.node_id] = SimulatedNode([slot], joins_s=nodes[node_id].fails_s + 30.0)
    return nodes


def measure(cells: int, nodes: int, *, failures: bool = True, seed: int = 1) -> Cost:
    """Plan and run one simulation; raises AssertionError where a cell was not published exactly once."""
    chance = random.Random(seed)
    started = time.process_time()
    cohorts = planned(cells)
    plan_s = time.process_time() - started
    weights = [weight(cohort) for cohort in cohorts]
    usual = [MEAN_REPLICA_S * each * len(weights) / sum(weights) for each in weights]
    length_s = lower_bound_s(usual, nodes)
    took = {
        cohort.cohort: seconds * chance.uniform(1 - NOISE, 1 + NOISE)
        for cohort, seconds in zip(cohorts, usual, strict=True)
    }
    up = cluster(nodes, chance, FAILING_NODES if failures else 0.0, length_s)

    def seconds_of(job: Job) -> float:
        return took[job.cohort.cohort]

    started = time.process_time()
    run = Simulation(Schedule(cohorts, 1), up, seconds_of, FAILING_TRIES if failures else 0.0).run()
    schedule_s = time.process_time() - started
    published = run.ledger.published
    assert set(published) == {(cohort.cohort, 0) for cohort in cohorts} and set(published.values()) == {1}
    planned_cells = sum(len(cohort.cells) for cohort in cohorts)
    by_class: dict[str, list[float]] = {}
    for cohort in cohorts:
        by_class.setdefault(cohort.hardware_class, []).append(took[cohort.cohort])
    bound_s = max(lower_bound_s(seconds, max(1, nodes // CLASSES)) for seconds in by_class.values())
    return Cost(
        planned_cells, len(up), plan_s, schedule_s, _peak_bytes(), run.grounds.attempts, run.took_s / bound_s - 1
    )


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def costs(cells: int) -> list[list[str]]:
    """The rows of the table of costs."""
    rows = []
    for size in (cells // 100, cells // 10, cells):
        cost = measure(size, max(CLASSES, size // CELLS_PER_NODE))
        times = [f"{cost.plan_s:.2f}", f"{cost.schedule_s:.2f}", f"{1e6 / cost.cells_per_s:.0f}"]
        counts = [
            str(cost.nodes),
            str(cost.attempts),
            *times,
            f"{cost.cells_per_s:.0f}",
            f"{cost.peak_bytes / 1e6:.0f}",
        ]
        rows.append([str(cost.cells), *counts])
    return rows


def lengths(cells: int) -> list[list[str]]:
    """The rows of the table of schedules' lengths: nothing fails, so that the bound is one."""
    sizes = [(size, nodes) for size in (cells // 100, cells // 10) for nodes in (4, 16, 64)]
    sizes.append((cells, max(CLASSES, cells // CELLS_PER_NODE)))
    found = [measure(size, nodes, failures=False) for size, nodes in sizes]
    return [[str(cost.cells), str(cost.nodes), f"{cost.above_bound:+.1%}"] for cost in found]


def main(
    cells: Annotated[int, typer.Option(help="The most cells; a tenth and a hundredth are measured, too.")] = 100_000,
) -> None:
    """Print what planning and scheduling cost for three sizes, and how long the schedules are."""
    columns = ["cells", "nodes", "tries", "plan s", "run s", "us a cell", "cells/s", "process's peak MB"]
    print_figures("Planning and scheduling, nodes and tries failing: CPU time", columns, costs(cells))
    print_figures("Schedules", ["cells", "nodes", "longer than the lower bound by"], lengths(cells))
    print(f"\n{where_and_when()}")


if __name__ == "__main__":
    typer.run(main)
