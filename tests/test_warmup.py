"""A cell is warm when its calls stop changing, and not before a minimum of calls and time."""

from __future__ import annotations

import numpy as np

from farm.warmup import LEAST_CALLS, LEAST_NS, MOST_CALLS, MOST_NS, WINDOW_CALLS, is_capped, is_steady, windows_agree


def _calls_until_over(series: list[int]) -> tuple[int, bool]:
    """How many calls of a made-up series a warm-up takes, and whether it ended steady."""
    for calls in range(1, len(series) + 1):
        seen = series[:calls]
        if is_steady(seen) or is_capped(seen):
            return calls, is_steady(seen)
    raise AssertionError("the series is too short to end a warm-up")


def test_constant_calls_are_steady_once_the_least_time_has_passed() -> None:
    calls, steady = _calls_until_over([10_000_000] * 500)
    assert steady
    assert calls * 10_000_000 == LEAST_NS


def test_long_calls_are_repeated_until_two_windows_can_be_compared() -> None:
    two_windows = 1 + 2 * WINDOW_CALLS
    assert two_windows > LEAST_CALLS
    assert not is_steady([MOST_NS] * (two_windows - 1))
    assert not is_capped([MOST_NS] * (two_windows - 1))
    assert is_steady([MOST_NS] * two_windows)


def test_the_first_call_is_in_no_window() -> None:
    assert windows_agree([900_000_000, *[10_000_000] * 4])


def test_calls_that_differ_by_far_more_than_one_percent_are_steady_if_they_go_nowhere() -> None:
    noise = np.random.default_rng(11).normal(60_000_000, 9_000_000, 200).astype(int).tolist()
    calls, steady = _calls_until_over(noise)
    assert steady
    assert sum(noise[:calls]) < MOST_NS


def test_a_steady_climb_is_not_mistaken_for_noise() -> None:
    assert not windows_agree([10_000_000 + 200_000 * number for number in range(40)])


def test_calls_that_become_faster_are_not_steady_until_they_stop() -> None:
    falling = [int(40_000_000 * 0.9**number) + 10_000_000 for number in range(300)]
    calls, steady = _calls_until_over(falling)
    assert steady
    assert falling[calls - 1] < 1.02 * falling[-1]
    assert calls > LEAST_NS // falling[0]


def test_calls_that_never_settle_reach_the_cap_and_are_not_steady() -> None:
    rising = [int(10_000_000 * 1.03**number) for number in range(300)]
    calls, steady = _calls_until_over(rising)
    assert not steady
    assert sum(rising[: calls - 1]) < MOST_NS <= sum(rising[:calls])


def test_noise_around_one_latency_settles_before_the_cap() -> None:
    noise = np.random.default_rng(7).normal(10_000_000, 100_000, 500).astype(int).tolist()
    calls, steady = _calls_until_over(noise)
    assert steady
    assert sum(noise[:calls]) < MOST_NS


def test_one_slow_call_does_not_make_a_series_unsteady() -> None:
    series = [10_000_000] * 120
    series[-2] = 80_000_000
    assert is_steady(series)


def test_tiny_calls_end_at_the_most_calls_and_are_steady_if_they_agree() -> None:
    calls, steady = _calls_until_over([1_000] * (MOST_CALLS + 1))
    assert (calls, steady) == (MOST_CALLS, True)


def test_tiny_calls_that_still_change_are_not_steady() -> None:
    calls, steady = _calls_until_over([1_000 + number for number in range(MOST_CALLS + 1)])
    assert (calls, steady) == (MOST_CALLS, False)


def test_nothing_is_said_of_fewer_calls_than_two_windows() -> None:
    assert not windows_agree([])
    assert not windows_agree([1_000] * (2 * WINDOW_CALLS))
    assert windows_agree([1_000] * (1 + 2 * WINDOW_CALLS))
