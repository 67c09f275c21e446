"""Is it still the same model? Parity of logits, agreement of predictions, accuracy. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

PARITY_LIMIT = 1e-3
"""FP32 methods must match the baseline's logits within this: rounding in another order stays below 1e-5 here, a
wrong mask or a missing layer shows in the first decimal."""

AGREEMENT_TEXTS = 256
LEAST_AGREEMENT = 0.97
"""Reduced precision must predict what the baseline predicts on this share of the fixed texts, or it is not the
same model any more."""

DISBELIEF = 0.025
"""A method is refused only if so few agreements would come about by chance this rarely in one that agrees on 97 %:
on 256 texts, 97 % itself is 8 disagreements, and an honest method at the limit shows 12 in every tenth sample."""


@dataclass(frozen=True, slots=True)
class Quality:
    """How a method's predictions over an evaluation set compare with the baseline's and with the labels."""

    agreement: float
    agreement_n: int
    accuracy: float | None
    accuracy_n: int | None
    gate: Literal["pass", "fail"] | None
    fault: str | None


def predictions(logits: np.ndarray) -> np.ndarray:
    """Predicted label `[n]` from logits `[n, labels]`; a single logit is read as a yes or no."""
    return (logits[:, 0] > 0).astype(int) if logits.shape[1] == 1 else logits.argmax(axis=1)


def largest_difference(baseline: np.ndarray, other: np.ndarray) -> float:
    """Largest absolute difference of two arrays of logits; infinity where shapes differ or a value is not finite."""
    if baseline.shape != other.shape or not np.isfinite(other).all():
        return float("inf")
    return float(np.abs(baseline - other).max())


def parity_fault(baseline: np.ndarray, other: np.ndarray, exact: bool) -> str | None:
    """Why logits `[n, labels]` on the timed inputs disqualify a method, or None."""
    if not np.isfinite(other).all():
        return "logits are not finite"
    if baseline.shape != other.shape:
        return f"logits have shape {list(other.shape)}, the baseline's {list(baseline.shape)}"
    difference = largest_difference(baseline, other)
    if exact and difference > PARITY_LIMIT:
        return f"logits differ from the baseline's by {difference:.2g}, more than {PARITY_LIMIT:g}"
    return None


def agreement_fault(agreeing: int, texts: int) -> str | None:
    """Why `agreeing` of `texts` predictions disqualify reduced precision, or None: an exact binomial test."""
    if stats.binom.cdf(agreeing, texts, LEAST_AGREEMENT) >= DISBELIEF:
        return None
    return f"predicts what the baseline predicts on {agreeing} of {texts} texts, clearly below {LEAST_AGREEMENT:.0%}"


def judge(
    baseline: np.ndarray,
    other: np.ndarray,
    labels: np.ndarray | None,
    exact: bool,
    max_drop_points: float | None,
) -> Quality:
    """Compare logits `[n, labels]` over an evaluation set with the baseline's and, where given, with labels `[n]`.

    `max_drop_points` is the largest loss of accuracy, in percentage points, that passes the gate.
    """
    if baseline.shape != other.shape or not np.isfinite(other).all():
        return Quality(0.0, len(baseline), None, None, None, parity_fault(baseline, other, exact))
    expected, predicted = predictions(baseline), predictions(other)
    same = expected == predicted
    fault = None if exact else agreement_fault(int(same[:AGREEMENT_TEXTS].sum()), len(same[:AGREEMENT_TEXTS]))
    accuracy = gate = None
    if labels is not None:
        accuracy = float((predicted == labels).mean())
        # From whole numbers of texts: the difference of two rounded shares would fail a drop of just the limit.
        drop_points = 100 * (int((expected == labels).sum()) - int((predicted == labels).sum())) / len(labels)
        gate = None if max_drop_points is None else ("pass" if drop_points <= max_drop_points else "fail")
    return Quality(
        agreement=float(same.mean()),
        agreement_n=len(same),
        accuracy=accuracy,
        accuracy_n=None if labels is None else len(labels),
        gate=gate,  # type: ignore[arg-type]
        fault=fault,
    )
