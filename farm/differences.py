"""How far one run's figure lies from another's when nothing pairs their rounds: the interval, and what widens it. Pure.

    difference = old - new (of log latencies) or new - old (of log speedups): above 0 is faster
    variance   = variance of old + variance of new + 2 x between

Within a run, interleaved rounds cancel what the machine does; between runs nothing does. What is left over, `between`,
is measured on pairs whose true difference is known to be none: the A/A twins. For speedups those are each run's twin
over its baseline; for latencies the baseline and its twin of one run against those of the other. The variance that
their own intervals account for is taken off for speedups; for latencies nothing is, for a machine that changed moves
all lengths at once, and few lengths show little of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from farm import stats


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean of logarithms, the variance of that mean, and that variance's degrees of freedom."""

    mean: float
    variance: float
    degrees: float


@dataclass(frozen=True, slots=True)
class Between:
    """Variance that one figure has from run to run beyond what its own rounds and replicas show; from so many pairs."""

    variance: float
    pairs: int

    @property
    def sd(self) -> float:
        """Its square root: a standard deviation of logarithms, nearly a fraction."""
        return math.sqrt(self.variance)


@dataclass(frozen=True, slots=True)
class Change:
    """How much faster a cell has become, new speed / old speed, with its 95 % interval; above 1 is faster."""

    speedup: float
    low: float
    high: float
    p_value: float
    error: float
    degrees: float

    def p_of_slow_down(self, slow_down: float) -> float:
        """Two-sided p value of a slow-down (old speed / new speed - 1) of just that size; at 0 it is `p_value`."""
        return stats.p_value_of(math.log(self.speedup) + math.log1p(slow_down), self.error, self.degrees)


NOTHING_MEASURED = Between(0.0, 0)


def between_speedups(twins: Sequence[Mean]) -> Between:
    """From twins' log speedups over their baselines, of both runs: each is an error, for the truth is 0.

    The mean square less what the twins' own variances explain, 0 at the least: the moment estimate of a random effect
    whose mean is known (after R. DerSimonian, N. Laird, Controlled Clinical Trials 7, 1986).
    """
    if not twins:
        return NOTHING_MEASURED
    squares = float(np.mean([twin.mean**2 for twin in twins]))
    explained = float(np.mean([twin.variance for twin in twins]))
    return Between(max(0.0, squares - explained), len(twins))


def between_latencies(shifts: Sequence[float]) -> Between:
    """From how far the baseline moved between the runs, a log ratio for each of its cells: half the mean square.

    Half, because a shift holds the move of both runs. Where a baseline has changed for good (a new library), that is in
    it too, and widens intervals that then say less than they could, never more.
    """
    return Between(float(np.mean(np.square(shifts))) / 2, len(shifts)) if shifts else NOTHING_MEASURED


def change(slower: Mean, faster: Mean, between: Between) -> Change:
    """The change whose logarithm is `faster` - `slower`, widened by what lies between runs.

    Degrees of freedom are Satterthwaite's. Simulated with two to four lengths, one to five replicas and machines whose
    speed differs between runs by up to 20 %, such intervals covered 0.95 and more (`tests/test_differences.py`).
    """
    difference = faster.mean - slower.mean
    parts = [(slower.variance, slower.degrees), (faster.variance, faster.degrees)]
    if between.pairs:
        parts.append((2 * between.variance, between.pairs))
    degrees = stats.satterthwaite(parts)
    error = math.sqrt(sum(variance for variance, _ in parts))
    half = stats.t_quantile(degrees) * error
    return Change(
        speedup=math.exp(difference),
        low=math.exp(difference - half),
        high=math.exp(difference + half),
        p_value=stats.p_value_of(difference, error, degrees),
        error=error,
        degrees=degrees,
    )
