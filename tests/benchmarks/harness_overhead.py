"""What the harness adds to a sample: a call that does nothing through the farm's timing loop, against a bare loop.

Two costs are told apart. "In the sample" is what ends up in the latency that is reported: the call itself and the
clock. "Around it" is what the loop costs between samples: it lengthens a run, but no latency. Turns of both kinds
alternate, in an order that flips each time, and each figure is a median over turns with its quartiles.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from provenance import print_figures, where_and_when

from farm.timing import time_turn

SAMPLES = 2_000
"""Samples of one turn: 2,000 of 0.1 us last under a millisecond, so that a turn is rarely interrupted."""

BATCH_SAMPLES = 20
BATCH = 1_000
"""Calls of one batched sample: what the farm chooses for calls of about a microsecond."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds of one turn: the median sample, and the whole turn divided by its samples."""

    sample_us: float
    whole_us: float


def nothing(argument: Any) -> None:
    """Be called."""
    del argument


def bare_turn(samples: int) -> Cost:
    """Pairs of clock readings around nothing, kept in a list: the least that timing can cost in Python."""
    clock = time.perf_counter_ns
    latencies = [0] * samples
    begun = clock()
    for number in range(samples):
        started = clock()
        latencies[number] = clock() - started
    wall_ns = clock() - begun
    return Cost(statistics.median(latencies) / 1e3, wall_ns / samples / 1e3)


def farm_turn(samples: int, batch: int) -> Cost:
    """One turn of `nothing` in the farm's own loop, microseconds for each call.

    A sample of several calls is their mean, so its costs are shared out among them.
    """
    turn = time_turn(nothing, (None,), samples, batch)
    return Cost(statistics.median(turn.latency_ns) / 1e3, turn.wall_ns / (samples * batch) / 1e3)


def added(harness: Cost, bare: Cost, batch: int = 1) -> Cost:
    """What the harness adds to one call: in the sample, and with what is around it; both in microseconds."""
    return Cost(harness.sample_us - bare.sample_us / batch, harness.whole_us - bare.whole_us / batch)


def compare(turns: int, samples: int, batch: int) -> list[Cost]:
    """What the harness added in each of `turns` pairs of turns."""
    pairs = []
    for number in range(turns):
        if number % 2:
            harness, bare = farm_turn(samples, batch), bare_turn(samples)
        else:
            bare, harness = bare_turn(samples), farm_turn(samples, batch)
        pairs.append(added(harness, bare, batch))
    return pairs


def quartiles(values: Sequence[float]) -> str:
    """The median, and the quartiles in brackets, of microseconds."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def main(
    turns: Annotated[int, typer.Option(min=2, help="Pairs of turns, one of each kind, for each row.")] = 500,
) -> None:
    """Print what the farm's timing loop adds to one call, in microseconds: medians over turns, with quartiles."""
    rows = []
    for name, samples, batch in (("one call in a sample", SAMPLES, 1), (f"{BATCH} in a sample", BATCH_SAMPLES, BATCH)):
        costs = compare(turns, samples, batch)
        in_sample, whole = ([getattr(cost, which) for cost in costs] for which in ("sample_us", "whole_us"))
        rows.append([name, quartiles(in_sample), quartiles(whole)])
    columns = ["us added to a call", "in the sample", "with what is around it"]
    print_figures(f"What the harness costs, {turns} pairs of turns", columns, rows)
    print(where_and_when())


if __name__ == "__main__":
    typer.run(main)
