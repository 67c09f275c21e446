"""Which rounds of a cell count, and its latencies beside the baseline's of the same rounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from farm import stats

Row = Mapping[str, Any]
"""A row of MEASUREMENT_SCHEMA."""

LEAST_CLEAN_ROUNDS = 4
"""With fewer undisturbed rounds than this in a replica, all of its rounds count: two pairs of a round and its reverse
are the least that a replica measures."""


@dataclass(frozen=True, slots=True)
class Process:
    """One measurement row, and the baseline's of the same cohort and replica (None where there is none)."""

    row: Row
    baseline: Row | None

    def rounds(self, kept: frozenset[int] | None = None) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
        """Latencies by round, the baseline's and the cell's own: of the `kept` rounds, or of all."""
        return _by_round(self.baseline, kept), _by_round(self.row, kept)

    def clean_rounds(self) -> frozenset[int]:
        """The rounds that count: those no guard objected to, or all where they are too few."""
        marks = self.row.get("tainted") or [False] * len(self.row["round"] or ())
        tainted = {number for number, mark in zip(self.row["round"] or (), marks, strict=True) if mark}
        everything = frozenset(self.row["round"] or ())
        clean = everything - tainted
        return clean if len(clean) >= LEAST_CLEAN_ROUNDS else everything


def _by_round(row: Row | None, kept: frozenset[int] | None = None) -> dict[int, list[int]]:
    turns: dict[int, list[int]] = {}
    if row is not None:
        for number, latency in zip(row["round"] or (), row["latency_ns"] or (), strict=True):
            if kept is None or number in kept:
                turns.setdefault(number, []).append(latency)
    return turns


def latencies(processes: Sequence[Process]) -> dict[str, float | None]:
    """Percentiles over the samples of the rounds that count; those that too few samples support are withheld."""
    pairs = [each.rounds(each.clean_rounds()) for each in processes]
    baseline, own = (np.array([ns for pair in pairs for turn in pair[side].values() for ns in turn]) for side in (0, 1))
    found: dict[str, float | None] = {"baseline_p50_ns": float(np.median(baseline)) if len(baseline) else None}
    # A median is printed of however few samples there are: it is the table's first number, and says its own interval.
    found["latency_p50_ns"] = float(np.median(own)) if len(own) else None
    found["device_p50_ns"] = _device_p50_ns(processes)
    for percentile in set(stats.supported_percentiles(len(own))) - {50}:
        found[f"latency_p{percentile}_ns"] = float(np.percentile(own, percentile))
    return found


def _device_p50_ns(processes: Sequence[Process]) -> float | None:
    """The median of a device's own times over the samples that count; None on a CPU."""
    times = [
        on_device
        for each in processes
        for number, on_device in zip(each.row["round"] or (), each.row.get("device_ns") or (), strict=False)
        if number in each.clean_rounds()
    ]
    return float(np.median(times)) if times else None


def over(rows: Sequence[Row], column: str, summary: Callable[[list[Any]], Any]) -> Any:
    """The summary of a column over those rows that have it; None where none has."""
    values = [row[column] for row in rows if row.get(column) is not None]
    return summary(values) if values else None


def taints(rows: Sequence[Row]) -> dict[str, Any]:
    """How many rounds were disturbed, and by what, most frequent first."""
    disturbed = [reasons for row in rows for reasons in row.get("round_taint_reasons") or () if reasons]
    counted = Counter(reason for reasons in disturbed for reason in reasons)
    return {"rounds_tainted": len(disturbed), "taint_reasons": [reason for reason, _ in counted.most_common()]}
