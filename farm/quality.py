"""Is it still the same model? Parity of logits, agreement of predictions, accuracy. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy

from farm.proportions import mcnemar, paired_difference_interval, wilson_interval

PARITY_LIMIT = 1e-3
"""FP32 methods must match the baseline's logits within this: rounding in another order stays below 1e-5 here, a
wrong mask or a missing layer shows in the first decimal."""

LEAST_AGREEMENT = 0.97
"""Reduced precision must predict what the baseline predicts on this share of all texts, or it is not the same model
any more."""

DISBELIEF = 0.025
"""A method is refused only if so few agreements would come about by chance this rarely in one that agrees on 97 %:
on 256 texts, 97 % itself is 8 disagreements, and an honest method at the limit shows 12 in every tenth sample."""

SAMPLE_TEXTS = 32
"""An exact method's artifact for another length must give its judged one's logits on so many texts: one that does not
shows it on the first."""


@dataclass(frozen=True, slots=True)
class Quality:
    """How a method's predictions over an evaluation set compare with the baseline's and with the labels.

    The counts are of texts that only one of the two predicts right; all that concerns labels is None without them.
    """

    agreement: float
    agreement_n: int
    fault: str | None
    accuracy: float | None = None
    accuracy_n: int | None = None
    baseline_right_only: int | None = None
    method_right_only: int | None = None
    gate: Literal["pass", "fail"] | None = None
    max_drop_points: float | None = None


def predictions(logits: np.ndarray) -> np.ndarray:
    """Predicted label `[n]` from logits `[n, labels]`; a single logit is read as a yes or no."""
    return (logits[:, 0] > 0).astype(int) if logits.shape[1] == 1 else logits.argmax(axis=1)


def largest_difference(baseline: np.ndarray, other: np.ndarray) -> float:
    """Largest absolute difference of two arrays of logits; infinity where shapes differ or a value is not finite."""
    if baseline.shape != other.shape or not np.isfinite(other).all():
        return float("inf")
    return float(np.abs(baseline - other).max())


def parity_fault(reference: np.ndarray, other: np.ndarray, exact: bool, whose: str = "the baseline's") -> str | None:
    """Why logits `[n, labels]` disqualify a method, held against those of the same texts by `whose`, or None.

    Of a method that is not exact only shape and finiteness are asked.
    """
    if not np.isfinite(other).all():
        return "logits are not finite"
    if reference.shape != other.shape:
        return f"logits have shape {list(other.shape)}, {whose} {list(reference.shape)}"
    difference = largest_difference(reference, other)
    if exact and difference > PARITY_LIMIT:
        return f"logits differ from {whose} by {difference:.2g}, more than {PARITY_LIMIT:g}"
    return None


def agreement_fault(agreeing: int, texts: int) -> str | None:
    """Why `agreeing` of `texts` predictions disqualify reduced precision, or None: an exact binomial test."""
    if scipy.stats.binom.cdf(agreeing, texts, LEAST_AGREEMENT) >= DISBELIEF:
        return None
    return f"predicts what the baseline predicts on {agreeing} of {texts} texts, clearly below {LEAST_AGREEMENT:.0%}"


def likeness_fault(judged: np.ndarray, other: np.ndarray, length: int) -> str | None:
    """Why an exact method's artifact that is not the judged one (that of `length`) cannot share its verdict, or None.

    Both gave logits `[n, labels]` of the same texts, here padded to more tokens.
    """
    fault = parity_fault(judged, other, True, f"those of its artifact for length {length}")
    return fault and f"on the same texts, padded: {fault}"


def judge(
    baseline: np.ndarray,
    other: np.ndarray,
    labels: np.ndarray | None,
    exact: bool,
    max_drop_points: float | None,
) -> Quality:
    """Compare logits `[n, labels]` over an evaluation set with the baseline's and, where given, with labels `[n]`.

    Texts of a set are padded to one length, so that an exact method must get the mask right too.

    `max_drop_points` is the largest loss of accuracy, in percentage points, that passes the gate. It is held against
    the loss on these texts, not against the end of its interval: on 678 texts that of a method which is right on the
    very same ones ends at 0.56 points, so that a limit of 0.5 would pass nothing. The interval is printed beside it.
    """
    if baseline.shape != other.shape or not np.isfinite(other).all():
        return Quality(0.0, len(baseline), parity_fault(baseline, other, exact))
    expected, predicted = predictions(baseline), predictions(other)
    same = expected == predicted
    fault = parity_fault(baseline, other, exact) if exact else agreement_fault(int(same.sum()), len(same))
    agreement = float(same.mean())
    if labels is None:
        return Quality(agreement, len(same), fault)
    lost = int(((expected == labels) & (predicted != labels)).sum())
    gained = int(((expected != labels) & (predicted == labels)).sum())
    return Quality(
        agreement=agreement,
        agreement_n=len(same),
        fault=fault,
        accuracy=float((predicted == labels).mean()),
        accuracy_n=len(labels),
        baseline_right_only=lost,
        method_right_only=gained,
        gate=None if max_drop_points is None else _gate(drop_points(lost, gained, len(labels)), max_drop_points),
        max_drop_points=max_drop_points,
    )


def drop_points(baseline_right_only: int, method_right_only: int, texts: int) -> float:
    """The loss of accuracy in percentage points, negative for a gain.

    From whole numbers of texts: the difference of two rounded shares would fail a loss of just the limit.
    """
    return 100 * (baseline_right_only - method_right_only) / texts


def accuracy_columns(row: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> dict[str, Any]:
    """What to store of a measured row's accuracy beside its baseline's: columns of SPEEDUP_SCHEMA.

    `row` follows MEASUREMENT_SCHEMA and has an accuracy. Intervals and test are derived here from the counts of texts
    that rows hold. The baseline itself has no interval of a drop, nor has a row without counts.
    """
    texts, lost, gained = row["accuracy_n"], row.get("baseline_right_only"), row.get("method_right_only")
    low, high = wilson_interval(round(row["accuracy"] * texts), texts)
    reference = baseline["accuracy"] if baseline else None
    found = {
        "accuracy": row["accuracy"],
        "accuracy_n": texts,
        "accuracy_low": low,
        "accuracy_high": high,
        "accuracy_drop_points": None if reference is None else 100 * (reference - row["accuracy"]),
        "baseline_right_only": lost,
        "method_right_only": gained,
        "max_drop_points": row.get("max_drop_points"),
    }
    if lost is None or gained is None or row["role"] != "candidate":
        return found
    drop_low, drop_high = paired_difference_interval(lost, gained, texts)
    return found | {
        "accuracy_drop_points": drop_points(lost, gained, texts),
        "accuracy_drop_low_points": 100 * drop_low,
        "accuracy_drop_high_points": 100 * drop_high,
        "mcnemar_p": mcnemar(lost, gained),
    }


def _gate(drop: float, limit: float) -> Literal["pass", "fail"]:
    return "pass" if drop <= limit else "fail"
