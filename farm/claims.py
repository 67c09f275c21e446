"""Several claims at once: p-values adjusted so that a whole table is rarely wrong. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given; none for none.

    An adjusted value below 0.05 is a claim of a family in which the chance of any false claim is at most 5 %,
    whatever the claims share (S. Holm, Scandinavian Journal of Statistics 6, 1979). They are never below the plain
    ones, keep their order, and are at most 1.
    """
    plain = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(plain, kind="stable")
    stepped = np.maximum.accumulate(plain[order] * np.arange(len(plain), 0, -1))
    adjusted = np.empty_like(plain)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(each) for each in adjusted]
