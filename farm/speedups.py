"""Measurements of one run -> its speedups: one row per cell, over the cell's replicas."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from farm import stats, stopping
from farm.errors import RequestError
from farm.records import MEASUREMENT_SCHEMA, SPEEDUP_SCHEMA
from farm.store import PARTS_KEY, Store

DERIVATION_VERSION = 1
"""Raise it when the same measurements would give other speedups, so that stored ones are made again."""

_COLUMNS = [name for name in MEASUREMENT_SCHEMA.names if name not in {"environment", "proof", "error_tail", "options"}]
_WORST_FIRST = ("failed", "invalid", "unsupported", "ok")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Process:
    """One measurement row, and the baseline's of the same cohort and replica (None where there is none)."""

    row: Row
    baseline: Row | None


def derive_speedups(measurements: pa.Table, same_within: float) -> pa.Table:
    """One row per cell over its replicas (SPEEDUP_SCHEMA), in the order in which cells first appear.

    `measurements` follow MEASUREMENT_SCHEMA and hold one run. A cell's ratio is taken per round against the
    baseline's turn of the same round, cohort and replica, never across them. `same_within` is the margin of the
    verdict `same`, a fraction. A cell that is not ok in every replica carries its worst status and all reasons, and
    no speedup; the baseline's own row has speedup 1, no interval and no verdict.
    """
    rows = measurements.select([name for name in _COLUMNS if name in measurements.column_names]).to_pylist()
    baselines = {(row["cohort"], row["replica"]): row for row in rows if row["role"] == "baseline"}
    cells: dict[tuple[str, ...], list[_Process]] = {}
    for row in sorted(rows, key=lambda row: row["replica"]):
        key = (row["hardware_class"], row["cohort"], row["cell"], row["role"])
        cells.setdefault(key, []).append(_Process(row, baselines.get((row["cohort"], row["replica"]))))
    derived = [_speedup_row(processes, same_within) for processes in cells.values()]
    return pa.Table.from_pylist(derived, schema=SPEEDUP_SCHEMA)


def rebuild(store: Store, run: str) -> pa.Table:
    """Derive a run's speedups from its sound parts and store them; the table.

    Raises RequestError where there is no such run, ResultsError where the file cannot be written.
    """
    table = _derive(store, run)
    store.write_speedups(run, table)
    return table


def current(store: Store, run: str) -> pa.Table:
    """A run's speedups: the stored ones if they cover exactly the published parts, else derived anew.

    Newly derived ones are stored unless the store was opened read-only. Raises what `rebuild` raises.
    """
    stored = store.read_speedups(run)
    if stored is not None and (stored.schema.metadata or {}).get(PARTS_KEY) == _origin(store, run):
        return stored
    return _derive(store, run) if store.read_only else rebuild(store, run)


def of_cohort(store: Store, run: str, cohort: str) -> pa.Table:
    """The speedups of one cohort from the replicas published so far; nothing is stored."""
    measurements = store.read_measurements(run, columns=_COLUMNS)
    of_it = pc.equal(measurements["cohort"], pa.scalar(cohort))
    return derive_speedups(measurements.filter(of_it), same_within(store, run))


def same_within(store: Store, run: str) -> float:
    """The run's "same" margin, a fraction: what its suite says, else 1.5 x the target of its effort."""
    try:
        suite = store.run(run).suite
    except RequestError:  # measurements copied without their run record still have ratios
        suite = {}
    effort = str(suite.get("effort", "standard"))
    return float(suite.get("same_within") or stopping.same_margin(effort))


def _derive(store: Store, run: str) -> pa.Table:
    # The parts are listed before they are read: one published meanwhile makes the table stale, never wrong.
    origin = _origin(store, run)
    table = derive_speedups(store.read_measurements(run, columns=_COLUMNS), same_within(store, run))
    return table.replace_schema_metadata({PARTS_KEY: origin})


def _origin(store: Store, run: str) -> bytes:
    parts = [path.name for path in store.published(run).values()]
    origin = {"version": DERIVATION_VERSION, "same_within": same_within(store, run), "parts": sorted(parts)}
    return json.dumps(origin, sort_keys=True).encode()


def _speedup_row(processes: Sequence[_Process], margin: float) -> dict[str, Any]:
    first = processes[0].row
    rows = [process.row for process in processes]
    status = min((row["status"] for row in rows), key=_WORST_FIRST.index)
    shared = {name: first.get(name) for name in SPEEDUP_SCHEMA.names if name in MEASUREMENT_SCHEMA.names}
    baseline = next((process.baseline for process in processes if process.baseline is not None), None)
    row = shared | _costs(rows) | _quality(rows, baseline)
    reasons = _reasons(rows)
    row |= {"status": status, "reasons": reasons, "replicas": len(rows)}
    row["baseline"] = baseline["name"] if baseline else None
    row["samples"] = sum(len(each["latency_ns"] or ()) for each in rows)
    row["rounds"] = sum(len(set(each["round"] or ())) for each in rows)
    if status == "ok":
        row["latency_p50_ns"] = _median_latency(rows)
        row["baseline_p50_ns"] = _median_latency([each.baseline for each in processes if each.baseline is not None])
        row |= {"speedup": 1.0} if first["role"] == "baseline" else _judged(processes, margin)
        if row.get("speedup") is None:
            row["reasons"] = [*reasons, "no round was paired with one of the baseline"]
    return row


def _judged(processes: Sequence[_Process], margin: float) -> dict[str, Any]:
    log_ratios = [
        stats.paired_log_ratios(_by_round(process.baseline), _by_round(process.row))
        for process in processes
        if process.baseline is not None and process.baseline["status"] == "ok"
    ]
    paired = [ratios for ratios in log_ratios if len(ratios)]
    if not paired:
        return {}
    found = stats.estimate(paired)
    return {
        "speedup": found.speedup,
        "speedup_low": found.low,
        "speedup_high": found.high,
        "interval": found.kind,
        "replicas": found.replicas,
        "rounds": found.rounds,
        "verdict": stats.verdict(found, margin),
        "log_ratios": [ratios.tolist() for ratios in paired],
    }


def _by_round(row: Row) -> dict[int, list[int]]:
    turns: dict[int, list[int]] = {}
    for number, latency in zip(row["round"] or (), row["latency_ns"] or (), strict=True):
        turns.setdefault(number, []).append(latency)
    return turns


def _median_latency(rows: Iterable[Row]) -> float | None:
    samples = [latency for row in rows for latency in row["latency_ns"] or ()]
    return float(np.median(samples)) if samples else None


def _reasons(rows: Sequence[Row]) -> list[str]:
    """Every distinct reason once; with the count where only some of the replicas gave it."""
    given = [reason for row in rows for reason in dict.fromkeys(row["reasons"] or ())]
    counted = {reason: given.count(reason) for reason in given}
    return [
        reason if count == len(rows) else f"{reason} ({count} of {len(rows)} replicas)"
        for reason, count in counted.items()
    ]


def _costs(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "artifact_bytes": _over(rows, "artifact_bytes", max),
        "prepare_s": _over(rows, "prepare_s", max),
        "load_s": _over(rows, "load_s", median),
        "first_call_ns": _over(rows, "first_call_ns", median),
        "peak_rss_bytes": _over(rows, "peak_rss_bytes", max),
    }


def _quality(rows: Sequence[Row], baseline: Row | None) -> dict[str, Any]:
    # Accuracy belongs to the artifact, which all replicas share; the first that evaluated it speaks for them.
    evaluated = next((row for row in rows if row["accuracy"] is not None), None)
    accuracy = evaluated["accuracy"] if evaluated else None
    reference = baseline["accuracy"] if baseline else None
    drop = None if accuracy is None or reference is None else 100 * (reference - accuracy)
    gates = {row["gate"] for row in rows} - {None}
    return {
        "accuracy": accuracy,
        "accuracy_n": evaluated["accuracy_n"] if evaluated else None,
        "accuracy_drop_points": drop,
        "agreement": _over(rows, "agreement", min),
        "max_abs_logit_diff": _over(rows, "max_abs_logit_diff", max),
        "gate": "fail" if "fail" in gates else next(iter(gates), None),
    }


def _over(rows: Sequence[Row], column: str, summary: Callable[[list[Any]], Any]) -> Any:
    values = [row[column] for row in rows if row[column] is not None]
    return summary(values) if values else None
