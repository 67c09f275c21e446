"""What a table needs to know of speedup rows: what each says of speed and accuracy, and what several say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np

from farm import stats
from farm.bootstrap import geometric_mean_cross_check

Row = Mapping[str, Any]
"""One row of SPEEDUP_SCHEMA."""

FALSE_CLAIMS = 1 - stats.CONFIDENCE
"""The chance of any false claim among those whose p values, adjusted by Holm, are below it: that of one interval."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A speedup; its interval and what the interval says are None where there is no measurement behind it."""

    speedup: float
    low: float | None = None
    high: float | None = None
    interval: str | None = None
    verdict: str | None = None


@dataclass(frozen=True, slots=True)
class Claims:
    """Of how many lengths an interval says faster or slower, and how many of those hold together with all others."""

    held: int
    made: int


@dataclass(frozen=True, slots=True)
class AccuracyChange:
    """By how many percentage points a method is righter than the baseline (negative: less right), with the paired
    interval; its ends are None where only the accuracies are known."""

    points: float
    low: float | None = None
    high: float | None = None


def has_speedup(row: Row) -> bool:
    """Whether the row is ok and was paired with a baseline."""
    return row.get("status", "ok") == "ok" and row.get("speedup") is not None


def is_candidate(row: Row) -> bool:
    """Whether the row is one of the methods that are compared with the baseline."""
    return row.get("role") not in ("baseline", "twin")


def is_unresolved(row: Row) -> bool:
    """Whether a candidate's interval is known to be wider than its effort aims at."""
    return is_candidate(row) and has_speedup(row) and row.get("resolved") is False


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
    found = stats.geometric_mean_estimate([log_ratios_of(row) for row in rows], pilot=pilot_of(rows))
    return Ratio(found.speedup, found.low, found.high, found.kind, stats.verdict(found, same_within))


def mean_is_supported(rows: Sequence[Row]) -> bool | None:
    """Whether a bootstrap supports the interval of the geometric mean over these rows; None where it is not asked.

    It is not where a row has fewer than 8 replicas or no `log_ratios`. Nor over a single row: its own interval is the
    mean's, and was held against a bootstrap of its samples.
    """
    if len(rows) < 2 or not all(row.get("log_ratios") for row in rows):
        return None
    cells = [log_ratios_of(row) for row in rows]
    # The seed is the cells', so that the same measurements give the same table.
    seed = crc32(" ".join(str(row["cell"]) for row in rows).encode())
    pilot = pilot_of(rows)
    check = geometric_mean_cross_check(stats.geometric_mean_estimate(cells, pilot=pilot), cells, seed, pilot)
    return check.agrees if check else None


def accuracy_row(rows: Sequence[Row]) -> Row | None:
    """The row that speaks for a method's accuracy: that with the largest drop, since lengths may differ in artifact."""
    judged = [row for row in rows if row.get("accuracy") is not None]
    return max(judged, key=lambda row: row.get("accuracy_drop_points") or 0.0, default=None)


def accuracy_change(row: Row) -> AccuracyChange | None:
    """How the row's accuracy differs from the baseline's; None where both are right on the same texts, or unknown."""
    drop = row.get("accuracy_drop_points")
    differing = (row.get("baseline_right_only") or 0) + (row.get("method_right_only") or 0)
    if not is_candidate(row) or drop is None or not (drop or differing):
        return None
    low, high = row.get("accuracy_drop_low_points"), row.get("accuracy_drop_high_points")
    # Subtracted, because the negative of no drop would print as -0.00.
    return AccuracyChange(0 - drop, None if high is None else 0 - high, None if low is None else 0 - low)


def claims_of(rows: Sequence[Row]) -> Claims | None:
    """What the rows claim and what of it holds after Holm; None where nothing is claimed or `p_holm` is not known."""
    claims = [row for row in rows if is_candidate(row) and row.get("verdict") in ("faster", "slower")]
    known = [row["p_holm"] for row in claims if row.get("p_holm") is not None]
    return Claims(sum(p_value < FALSE_CLAIMS for p_value in known), len(known)) if known else None


def pilot_of(rows: Sequence[Row]) -> int:
    """How many replicas the intervals of a run's rows are judged by; the default where a row does not say."""
    return next((row["pilot"] for row in rows if row.get("pilot")), stats.PILOT_REPLICAS)


def log_ratios_of(row: Row) -> list[stats.FloatArray]:
    """The row's log ratios, one array of rounds per replica."""
    return [np.asarray(replica, dtype=np.float64) for replica in row["log_ratios"]]
