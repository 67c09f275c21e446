"""Shares of texts, alone and of two judges of the same texts: Wilson's, Tango's and McNemar's methods. Pure."""

from __future__ import annotations

import math
from typing import Any

import scipy

from farm.stats import CONFIDENCE

_BESIDE = 1e-9
"""How far beside the observed difference the search for an end begins: at it the score is 0 over 0 where no text
differs. Ends of a million texts are 4e-6 away."""


def wilson_interval(hits: int, texts: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of the share `hits` / `texts`, as fractions, by inverting the score test.

    E. B. Wilson, Journal of the American Statistical Association 22, 1927. It stays within 0 and 1 and covers what it
    claims near them too, where the textbook's interval does not (R. G. Newcombe, Statistics in Medicine 17:857, 1998).
    """
    found: Any = scipy.stats.binomtest(hits, texts).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


def paired_difference_interval(
    first_only: int, second_only: int, texts: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """The interval of how much larger the first judge's share of hits is than the second's, as fractions.

    Both judge the same `texts`; `first_only` and `second_only` count those that only one of them hits. Tango's score
    interval: the differences that a score test does not reject, the other shares at their most likely for each
    (T. Tango, Statistics in Medicine 17:891, 1998). Unlike the textbook's it has a width where no text differs.
    Simulated with 678 and 5,000 texts it covered 0.942-0.958 where 1 % to 6 % of them differ, and 0.99 where 0.25 % of
    678 do (the textbook's: 0.74). It excludes 0 where McNemar's asymptotic test rejects; the exact one (`mcnemar`) is
    stricter.
    """
    z = float(scipy.stats.norm.isf((1 - confidence) / 2))
    observed = (first_only - second_only) / texts

    def rejected(difference: float) -> float:
        """Negative inside the interval: the squared score less its critical value, both times the variance."""
        surplus = first_only - second_only - texts * difference
        return surplus**2 - z**2 * texts * _variance(difference, first_only, second_only, texts)

    low: Any = -1.0 if second_only == texts else scipy.optimize.brentq(rejected, -1.0, observed - _BESIDE)
    high: Any = 1.0 if first_only == texts else scipy.optimize.brentq(rejected, observed + _BESIDE, 1.0)
    return float(low), float(high)


def mcnemar(first_only: int, second_only: int) -> float:
    """The two-sided p value of two judges hitting equally many of the same texts; 1 where no text differs.

    Q. McNemar's test (Psychometrika 12, 1947) in its exact form: of the texts that only one hits, each of them would
    have half, binomially distributed.
    """
    differing = first_only + second_only
    return float(scipy.stats.binomtest(first_only, differing).pvalue) if differing else 1.0


def _variance(difference: float, first_only: int, second_only: int, texts: int) -> float:
    """That of one text's contribution, if `difference` is true: Tango's equations 25 and 26.

    The share that only the second hits solves the likelihood's quadratic equation under that restriction.
    """
    linear = (2 * texts - first_only + second_only) * difference - first_only - second_only
    constant = -second_only * difference * (1 - difference)
    root = math.sqrt(max(0.0, linear**2 - 8 * texts * constant))
    return (root - linear) / (2 * texts) + difference * (1 - difference)
