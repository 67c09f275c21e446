"""What one driver costs on real Ray: its CPU time for a cohort replica and for a round, with 1 to 8 raylets.

All raylets are on this machine, each with locks of its own, so that they do measure at the same time. They share its
cores, so what the cells measure means nothing: they are null cells, and it is the driver that is looked at.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

sys.path.append(str(Path(__file__).parents[1]))

from provenance import print_figures, where_and_when
from ray_nodes import RayNodes, ray_nodes

METHODS = ("control-null", {"method": "control-null", "name": "again"})
SHORT_S, LONG_S = 1.0, 40.0
"""Budgets for a replica on one raylet: the least number of rounds, and as many as quick effort takes."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run cost its driver, from the first replica's beginning to the end."""

    raylets: int
    replicas: int
    rounds: int
    cpu_s: float
    wall_s: float

    @property
    def replica_ms(self) -> float:
        """CPU time for a replica, the rounds included."""
        return 1e3 * self.cpu_s / self.replicas


def measure(nodes: RayNodes, raylets: int, replicas: int, budget_s: float) -> Cost:
    """Run so many replicas over the raylets that there are, and read from the log what the driver used."""
    suite = nodes.place.suite(
        methods=list(METHODS),
        lengths=[4 + number for number in range(replicas)],
        hardware="any",
        exclusive="slot",
        budget_s=budget_s,
        accuracy=None,
    )
    code, said = nodes.run(str(suite), "--fresh", "--quiet", timeout_s=500)
    if code:
        raise RuntimeError(said)
    path = max(nodes.place.results.glob("logs/*/*.jsonl"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    began = next(line for line in lines if line["event"] == "run-began")
    ended = [line for line in lines if line["event"] == "published"][-1]
    rows = pd.read_parquet(nodes.place.results / "measurements" / path.parent.name)
    rounds = sum(len(set(row)) for row in rows[rows["role"] == "baseline"]["round"])
    cpu_s, wall_s = (ended[key] - began[key] for key in ("driver_cpu_s", "unix_ns"))
    return Cost(raylets, replicas, rounds, cpu_s, wall_s / 1e9)


def by_raylets(most: int, replicas: int) -> list[Cost]:
    """The same for 1, 2, 4, ... raylets, so many replicas on each."""
    found = []
    with ray_nodes() as nodes:
        while (count := (len(found) and 2 * found[-1].raylets) or 1) <= most:
            while len(nodes.taken) < count:
                own = nodes.place.root / f"tmp{len(nodes.taken)}"
                own.mkdir()
                nodes.join(env={"TMPDIR": str(own)}, hardware="same")
            found.append(measure(nodes, count, replicas * count, SHORT_S))
    return found


def round_ms() -> float:
    """CPU time for a round: what a replica with many costs more than one with few."""
    with ray_nodes() as nodes:
        nodes.join()
        few, many = (measure(nodes, 1, 2, budget_s) for budget_s in (SHORT_S, LONG_S))
    return 1e3 * (many.cpu_s - few.cpu_s) / (many.rounds - few.rounds)


def main(
    most: Annotated[int, typer.Option(help="The most raylets.")] = 8,
    replicas: Annotated[int, typer.Option(help="Replicas for each raylet.")] = 3,
) -> None:
    """Print the driver's CPU time for a replica and for a round."""
    rows = [
        [
            str(cost.raylets),
            str(cost.replicas),
            str(cost.rounds),
            f"{cost.wall_s:.0f}",
            f"{cost.cpu_s:.2f}",
            f"{cost.replica_ms:.0f}",
        ]
        for cost in by_raylets(most, replicas)
    ]
    columns = ["raylets", "replicas", "rounds", "wall s", "driver's CPU s", "ms a replica"]
    print_figures("The driver's CPU time, null cells", columns, rows)
    print(f"\na round more: {round_ms():.1f} ms of the driver's CPU time")
    print(f"\n{where_and_when()}")


if __name__ == "__main__":
    typer.run(main)
