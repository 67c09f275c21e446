"""Speedups, their intervals and verdicts, from paired rounds. Pure: no clock, disk, Ray or printing.

All arithmetic is on log ratios, log(baseline latency / method latency), so that a speedup and its inverse are
treated alike and averages of ratios are geometric means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import scipy
from numpy.typing import NDArray

from farm.uncertainty import replica_means, variance_over_replicas, variance_over_rounds

FloatArray = NDArray[np.float64]
IntervalKind = Literal["replicas", "two-stage", "one-replica", "one-round"]
Verdict = Literal["faster", "slower", "same", "unclear"]

CONFIDENCE = 0.95
"""Of every interval in the farm: the field's convention."""

PILOT_REPLICAS = 5
"""Replicas of the first of Stein's two stages, where an effort does not begin with more: with five the two-stage
interval covered 0.949-0.951 in simulation."""

BETWEEN_PROCESS_SD = 0.010
"""Standard deviation of the log ratio between two fresh processes of one model, which one replica cannot show.

From an A/A measurement on a 2-core virtual machine: ratios over 20 interleaved rounds had a standard deviation of
1.6 % around a mean of 1.015; what interleaving does not remove is the processes' own (memory layout), about 1 %.
"""

ROUND_SD = 0.072
"""Standard deviation of the log ratio of a single round, for a replica that has only one.

From the same A/A measurement: 1.6 % over 20 rounds is 1.6 % x sqrt(20) = 7.2 % for one of them.
"""

PERCENTILE_SAMPLES = {50: 11, 90: 64, 95: 130, 99: 662}
"""Samples needed before a percentile is printed: MLPerf LoadGen's early-stopping counts at 99 % confidence."""

MOST_DEGREES = 1e6
"""Stands in for infinite degrees of freedom: there the t and the normal quantile agree to six digits."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A speedup with its 95 % interval.

    `kind` says how the interval was made: `replicas` (t over replica means), `two-stage` (Stein: deviation of the
    pilot, mean of all), `one-replica` (t over rounds, widened by a stored between-process variance) or `one-round`
    (stored variances only). `spread` is the standard deviation of the log ratios behind it: between replica means
    where there are two or more, otherwise between rounds; NaN for a single round. `p_value` is that of the two-sided
    t test of "no difference" (speedup 1) on the same variance and degrees of freedom as the interval, so it is below
    0.05 exactly where the 95 % interval excludes 1.
    """

    speedup: float
    low: float
    high: float
    kind: IntervalKind
    replicas: int
    rounds: int
    spread: float
    p_value: float


class Interval(Protocol):
    """Anything with the two ends of an interval on a speedup."""

    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


@dataclass(frozen=True, slots=True)
class LogMean:
    """A mean log ratio with the variance of that mean, and the degrees of freedom of that variance."""

    mean: float
    variance: float
    degrees: float
    kind: IntervalKind
    spread: float


def paired_log_ratios(
    baseline_rounds: Mapping[int, Sequence[float]], method_rounds: Mapping[int, Sequence[float]]
) -> FloatArray:
    """Log ratio of the baseline's turn median to the method's, for each round that both took part in.

    Both arguments map a round to its samples, in any one unit; the result has one entry per shared round, in the
    order of the rounds. A round in which either has no sample is left out.
    """
    shared = sorted(number for number in baseline_rounds.keys() & method_rounds.keys())
    usable = [number for number in shared if len(baseline_rounds[number]) and len(method_rounds[number])]
    ratios = [float(np.median(baseline_rounds[number]) / np.median(method_rounds[number])) for number in usable]
    return np.log(np.asarray(ratios, dtype=np.float64))


def estimate(
    log_ratios_per_replica: Sequence[FloatArray],
    between_process_sd: float = BETWEEN_PROCESS_SD,
    pilot: int = PILOT_REPLICAS,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """The speedup of one cell and its interval, of 95 % unless another `confidence` is asked for.

    `log_ratios_per_replica` holds, in the order the replicas were started, one array of per-round log ratios each
    (`paired_log_ratios`); empty ones are ignored. With two or more replicas the interval is a t interval over
    replica means; with more than `pilot` of them it is Stein's: the number of replicas was chosen from the pilot's
    deviation, so that deviation, with its degrees of freedom, is the one that keeps the coverage (C. Stein, Annals
    of Mathematical Statistics 16, 1945); where later replicas have other numbers of rounds than the pilot, it is
    moved to them (`variance_over_replicas`). One replica cannot show how processes differ: its rounds' interval is
    widened by `between_process_sd`, with Satterthwaite's degrees of freedom. One round shows no variance at all:
    `ROUND_SD` stands in for it. Raises ValueError where no round was paired.
    """
    replicas = [np.asarray(rounds, dtype=np.float64) for rounds in log_ratios_per_replica if len(rounds)]
    if not replicas:
        raise ValueError("no round has both a baseline and a method sample")
    rounds = sum(len(replica) for replica in replicas)
    return _as_estimate(_log_mean([replicas], between_process_sd, pilot), len(replicas), rounds, confidence)


def geometric_mean_estimate(
    log_ratios_per_cell: Sequence[Sequence[FloatArray]],
    between_process_sd: float = BETWEEN_PROCESS_SD,
    pilot: int = PILOT_REPLICAS,
    confidence: float = CONFIDENCE,
    round_sd: float = ROUND_SD,
) -> Estimate:
    """The geometric mean speedup over several cells of one method (its lengths) and its interval, of 95 % unless
    another `confidence` is asked for.

    `log_ratios_per_cell` holds for each cell what `estimate` takes. Replicas are taken jointly, those of one number
    together, so that whatever the cells of one moment share stays in the interval; each cell keeps all its replicas,
    and what cells share is judged from the first replicas, up to `pilot`, that all of them have
    (`variance_over_replicas`). Simulated with cells that share as much as they differ by, such intervals covered
    0.95-0.96 at equal and unequal numbers from 5 on; adding the cells' variances as if independent, 0.79-0.91. Where
    a cell has a single replica nothing can be judged jointly: variances are added, with Welch and Satterthwaite's
    degrees of freedom. Raises ValueError where a cell has no paired round, or there is no cell.
    """
    cells = [
        [np.asarray(rounds, dtype=np.float64) for rounds in replicas if len(rounds)] for replicas in log_ratios_per_cell
    ]
    if not cells or not all(cells):
        raise ValueError("a geometric mean needs at least one paired round in every cell")
    rounds = sum(len(replica) for replicas in cells for replica in replicas)
    found = _log_mean(cells, between_process_sd, pilot, round_sd)
    return _as_estimate(found, min(map(len, cells)), rounds, confidence)


def log_mean(log_values: Sequence[FloatArray], pilot: int = PILOT_REPLICAS) -> LogMean | None:
    """The mean behind `estimate`, with its variance, to be added to others; None where there is no round.

    `log_values` holds one array of rounds per replica: log ratios, or logarithms of latencies.
    """
    replicas = [np.asarray(rounds, dtype=np.float64) for rounds in log_values if len(rounds)]
    return _log_mean([replicas], BETWEEN_PROCESS_SD, pilot) if replicas else None


def verdict(interval: Interval, same_margin: float) -> Verdict:
    """What a 95 % interval says: `faster` or `slower` where it excludes 1; else `same` or `unclear`.

    `same` means that the whole interval lies within 1 / (1 + same_margin) .. 1 + same_margin; `same_margin` is a
    fraction (0.03 = 3 %).
    """
    if interval.low > 1:
        return "faster"
    if interval.high < 1:
        return "slower"
    if interval.low >= 1 / (1 + same_margin) and interval.high <= 1 + same_margin:
        return "same"
    return "unclear"


def geometric_mean(speedups: Sequence[float]) -> float:
    """Geometric mean of positive ratios: the average for which a mean of inverses is the inverse of the mean."""
    if not len(speedups):
        raise ValueError("no speedups to average")
    return float(np.exp(np.mean(np.log(np.asarray(speedups, dtype=np.float64)))))


def founding_average(baseline_ms: Sequence[float], method_ms: Sequence[float]) -> float:
    """The founding experiment's "average speed up" in percent: mean over lengths of (baseline / method - 1) x 100.

    Both sequences hold one median latency per length, in the same order and unit. Kept to compare with the published
    tables; an arithmetic mean of ratios favours the method whose ratios vary most, so judge by `geometric_mean`.
    """
    baseline = np.asarray(baseline_ms, dtype=np.float64)
    method = np.asarray(method_ms, dtype=np.float64)
    if baseline.shape != method.shape or not baseline.size:
        raise ValueError("need one baseline latency and one method latency per length")
    return float(np.mean(baseline / method - 1) * 100)


def supported_percentiles(n: int) -> tuple[int, ...]:
    """The percentiles that `n` samples support, ascending (`PERCENTILE_SAMPLES`)."""
    return tuple(percentile for percentile, needed in PERCENTILE_SAMPLES.items() if n >= needed)


def stein_replicas(pilot_means: Sequence[float], target_half_width: float, low: int, high: int) -> int:
    """How many replicas in all, pilot included, for a 95 % interval of +- `target_half_width`, within low..high.

    Stein's two-stage rule, decided once from the pilot: n = ceil((t s / target)^2), t with the pilot's degrees of
    freedom. `pilot_means` are mean log ratios, one per replica; the target is on the same scale (0.02 is 2 %).
    """
    if len(pilot_means) < 2:
        raise ValueError("Stein's rule needs a pilot of at least two replicas")
    if target_half_width <= 0:
        raise ValueError("the target half-width must be positive")
    deviation = float(np.std(pilot_means, ddof=1))
    needed = (t_quantile(len(pilot_means) - 1) * deviation / target_half_width) ** 2
    return max(low, min(high, math.ceil(needed)))


def _log_mean(
    cells: Sequence[Sequence[FloatArray]], between_process_sd: float, pilot: int, round_sd: float = ROUND_SD
) -> LogMean:
    """The mean over cells of their means over replicas."""
    shared = min(map(len, cells))
    if shared == 1 and len(cells) == 1:
        return _one_replica(cells[0][0], between_process_sd, round_sd)
    if shared == 1:
        return _mean_of_independent([_log_mean([each], between_process_sd, pilot, round_sd) for each in cells])
    judged = min(pilot, shared)
    means = [replica_means(replicas) for replicas in cells]
    moments = np.mean([each[:shared] for each in means], axis=0)
    return LogMean(
        mean=float(np.mean([each.mean() for each in means])),
        variance=variance_over_replicas(cells, judged),
        degrees=judged - 1,
        kind="two-stage" if max(map(len, cells)) > pilot else "replicas",
        spread=float(np.std(moments, ddof=1)),
    )


def _one_replica(rounds: FloatArray, between_process_sd: float, round_sd: float) -> LogMean:
    between = between_process_sd**2
    if len(rounds) == 1:
        return LogMean(float(rounds[0]), round_sd**2 + between, math.inf, "one-round", math.nan)
    within = variance_over_rounds(rounds)
    degrees = satterthwaite(((within, len(rounds) - 1), (between, math.inf)))
    return LogMean(float(rounds.mean()), within + between, degrees, "one-replica", float(np.std(rounds, ddof=1)))


def _mean_of_independent(parts: Sequence[LogMean]) -> LogMean:
    scale = 1 / len(parts) ** 2
    weakest = min(parts, key=lambda part: _STRENGTH.index(part.kind))
    return LogMean(
        mean=float(np.mean([part.mean for part in parts])),
        variance=scale * sum(part.variance for part in parts),
        degrees=satterthwaite([(scale * part.variance, part.degrees) for part in parts]),
        kind=weakest.kind,
        spread=float(np.sqrt(np.mean([part.spread**2 for part in parts]))),
    )


_STRENGTH: tuple[IntervalKind, ...] = ("one-round", "one-replica", "replicas", "two-stage")


def satterthwaite(parts: Sequence[tuple[float, float]]) -> float:
    """Degrees of freedom of a sum of independent variances, each given with its own (Satterthwaite 1946)."""
    weight = sum(variance**2 / degrees for variance, degrees in parts)
    total = sum(variance for variance, _ in parts)
    return total**2 / weight if weight > 0 else math.inf


def t_quantile(degrees: float, confidence: float = CONFIDENCE) -> float:
    """Half the width, in standard errors, of a two-sided interval of Student's t with so many degrees of freedom."""
    quantile: Any = scipy.special.stdtrit(min(degrees, MOST_DEGREES), (1 + confidence) / 2)
    return float(quantile)


def p_value_of(mean: float, error: float, degrees: float) -> float:
    """Student's two-sided test of a mean being 0, given its standard error; without any error there is no doubt."""
    if error == 0:
        return 0.0 if mean else 1.0
    tail: Any = scipy.special.stdtr(min(degrees, MOST_DEGREES), -abs(mean) / error)
    return 2 * float(tail)


def _as_estimate(part: LogMean, replicas: int, rounds: int, confidence: float = CONFIDENCE) -> Estimate:
    error = math.sqrt(part.variance)
    half = t_quantile(part.degrees, confidence) * error
    return Estimate(
        speedup=math.exp(part.mean),
        low=math.exp(part.mean - half),
        high=math.exp(part.mean + half),
        kind=part.kind,
        replicas=replicas,
        rounds=rounds,
        spread=part.spread,
        p_value=p_value_of(part.mean, error, part.degrees),
    )
