"""Holm's adjusted p-values."""

from __future__ import annotations

import numpy as np
import pytest

from farm.claims import holm


def test_each_p_value_is_multiplied_by_how_many_are_no_smaller() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_larger_p_value_is_never_adjusted_below_a_smaller_one() -> None:
    plain = np.random.default_rng(1).random(40) ** 3
    adjusted = np.array(holm(list(plain)))
    assert np.all(np.diff(adjusted[np.argsort(plain)]) >= 0)
    assert np.all(adjusted >= plain)


def test_adjusted_p_values_are_at_most_one() -> None:
    assert holm([0.5, 0.9, 0.7]) == [1.0, 1.0, 1.0]


def test_one_claim_stays_as_it_is_and_none_gives_none() -> None:
    assert holm([0.04]) == [0.04]
    assert holm([]) == []
