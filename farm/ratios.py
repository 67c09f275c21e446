"""What a table needs to know of speedup rows: which have a speedup, what it is, and the mean of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from farm import stats

Row = Mapping[str, Any]
"""One row of SPEEDUP_SCHEMA."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A speedup; its interval and what the interval says are None where there is no measurement behind it."""

    speedup: float
    low: float | None = None
    high: float | None = None
    interval: str | None = None
    verdict: str | None = None


def has_speedup(row: Row) -> bool:
    """Whether the row is ok and was paired with a baseline."""
    return row.get("status", "ok") == "ok" and row.get("speedup") is not None


def ratio_of(row: Row) -> Ratio | None:
    """The row's speedup with its interval, or None."""
    if not has_speedup(row):
        return None
    ends = (row.get("speedup_low"), row.get("speedup_high"))
    return Ratio(row["speedup"], *ends, row.get("interval"), row.get("verdict"))


def geometric_mean_ratio(rows: Sequence[Row], same_within: float) -> Ratio:
    """The geometric mean over rows that all have a speedup; without an interval where one lacks `log_ratios`."""
    if not all(row.get("log_ratios") for row in rows):
        return Ratio(stats.geometric_mean([row["speedup"] for row in rows]))
    found = stats.geometric_mean_estimate([log_ratios_of(row) for row in rows])
    return Ratio(found.speedup, found.low, found.high, found.kind, stats.verdict(found, same_within))


def log_ratios_of(row: Row) -> list[stats.FloatArray]:
    """The row's log ratios, one array of rounds per replica."""
    return [np.asarray(replica, dtype=np.float64) for replica in row["log_ratios"]]
