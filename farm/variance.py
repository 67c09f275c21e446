"""Where the variance of log ratios comes from, processes or rounds, and how many rounds that makes best. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from farm import stats
from farm.uncertainty import replica_means, within_variance

LEAST_BETWEEN_SD = 0.002
"""Processes are taken to differ by at least 0.2 %: a few replicas often show no difference at all, and without one
no number of rounds would be too large. It is a tenth of the half-width that standard effort aims at, so believing it
wrongly costs no precision that anyone would see."""


@dataclass(frozen=True, slots=True)
class VarianceParts:
    """Variances of log ratios: `between` processes, and of one `round` around its replica; from so many replicas."""

    between: float
    round: float
    replicas: int


def variance_parts(log_ratios_per_replica: Sequence[stats.FloatArray]) -> VarianceParts:
    """The two variances behind one cell's rounds; one array of log ratios per replica, empty ones are ignored.

    The unbalanced one-way random-effects analysis of variance (S. R. Searle, G. Casella, C. E. McCulloch, Variance
    Components, 1992, 3.6); a negative difference between processes counts as 0. What the data cannot show is stored:
    `stats.ROUND_SD` where no replica has two rounds, `stats.BETWEEN_PROCESS_SD` where there is one replica. Raises
    ValueError where no round was paired.
    """
    replicas = [np.asarray(rounds, dtype=np.float64) for rounds in log_ratios_per_replica if len(rounds)]
    if not replicas:
        raise ValueError("no round has both a baseline and a method sample")
    measured = within_variance(replicas)
    within = stats.ROUND_SD**2 if measured is None else measured
    if len(replicas) == 1:
        return VarianceParts(stats.BETWEEN_PROCESS_SD**2, within, 1)
    counts = np.array([len(rounds) for rounds in replicas], dtype=np.float64)
    means = replica_means(replicas)
    total = counts.sum()
    squares = float(counts @ (means - counts @ means / total) ** 2) / (len(replicas) - 1)
    rounds_each = float(total - counts @ counts / total) / (len(replicas) - 1)
    return VarianceParts(max(0.0, (squares - within) / rounds_each), within, len(replicas))


def pooled_parts(parts: Sequence[VarianceParts]) -> VarianceParts:
    """The mean of several cells' parts, as the cells of a cohort share their rounds. Raises ValueError for none."""
    if not parts:
        raise ValueError("no cell has variances to pool")
    return VarianceParts(
        between=float(np.mean([each.between for each in parts])),
        round=float(np.mean([each.round for each in parts])),
        replicas=min(each.replicas for each in parts),
    )


def best_rounds(parts: VarianceParts, setup_s: float, round_s: float, least: int, most: int) -> int:
    """Rounds per replica that give the narrowest interval for the time spent: even, and within least..most.

    n = ceil(sqrt(c2 / c1 x T1^2 / T2^2)), with the cost c2 of a replica before its first round (`setup_s`), that of
    one round c1 (`round_s`), and the variances T1^2 of a round and T2^2 between processes (T. Kalibera, R. Jones,
    Rigorous benchmarking in reasonable time, ISMM 2013): more rounds where rounds differ, more replicas where
    processes do. Rounded up to an even number, as rounds cancel drift in pairs. Raises ValueError where a round
    costs nothing.
    """
    if round_s <= 0 or setup_s < 0:
        raise ValueError("a round takes some time, and a set-up cannot take less than none")
    between = max(parts.between, LEAST_BETWEEN_SD**2)
    optimum = math.ceil(math.sqrt(setup_s / round_s * parts.round / between))
    return max(least, min(most, optimum + optimum % 2))
