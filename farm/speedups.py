"""Measurements of one run -> its speedups: one row per cell, over the cell's replicas."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import pyarrow as pa

from farm import stats, stopping
from farm.bootstrap import cross_check, paired_turns
from farm.claims import holm
from farm.costs import break_even, costs_of, gpu_costs_of
from farm.errors import RequestError
from farm.folders import Place
from farm.pairing import Process, Row, latencies, over, taints
from farm.places import node_ratios
from farm.quality import accuracy_columns
from farm.roofline import roofline
from farm.schemas import MEASUREMENT_SCHEMA, SPEEDUP_SCHEMA
from farm.store import PARTS_KEY, Store

DERIVATION_VERSION = 5
"""Raise it when the same measurements would give other speedups, so that stored ones are made again."""

STATE_ROUNDS = 5
"""Rounds that a state of the machine needs before a speedup is given for it alone."""

_COLUMNS = [name for name in MEASUREMENT_SCHEMA.names if name not in {"environment", "proof", "error_tail", "options"}]
_WORST_FIRST = ("failed", "invalid", "unsupported", "ok")


def derive_speedups(
    measurements: pa.Table,
    same_within: float,
    half_width: float | None = None,
    pilot: int = stats.PILOT_REPLICAS,
    *,
    checked: bool = True,
) -> pa.Table:
    """One row per cell over its replicas (SPEEDUP_SCHEMA), in the order in which cells first appear.

    `measurements` follow MEASUREMENT_SCHEMA and hold one run. A cell's ratio is taken per round against the
    baseline's turn of the same round, cohort and replica, never across them. `same_within` is the margin of the
    verdict `same`, a fraction; `half_width` what the effort aims at, for `resolved`; `pilot` how many replicas decided
    on the number of the others (`stats.estimate`). Rounds that a guard objected to are left out where enough others
    remain. Unless `checked`, the bootstrap's second opinion is not asked for. A cell that is not ok in every replica
    carries its worst status and all reasons, and no speedup; the baseline's own row has speedup 1, no interval and no
    verdict.
    """
    rows = measurements.select([name for name in _COLUMNS if name in measurements.column_names]).to_pylist()
    baselines = {(row["cohort"], row["replica"]): row for row in rows if row["role"] == "baseline"}
    cells: dict[tuple[str, ...], list[Process]] = {}
    for row in sorted(rows, key=lambda row: row["replica"]):
        key = (row["hardware_class"], row["cohort"], row["cell"], row["role"])
        cells.setdefault(key, []).append(Process(row, baselines.get((row["cohort"], row["replica"]))))
    aim = _Aim(same_within, half_width, pilot, checked)
    derived = [_speedup_row(processes, aim) for processes in cells.values()]
    _judge_together(derived)
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
    if stored is not None:
        made_of = (stored.schema.metadata or {}).get(PARTS_KEY)
        # Where they were made of every part there is, no part need be opened to know that they are current.
        if made_of == _origin(store, run, listed=True) or made_of == _origin(store, run):
            return stored
    return _derive(store, run) if store.read_only else rebuild(store, run)


def read_for_speedups(store: Store, run: str, cohort: str | None = None) -> pa.Table:
    """The measurements published so far, of one cohort or of all, with the columns that speedups are derived from."""
    return store.read_measurements(run, columns=_COLUMNS, cohort=cohort)


def read_parts(store: Store, parts: Iterable[Place], cohort: str) -> pa.Table:
    """The same of one cohort, out of sound parts that are known already."""
    return store.read_parts(parts, _COLUMNS, cohort)


def rows_for_speedups(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The same for rows that are about to be published."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema=MEASUREMENT_SCHEMA).select(_COLUMNS)


def carry_over(source: Store, destination: Store, run: str) -> None:
    """Store a run's speedups beside the same measurements elsewhere, if those stored at the source are up to date."""
    stored = source.read_speedups(run)
    if stored is not None and (stored.schema.metadata or {}).get(PARTS_KEY) == _origin(source, run):
        destination.write_speedups(run, stored.replace_schema_metadata({PARTS_KEY: _origin(destination, run)}))


def same_within(store: Store, run: str) -> float:
    """The run's "same" margin, a fraction: what its suite says, else 1.5 x the target of its effort."""
    suite = _suite(store, run)
    return float(suite.get("same_within") or stopping.same_margin(str(suite.get("effort", "standard"))))


def half_width(store: Store, run: str) -> float | None:
    """What the run's effort aims at, as half the width of an interval; None where the run's record is not there."""
    effort = _effort(store, run)
    return effort.half_width if effort else None


def pilot(store: Store, run: str) -> int:
    """How many replicas the run's effort judges by when it decides how many more it needs."""
    effort = _effort(store, run)
    return effort.pilot if effort else stats.PILOT_REPLICAS


def _effort(store: Store, run: str) -> stopping.Effort | None:
    return stopping.EFFORTS.get(str(_suite(store, run).get("effort")))


def _suite(store: Store, run: str) -> Mapping[str, Any]:
    try:
        return store.run(run).suite
    except RequestError:  # measurements copied without their run record still have ratios
        return {}


def _derive(store: Store, run: str) -> pa.Table:
    # The parts are listed before they are read: one published meanwhile makes the table stale, never wrong.
    origin = _origin(store, run)
    measurements = store.read_measurements(run, columns=_COLUMNS)
    table = derive_speedups(measurements, same_within(store, run), half_width(store, run), pilot(store, run))
    return table.replace_schema_metadata({PARTS_KEY: origin})


def _origin(store: Store, run: str, listed: bool = False) -> bytes:
    """What speedups are derived from: every part that is listed, or all sound ones."""
    places = (entry.place for entry in store.listed(run)) if listed else store.published(run).values()
    parts = {place.name for place in places}
    origin = {"version": DERIVATION_VERSION, "same_within": same_within(store, run), "parts": sorted(parts)}
    return json.dumps(origin, sort_keys=True).encode()


@dataclass(frozen=True, slots=True)
class _Aim:
    """What intervals are made with and held against: the margin of `same`, the effort's half-width and pilot, and
    whether to bootstrap."""

    same_within: float
    half_width: float | None
    pilot: int
    checked: bool


def _speedup_row(processes: Sequence[Process], aim: _Aim) -> dict[str, Any]:
    first = processes[0].row
    rows = [process.row for process in processes]
    status = min((row["status"] for row in rows), key=_WORST_FIRST.index)
    shared = {name: first.get(name) for name in SPEEDUP_SCHEMA.names if name in MEASUREMENT_SCHEMA.names}
    baseline = next((process.baseline for process in processes if process.baseline is not None), None)
    row = shared | costs_of(processes) | gpu_costs_of(processes) | _quality(rows, baseline)
    reasons = _reasons(rows)
    row |= {"status": status, "reasons": reasons, "replicas": len(rows)}
    row["baseline"] = baseline["name"] if baseline else None
    row["samples"] = sum(len(each["latency_ns"] or ()) for each in rows)
    row["rounds"] = sum(len(each.clean_rounds()) for each in processes)
    row["rounds_measured"] = sum(len(set(each["round"] or ())) for each in rows)
    row |= taints(rows)
    if status == "ok":
        row |= latencies(processes)
        row |= {"speedup": 1.0} if first["role"] == "baseline" else _judged(processes, aim)
        row |= roofline(processes) | break_even(row, processes)
        if row.get("speedup") is None:
            row["reasons"] = [*reasons, "no round was paired with one of the baseline"]
    return row


def _judged(processes: Sequence[Process], aim: _Aim) -> dict[str, Any]:
    compared = [each for each in processes if each.baseline is not None and each.baseline["status"] == "ok"]
    clean = [each.rounds(each.clean_rounds()) for each in compared]
    paired = [ratios for turns in clean if len(ratios := stats.paired_log_ratios(*turns))]
    if not paired:
        return {}
    found = stats.estimate(paired, pilot=aim.pilot)
    check = None
    if aim.checked:
        # The seed is the cell's, so that the same measurements give the same table.
        seed = crc32(str(processes[0].row["cell"]).encode())
        check = cross_check(found, [turns for pair in clean if (turns := paired_turns(*pair))], seed, aim.pilot)
    everything = stats.estimate([stats.paired_log_ratios(*each.rounds()) for each in compared])
    return {
        "speedup": found.speedup,
        "speedup_low": found.low,
        "speedup_high": found.high,
        "interval": found.kind,
        "pilot": aim.pilot,
        "resolved": None if aim.half_width is None else _half_width(found) <= aim.half_width,
        "speedup_all_rounds": everything.speedup if everything.rounds > found.rounds else None,
        "states": _states(compared, aim.pilot),
        "nodes": node_ratios(compared, aim.pilot),
        "bootstrap_low": check.low if check else None,
        "bootstrap_high": check.high if check else None,
        "bootstrap_agrees": check.agrees if check else None,
        "replicas": found.replicas,
        "rounds": found.rounds,
        "verdict": stats.verdict(found, aim.same_within),
        "p_value": found.p_value,
        "log_ratios": [ratios.tolist() for ratios in paired],
    }


def _judge_together(rows: Sequence[dict[str, Any]]) -> None:
    """Adjust the p values of all the table's claims for their number: that of some would be small by chance."""
    claims = [row for row in rows if row["role"] == "candidate" and row.get("p_value") is not None]
    for row, adjusted in zip(claims, holm([row["p_value"] for row in claims]), strict=True):
        row["p_holm"] = adjusted


def _half_width(found: stats.Estimate) -> float:
    """Of an interval that is symmetric on the logarithmic scale, as a fraction."""
    return math.log(found.high / found.low) / 2


def _states(processes: Sequence[Process], pilot: int) -> list[dict[str, Any]] | None:
    """The speedup in each state of the machine, most frequent first; None unless there were two states or more."""
    by_state: dict[str, list[stats.FloatArray]] = {}
    for process in processes:
        rounds = sorted(set(process.row["round"] or ()))
        named = zip(rounds, process.row.get("round_state") or (), strict=False)
        states: dict[str, set[int]] = {}
        for number, state in named:
            if state is not None:
                states.setdefault(state, set()).add(number)
        for state, numbers in states.items():
            ratios = stats.paired_log_ratios(*process.rounds(frozenset(numbers) & process.clean_rounds()))
            by_state.setdefault(state, []).append(ratios)
    if len(by_state) < 2:
        return None
    ordered = sorted(by_state.items(), key=lambda item: -_total(item[1]))
    return [_state(state, replicas, pilot) for state, replicas in ordered]


def _state(state: str, replicas: Sequence[stats.FloatArray], pilot: int) -> dict[str, Any]:
    found = stats.estimate(replicas, pilot=pilot) if _total(replicas) >= STATE_ROUNDS else None
    ends = {"speedup": found.speedup, "low": found.low, "high": found.high} if found else {}
    return {"state": state, "rounds": _total(replicas), **ends}


def _total(replicas: Sequence[stats.FloatArray]) -> int:
    return sum(len(rounds) for rounds in replicas)


def _reasons(rows: Sequence[Row]) -> list[str]:
    """Every distinct reason once; with the count where only some of the replicas gave it."""
    given = [reason for row in rows for reason in dict.fromkeys(row["reasons"] or ())]
    counted = {reason: given.count(reason) for reason in given}
    return [
        reason if count == len(rows) else f"{reason} ({count} of {len(rows)} replicas)"
        for reason, count in counted.items()
    ]


def _quality(rows: Sequence[Row], baseline: Row | None) -> dict[str, Any]:
    # Accuracy belongs to the artifact, which all replicas share; the first that evaluated it speaks for them.
    evaluated = next((row for row in rows if row["accuracy"] is not None), None)
    gates = {row["gate"] for row in rows} - {None}
    return (accuracy_columns(evaluated, baseline) if evaluated else {}) | {
        "agreement": over(rows, "agreement", min),
        "max_abs_logit_diff": over(rows, "max_abs_logit_diff", max),
        "gate": "fail" if "fail" in gates else next(iter(gates), None),
    }
