"""One cell over many runs, and where it changed its level."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from farm import speedups, stats
from farm.compare import Measure
from farm.errors import RequestError
from farm.sides import side_of_record
from farm.step_changes import step_changes
from farm.store import RunRecord, Store
from farm.surroundings import differences

_TELLS_APART = ("length", "batch_size", "threads", "device", "hardware_class", "inputs", "model", "baseline")
"""What makes cells of one name different ones; the flag of `hardware_class` is --hardware."""

_ONLY_OF = {"baseline": "speedup"}
"""What tells cells apart in one measure alone: a latency is the same over whichever baseline."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which cell: a method's name, and of the rest what is needed to tell its cells apart."""

    method: str
    length: int | None = None
    batch_size: int | None = None
    threads: int | None = None
    device: str | None = None
    hardware_class: str | None = None
    inputs: str | None = None
    model: str | None = None
    baseline: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """The cell in one run. `value` is a speedup or a latency in ms; None, with `why`, where it has no result."""

    run: str
    value: float | None
    low: float | None
    high: float | None
    replicas: int
    why: str | None


@dataclass(frozen=True, slots=True)
class Step:
    """A change of level that begins with a run: new speed / old speed, and what differs from the run before."""

    run: str
    ratio: float
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class History:
    """All runs of one cell, oldest first, and the steps in them."""

    title: str
    measure: Measure
    entries: tuple[Entry, ...]
    steps: tuple[Step, ...]
    is_yardstick: bool = False
    """Whether it is the speedup of the baseline itself, which is 1 in every run."""


def history_of(store: Store, selection: Selection, measure: Measure) -> History:
    """The history of one cell. Raises RequestError where no run has it, or the selection names several."""
    records = {record.run: record for record in store.runs()}
    rows = [
        row
        for run in sorted(store.measured_runs())  # their ids begin with the time
        for row in speedups.current(store, run).to_pylist()
        if row["role"] != "twin"
    ]
    found = _selected(rows, selection, store)
    _require_one_cell(found, selection, measure)
    entries = tuple(_entry(row, measure) for row in _one_a_run(found))
    measured = [entry for entry in entries if entry.value is not None]
    yardstick = measure == "speedup" and all(row["role"] == "baseline" for row in found)
    steps = () if yardstick else tuple(_steps(measured, records, measure))
    return History(_title(found[0]), measure, entries, steps, yardstick)


def _one_a_run(rows: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Each run's row; of a baseline that several packs have, one with the mean of their latencies."""
    by_run: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_run.setdefault(row["run"], []).append(row)
    for packs in by_run.values():
        first = next((row for row in packs if row["status"] != "ok"), packs[0])
        if len(packs) == 1 or first["status"] != "ok":
            yield first
        else:
            p50_ns = stats.geometric_mean([row["latency_p50_ns"] for row in packs])
            yield {**first, "latency_p50_ns": p50_ns, "replicas": sum(row["replicas"] for row in packs)}


def _selected(rows: Sequence[Mapping[str, Any]], selection: Selection, store: Store) -> list[Mapping[str, Any]]:
    """The rows that are asked for. Raises RequestError where there are none, with what there is instead."""
    found = [row for row in rows if row["name"] == selection.method]
    if not found:
        names = sorted({row["name"] for row in rows})
        raise RequestError(f"no run in {store.root} has {selection.method}; methods there: {_listed(names)}")
    told = selection.method
    for name in _TELLS_APART:
        asked = getattr(selection, name)
        if asked is None:
            continue
        before, found = found, [row for row in found if row[name] == asked]
        if not found:
            there = _listed(_values(before, name))
            raise RequestError(f"no run in {store.root} has {told} with {_flag(name)} {asked}; there are: {there}")
        told += f" with {_flag(name)} {asked}"
    return found


def _require_one_cell(rows: Sequence[Mapping[str, Any]], selection: Selection, measure: Measure) -> None:
    for name in _TELLS_APART:
        values = _values(rows, name)
        if len(values) > 1 and _ONLY_OF.get(name, measure) == measure:
            raise RequestError(
                f"{selection.method} was measured with several: name one with {_flag(name)}: {_listed(values)}"
            )


def _values(rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    return sorted({row[name] for row in rows if row[name] is not None})


def _flag(name: str) -> str:
    return "--hardware" if name == "hardware_class" else f"--{name.replace('_', '-')}"


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))


def _entry(row: Mapping[str, Any], measure: Measure) -> Entry:
    if row["status"] != "ok" or row["speedup"] is None:
        why = "; ".join(row["reasons"] or ())
        return Entry(row["run"], None, None, None, row["replicas"], f"{row['status']}{f': {why}' if why else ''}")
    if measure == "speedup":
        return Entry(row["run"], row["speedup"], row["speedup_low"], row["speedup_high"], row["replicas"], None)
    return Entry(row["run"], row["latency_p50_ns"] / 1e6, None, None, row["replicas"], None)


def _steps(measured: Sequence[Entry], records: Mapping[str, RunRecord], measure: Measure) -> Iterator[Step]:
    """The steps with their sizes: geometric means of the levels on both sides."""
    logs = [math.log(entry.value) for entry in measured if entry.value]
    places = step_changes(logs)
    edges = [0, *places, len(logs)]
    for before, place, after in zip(edges[:-2], places, edges[2:], strict=True):
        rise = fmean(logs[place:after]) - fmean(logs[before:place])
        old, new = (records.get(measured[at].run) for at in (place - 1, place))
        changed = tuple(differences(side_of_record(old), side_of_record(new))) if old and new else ()
        yield Step(measured[place].run, math.exp(rise if measure == "speedup" else -rise), changed)


def _title(row: Mapping[str, Any]) -> str:
    threads = f"{row['threads']} thread{'' if row['threads'] == 1 else 's'}"
    place = f"{row['device'].upper()}; {row['hardware_class']}; {threads}; batch size {row['batch_size']}"
    return f"{row['name']} at {row['length']} tokens; {place}"
