"""Intervals of shares cover what they claim, agree with published ones, and tests reject as often as they say."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from farm.proportions import mcnemar, paired_difference_interval, wilson_interval

TEXTS = 678
"""As many as the demo holds out."""

CRITICAL = 1.959963984540054**2


@pytest.mark.parametrize(
    ("hits", "texts", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(hits: int, texts: int, low: float, high: float) -> None:
    """Newcombe, Statistics in Medicine 17:857 (1998), table I, method 3."""
    assert wilson_interval(hits, texts) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("counts", "published", "digits"),
    [
        ((1, 7, 21), (-0.517, -0.026), 3),  # airway reactivity: Fagerland et al., Statistics in Medicine 33:2850 (2014)
        ((6, 16, 161), (-0.1240, -0.0054), 4),  # complete response: the same authors' book on contingency tables
        ((25, 2, 102), (0.139, 0.321), 3),  # Chang et al., Journal of Applied Statistics 51:139 (2024), table 3
    ],
)
def test_tangos_interval_is_the_published_one(
    counts: tuple[int, int, int], published: tuple[float, float], digits: int
) -> None:
    assert paired_difference_interval(*counts) == pytest.approx(published, abs=0.51 * 10**-digits)


@pytest.mark.parametrize(("first_only", "second_only", "p_value"), [(1, 7, 0.0703), (6, 16, 0.0525), (4, 4, 1.0)])
def test_mcnemars_exact_p_value_is_the_published_one(first_only: int, second_only: int, p_value: float) -> None:
    assert mcnemar(first_only, second_only) == pytest.approx(p_value, abs=5e-5)
    assert mcnemar(second_only, first_only) == mcnemar(first_only, second_only)


def test_where_no_text_differs_nothing_speaks_against_equality_and_the_interval_has_a_width() -> None:
    assert mcnemar(0, 0) == 1.0
    reach = CRITICAL / (TEXTS + CRITICAL)
    assert paired_difference_interval(0, 0, TEXTS) == pytest.approx((-reach, reach), abs=1e-12)


@pytest.mark.parametrize(("first_only", "second_only", "texts"), [(0, 3, 10), (7, 4, 678), (40, 20, 160), (0, 1, 9)])
def test_exchanging_the_judges_mirrors_the_interval(first_only: int, second_only: int, texts: int) -> None:
    low, high = paired_difference_interval(first_only, second_only, texts)
    assert paired_difference_interval(second_only, first_only, texts) == pytest.approx((-high, -low), abs=1e-10)


@pytest.mark.parametrize("texts", [1, 2, 30, 1_000_000])
def test_the_interval_stays_within_its_bounds(texts: int) -> None:
    assert paired_difference_interval(texts, 0, texts)[1] == 1.0
    assert paired_difference_interval(0, texts, texts)[0] == -1.0
    for first_only, second_only in ((texts, 0), (0, texts), (0, 0)):
        low, high = paired_difference_interval(first_only, second_only, texts)
        assert -1 <= low <= (first_only - second_only) / texts <= high <= 1
        assert low < high


@pytest.mark.parametrize(("first_only", "second_only", "texts"), [(7, 4, 60), (0, 5, 80), (12, 2, 50)])
def test_the_ends_are_where_the_score_at_the_likeliest_shares_is_critical(
    first_only: int, second_only: int, texts: int
) -> None:
    """The shares found here by maximizing the likelihood numerically, not by Tango's formula."""
    for end in paired_difference_interval(first_only, second_only, texts):

        def unlikely(second: float, end: float = end) -> float:
            shares = np.clip([second + end, second, 1 - 2 * second - end], 1e-300, 1)
            return -float(np.dot([first_only, second_only, texts - first_only - second_only], np.log(shares)))

        found = minimize_scalar(unlikely, bounds=(max(0, -end), (1 - end) / 2), options={"xatol": 1e-12})
        variance = 2 * found.x + end - end**2
        score = (first_only - second_only - texts * end) ** 2 / (texts * variance)
        assert score == pytest.approx(CRITICAL, rel=1e-4)


def test_the_interval_excludes_0_exactly_where_mcnemars_asymptotic_test_rejects() -> None:
    for first_only in range(15):
        for second_only in range(15 if first_only else 1, 0, -1):
            low, high = paired_difference_interval(first_only, second_only, 100)
            rejects = (first_only - second_only) ** 2 / (first_only + second_only) > CRITICAL
            assert (low > 0 or high < 0) == rejects


@cache
def _paired(first_only: int, second_only: int, texts: int) -> tuple[float, float]:
    return paired_difference_interval(first_only, second_only, texts)


def _differing(first: float, second: float, texts: int, repetitions: int) -> np.ndarray:
    """Texts that only the first and only the second hits, `[repetitions, 2]`."""
    generator = np.random.default_rng([texts, round(1e6 * first), round(1e6 * second)])
    return generator.multinomial(texts, [first, second, 1 - first - second], size=repetitions)[:, :2]


@pytest.mark.parametrize("texts", [TEXTS, 5_000])
@pytest.mark.parametrize(("first", "second"), [(0.02, 0.01), (0.03, 0.03), (0.01, 0.004), (0.005, 0.005), (0.0, 0.01)])
def test_the_paired_interval_covers_the_true_drop(first: float, second: float, texts: int) -> None:
    drawn = _differing(first, second, texts, repetitions=4_000)
    ends = np.array([_paired(int(one), int(other), texts) for one, other in drawn])
    covered = np.mean((ends[:, 0] <= first - second) & (first - second <= ends[:, 1]))
    assert 0.935 <= covered <= 0.98


def test_where_hardly_a_text_differs_it_still_covers_and_the_textbooks_interval_does_not() -> None:
    drawn = _differing(0.002, 0.0005, TEXTS, repetitions=4_000)
    ends = np.array([_paired(int(one), int(other), TEXTS) for one, other in drawn])
    assert np.mean((ends[:, 0] <= 0.0015) & (ends[:, 1] >= 0.0015)) >= 0.95
    drops = (drawn[:, 0] - drawn[:, 1]) / TEXTS
    half_widths = np.sqrt(CRITICAL * (drawn.sum(axis=1) / TEXTS - drops**2) / TEXTS)
    assert np.mean(np.abs(drops - 0.0015) <= half_widths) < 0.8


@pytest.mark.parametrize("share", [0.5, 0.886, 0.97, 0.999])
def test_wilsons_interval_covers_the_true_share(share: float) -> None:
    hits = np.random.default_rng(round(1e6 * share)).binomial(TEXTS, share, size=4_000)
    ends = np.array([wilson_interval(int(each), TEXTS) for each in hits])
    assert 0.935 <= np.mean((ends[:, 0] <= share) & (share <= ends[:, 1])) <= 0.98


def test_mcnemars_test_rarely_calls_equal_judges_different_and_often_unequal_ones() -> None:
    alike = [mcnemar(int(one), int(other)) for one, other in _differing(0.02, 0.02, TEXTS, 4_000)]
    worse = [mcnemar(int(one), int(other)) for one, other in _differing(0.04, 0.01, TEXTS, 1_000)]
    assert 0.01 < np.mean(np.array(alike) < 0.05) <= 0.05
    assert np.mean(np.array(worse) < 0.05) > 0.9
