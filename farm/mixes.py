"""A mix of lengths: how much faster one method serves it than another, from their ratios at each length. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from farm import stats
from farm.ratios import Ratio, Row, log_ratios_of, pilot_of

Shares = Mapping[int, float]
"""The share of all calls that has each length; they sum to 1."""


def call_ms(rows: Sequence[Row], shares: Shares) -> float:
    """Mean milliseconds of a call in the mix, modelled from one row of a method for each of its lengths.

    The median of the baseline of the row's own cohort over the row's speedup, and no median of the method's calls: so
    methods of one cohort compare as their paired ratios do.
    """
    return sum(shares[row["length"]] * _ms(row) for row in rows)


def time_weights(faster: Sequence[Row], slower: Sequence[Row], shares: Shares) -> list[float]:
    """Weights q of the lengths for which log(slower's time / faster's) of the mix is the sum of q x that at a length.

    That is exact: each weight is the logarithmic mean of both methods' times at the length over that of their times
    for the mix (Y. Vartia, Ideal log-change index numbers, Scandinavian Journal of Statistics 3, 1976).
    """
    times = [
        (mine := shares[row["length"]] * _ms(row), mine * row["speedup"] / other["speedup"])
        for row, other in zip(faster, slower, strict=True)
    ]
    whole = _logarithmic_mean(sum(mine for mine, _ in times), sum(theirs for _, theirs in times))
    return [_logarithmic_mean(mine, theirs) / whole for mine, theirs in times]


def weighted_ratio(rows: Sequence[Row], weights: Sequence[float], confidence: float) -> Ratio:
    """exp of the weighted sum of the rows' log ratios, with its interval; without one where a row lacks `log_ratios`.

    Each length's ratios are scaled so that the plain mean that `stats.geometric_mean_estimate` takes is the sum asked
    for; the stored variances of single replicas and single rounds, which are not in the ratios, are scaled alike.
    """
    if not all(row.get("log_ratios") for row in rows):
        return Ratio(
            math.exp(sum(weight * math.log(row["speedup"]) for weight, row in zip(weights, rows, strict=True)))
        )
    scales = [len(rows) * weight for weight in weights]
    cells = [[scale * replica for replica in log_ratios_of(row)] for scale, row in zip(scales, rows, strict=True)]
    scale = math.sqrt(sum(scale**2 for scale in scales) / len(rows))
    between, of_round = scale * stats.BETWEEN_PROCESS_SD, scale * stats.ROUND_SD
    found = stats.geometric_mean_estimate(cells, between, pilot_of(rows), confidence, of_round)
    return Ratio(found.speedup, found.low, found.high, found.kind)


def _ms(row: Row) -> float:
    """The row's latency by its baseline's and its speedup."""
    baseline_ns = row.get("baseline_p50_ns") or row["latency_p50_ns"] * row["speedup"]
    return float(baseline_ns / row["speedup"]) / 1e6


def _logarithmic_mean(one: float, other: float) -> float:
    """(a - b) / (log a - log b), which is a where both are equal."""
    return one if math.isclose(one, other, rel_tol=1e-9) else (one - other) / math.log(one / other)
