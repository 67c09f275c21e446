"""What the report draws of single samples: quantiles of latencies, turns by round, and what the machine did. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from farm.pairing import Process, Row
from farm.rates import RATES

COLUMNS = (
    *("hardware_class", "device", "threads", "batch_size", "inputs", "cohort", "cell", "replica", "role", "name"),
    *("length", "error_tail", "round", "latency_ns", "tainted"),
    *("round_started_unix_ns", "round_taint_reasons", "round_state"),
    *(rate.column for rate in RATES.values()),
)
"""The columns of MEASUREMENT_SCHEMA that the report reads."""

MOST_QUANTILES = 41
"""Points of a distribution, every 2.5 %: finer than the eye tells on a plot of 300 pixels' height, and a page of 1,000
cells stays small. Fewer samples are all drawn."""

MOST_ROUNDS = 60
"""Rounds of a cell that are drawn; of more, so many at even distances."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """Latencies of one cell over the rounds that count: `latency_ms[i]` is not exceeded in a share `shares[i]`."""

    name: str
    length: int
    samples: int
    latency_ms: tuple[float, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Turns:
    """Median latency of the turns of one cell, all replicas, in the order of time; `tainted` are left out elsewhere.

    `rounds` counts all of them, `disturbed` those that are tainted, and the ranges are over all; the other lists hold
    those drawn. `minutes` are since the block's first round, and `apart_percent` is how far the turn is from the median
    over those of its replica.
    """

    name: str
    role: str
    length: int
    rounds: int
    disturbed: int
    latency_range_ms: tuple[float, float]
    apart_range_percent: tuple[float, float]
    minutes: tuple[float, ...]
    latency_ms: tuple[float, ...]
    apart_percent: tuple[float, ...]
    tainted: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class MachineRound:
    """What a sentinel and the guards read in one round; rates are over their medians in that replica, less 1, in
    percent."""

    length: int
    minutes: float
    rates_percent: Mapping[str, float]
    state: str | None
    disturbed_by: tuple[str, ...]


def distributions(rows: Iterable[Row]) -> list[Distribution]:
    """One for each cell with samples, twins left out. `rows` are measurement rows."""
    found = []
    for (name, length), processes in _cells(row for row in rows if row["role"] != "twin").items():
        kept = [process.rounds(process.clean_rounds())[1] for process in processes]
        samples = np.array([ns for turns in kept for turn in turns.values() for ns in turn]) / 1e6
        if len(samples):
            shares = np.linspace(0, 1, min(MOST_QUANTILES, len(samples)))
            values = np.quantile(samples, shares)
            found.append(Distribution(name, length, len(samples), _short(values), _short(shares)))
    return found


def turns(rows: Iterable[Row]) -> list[Turns]:
    """One for each cell with samples, twins among them. `rows` are measurement rows of one block."""
    measured = [row for row in rows if row["latency_ns"]]
    began = _began(measured)
    found = []
    for cell in _cells(measured, twins=True).values():
        taken = sorted(each for process in cell for each in _turns(process.row, began))
        _, latencies, apart, tainted = zip(*taken, strict=True)
        ranges = [(min(values), max(values)) for values in (latencies, apart)]
        first = cell[0].row
        drawn = zip(*(taken[place] for place in _places(len(taken), MOST_ROUNDS)), strict=True)
        found.append(Turns(first["name"], first["role"], first["length"], len(taken), sum(tainted), *ranges, *drawn))
    return found


def machine_rounds(rows: Sequence[Row]) -> list[MachineRound]:
    """One for each round of each cohort replica that was recorded with its start, in the order of time."""
    began = _began(rows)
    replicas: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row.get("round_started_unix_ns"):
            replicas.setdefault((row["cohort"], row["replica"]), []).append(row)
    found = [each for members in replicas.values() for each in _rounds_of_replica(members, began)]
    return sorted(found, key=lambda each: each.minutes)


def thinned(rounds: Sequence[MachineRound], most: int) -> Sequence[MachineRound]:
    """At most so many of them, at even distances."""
    return [rounds[place] for place in _places(len(rounds), most)]


def _cells(rows: Iterable[Row], twins: bool = False) -> dict[tuple[str, int], list[Process]]:
    cells: dict[tuple[str, int], list[Process]] = {}
    for row in rows:
        name = f"{row['name']} (twin)" if twins and row["role"] == "twin" else row["name"]
        cells.setdefault((name, row["length"]), []).append(Process(row, None))
    return cells


def _began(rows: Iterable[Row]) -> int:
    """When the first round of all began, in nanoseconds; 0 where none was recorded."""
    return min((start for row in rows for start in row.get("round_started_unix_ns") or ()), default=0)


def _turns(row: Row, began: int) -> list[tuple[float, float, float, bool]]:
    """Minutes, latency in ms, distance from the replica's median in percent, and whether it is tainted, by round."""
    by_round = Process(row, None).rounds()[1]
    marks = dict(zip(row["round"], row.get("tainted") or [False] * len(row["round"]), strict=True))
    medians = {number: median(samples) / 1e6 for number, samples in by_round.items()}
    usual = median(medians.values())
    starts = row.get("round_started_unix_ns") or ()
    found = []
    for place, number in enumerate(sorted(by_round)):
        minutes = (starts[place] - began) / 60e9 if place < len(starts) else float(place)
        apart = 100 * (medians[number] / usual - 1)
        found.append((round(minutes, 3), _rounded(medians[number]), round(apart, 1), bool(marks[number])))
    return found


def _rounds_of_replica(members: Sequence[Row], began: int) -> list[MachineRound]:
    """The rounds of one cohort replica: cells share them, and the one with the most has seen them all."""
    fullest = max(members, key=lambda row: len(row["round_started_unix_ns"]))
    usual = {rate: _median(fullest.get(rate.column)) for rate in RATES.values()}
    reasons: dict[int, dict[str, None]] = {}
    for row in members:
        for start, given in zip(row["round_started_unix_ns"], row.get("round_taint_reasons") or (), strict=False):
            reasons.setdefault(start, {}).update(dict.fromkeys(given or ()))
    found = []
    for place, start in enumerate(fullest["round_started_unix_ns"]):
        rates = {
            rate.what: round(100 * (now / usual[rate] - 1), 1)
            for rate in RATES.values()
            if usual[rate] and (now := _at(fullest.get(rate.column), place)) is not None
        }
        minutes, state = round((start - began) / 60e9, 3), _at(fullest.get("round_state"), place)
        found.append(MachineRound(fullest["length"], minutes, rates, state, tuple(reasons.get(start, ()))))
    return found


def _median(values: Sequence[float | None] | None) -> float:
    known = [value for value in values or () if value is not None]
    return median(known) if known else 0.0


def _at(values: Sequence[Any] | None, place: int) -> Any:
    return values[place] if values is not None and place < len(values) else None


def _places(count: int, most: int) -> list[int]:
    return list(range(count)) if count <= most else [round(at * (count - 1) / (most - 1)) for at in range(most)]


def _short(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(_rounded(value) for value in values)


def _rounded(value: float) -> float:
    """Four significant digits: more than a pixel shows."""
    return float(f"{value:.4g}")
