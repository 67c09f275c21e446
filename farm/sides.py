"""One side of a comparison: what a run says of each of its cells, read from results or from a file that was pinned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from farm import speedups, stats
from farm.differences import Mean
from farm.errors import RequestError, ResultsError
from farm.pairing import Process, Row
from farm.rates import RATES
from farm.ratios import log_ratios_of, pilot_of
from farm.store import RunRecord, Store

PINNED_VERSION: Literal[1] = 1
"""Raise it when a pinned file means something else, so that an older one is refused rather than misread."""

COLUMNS = (
    *("hardware_class", "cohort", "cell", "role", "replica", "name", "length", "status", "round", "latency_ns"),
    *("tainted", "options", "artifact_key", "inputs_sha256"),
    *(rate.column for rate in RATES.values()),
)


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(_Stored):
    """A mean of logarithms with its variance and that variance's degrees of freedom."""

    mean: float
    variance: float
    degrees: float

    @property
    def as_mean(self) -> Mean:
        """For `farm.differences`."""
        return Mean(self.mean, self.variance, self.degrees)


class SideCell(_Stored):
    """What one run says of one cell; a figure is None where the cell has no result."""

    hardware_class: str
    role: str
    name: str
    length: int
    batch_size: int
    device: str
    threads: int
    inputs: str
    method: str
    options: str
    status: str
    reasons: tuple[str, ...]
    replicas: int
    latency_p50_ns: float | None
    accuracy: float | None
    log_speedup: Figure | None
    log_latency_ns: Figure | None
    # Of files pinned before these were recorded they are unknown.
    artifact_bytes: int | None = None
    artifact_key: str | None = None
    inputs_sha256: str | None = None


class Side(_Stored):
    """One side of a comparison, small enough to be committed beside the code that it guards."""

    version: Literal[1] = PINNED_VERSION
    run: str
    created_unix_ns: int
    command: str
    farm_version: str
    suite: dict[str, Any]
    model: dict[str, Any]
    environment: dict[str, Any]
    same_within: float
    sentinels: dict[str, float]
    disturbed_share: float | None
    cells: tuple[SideCell, ...]


def side_of_run(store: Store, run: str) -> Side:
    """Read one run. Raises RequestError where there is no such run, or nothing of it was published."""
    measurements = store.read_measurements(run, columns=COLUMNS).to_pylist()
    if not measurements:
        raise RequestError(f"run {run} in {store.root} has no results to compare")
    by_cell: dict[tuple[str, ...], list[Row]] = {}
    for row in measurements:
        by_cell.setdefault(_key(row), []).append(row)
    found = {
        "same_within": speedups.same_within(store, run),
        "sentinels": _sentinels(measurements),
        "disturbed_share": _disturbed(measurements),
        "cells": tuple(_cell(row, by_cell.get(_key(row), [])) for row in speedups.current(store, run).to_pylist()),
    }
    return side_of_record(_record(store, run)).model_copy(update=found)


def side_of_record(record: RunRecord) -> Side:
    """What a run's record alone says: what was asked for and where, and no cells."""
    return Side(
        run=record.run,
        created_unix_ns=record.created_unix_ns,
        command=record.command,
        farm_version=record.farm_version,
        suite=record.suite,
        model={name: record.model.get(name) for name in ("name", "sha256")},
        environment=record.environment,
        same_within=0.0,
        sentinels={},
        disturbed_share=None,
        cells=(),
    )


def pin(side: Side, path: Path) -> None:
    """Write a side to a file. Raises ResultsError where that fails."""
    try:
        path.write_text(side.model_dump_json(indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ResultsError(f"{path} cannot be written ({error.strerror or error}): name another file") from error


def read_pinned(path: Path) -> Side:
    """Read a side that `pin` wrote. Raises RequestError for any other file."""
    try:
        return Side.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not what `farm compare --pin FILE` writes"
        raise RequestError(f"{path}: not a pinned baseline: {why}; make one with `farm compare --pin {path}`") from None


def _record(store: Store, run: str) -> RunRecord:
    """The run's record; an empty one where measurements were copied without it, for they can be compared, too."""
    try:
        return store.run(run)
    except RequestError:
        return RunRecord(
            run=run,
            created_unix_ns=0,
            request_sha256="",
            suite={},
            model={},
            environment={},
            farm_version="",
            command="",
        )


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return row["hardware_class"], row["cohort"], row["cell"], row["role"]


_OWN = ("reasons", "artifact_key")
"""Columns of speedups that a side words for itself."""


def _cell(row: Row, processes: Sequence[Row]) -> SideCell:
    pilot = pilot_of([row])
    compared = row["role"] != "baseline" and row.get("log_ratios")
    ok = [each for each in processes if each["status"] == "ok"]
    return SideCell(
        **{name: row[name] for name in SideCell.model_fields if name in row and name not in _OWN},
        reasons=tuple(row["reasons"] or ()),
        options=_first(processes, "options") or "{}",
        artifact_key=row.get("artifact_key") or _first(processes, "artifact_key"),
        inputs_sha256=_first(processes, "inputs_sha256"),
        log_speedup=_figure(log_ratios_of(row), pilot) if compared else None,
        log_latency_ns=_figure([_log_turns(each) for each in ok], pilot) if row["status"] == "ok" else None,
    )


def _first(processes: Sequence[Row], column: str) -> str | None:
    return next((each[column] for each in processes if each[column]), None)


def _figure(log_values: Sequence[stats.FloatArray], pilot: int) -> Figure | None:
    found = stats.log_mean(log_values, pilot)
    if found is None:
        return None
    # JSON has no infinity, and at so many degrees the t and the normal quantile agree.
    return Figure(mean=found.mean, variance=found.variance, degrees=min(found.degrees, stats.MOST_DEGREES))


def _log_turns(row: Row) -> stats.FloatArray:
    """Logarithms of the turns' median latencies in nanoseconds, of the rounds that count."""
    process = Process(row, None)
    _, turns = process.rounds(process.clean_rounds())
    return np.log([float(np.median(turn)) for turn in turns.values()])


def _sentinels(rows: Sequence[Row]) -> dict[str, float]:
    """The median rate of each sentinel over the run's rounds; all cells of a round carry the same."""
    found = {}
    for rate in RATES.values():
        readings = [now for row in rows for now in row[rate.column] or () if now is not None and math.isfinite(now)]
        if readings:
            found[f"{rate.what}, {rate.unit}"] = median(readings)
    return found


def _disturbed(rows: Sequence[Row]) -> float | None:
    marks = [mark for row in rows for mark in row["tainted"] or ()]
    return sum(marks) / len(marks) if marks else None
