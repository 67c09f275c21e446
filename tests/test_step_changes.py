"""Claims about steps in a series: found where they are, and rarely where none is."""

from __future__ import annotations

import numpy as np
import pytest

from farm.step_changes import LEAST_RUNS, SHORTEST, step_changes


def series(
    generator: np.random.Generator, runs: int, step: float = 0.0, at: int = 0, heavy: bool = False
) -> list[float]:
    noise = generator.standard_t(2.5, runs) if heavy else generator.normal(0, 1, runs)
    return [float(each) for each in noise + step * (np.arange(runs) >= at)]


@pytest.mark.parametrize("heavy", [False, True])
def test_a_series_without_a_step_rarely_shows_one(heavy: bool) -> None:
    generator = np.random.default_rng(1)
    alarms = [bool(step_changes(series(generator, 16, heavy=heavy))) for _ in range(200)]
    assert np.mean(alarms) <= 0.1  # 0.05, and three standard errors of 200 series


def test_a_step_of_three_deviations_is_found_where_it_is() -> None:
    generator = np.random.default_rng(2)
    found = [step_changes(series(generator, 20, 3.0, 10)) for _ in range(60)]
    assert np.mean([any(abs(place - 10) <= 1 for place in places) for places in found]) >= 0.85


def test_the_newest_runs_are_told_from_the_others_as_soon_as_there_are_three() -> None:
    generator = np.random.default_rng(3)
    runs = 20
    found = [step_changes(series(generator, runs, 4.0, runs - LEAST_RUNS)) for _ in range(40)]
    assert np.mean([runs - LEAST_RUNS in places for places in found]) >= 0.7


def test_several_steps_are_found_one_after_the_other() -> None:
    generator = np.random.default_rng(4)
    levels = np.repeat([0.0, 8.0, 2.0], 12)
    assert step_changes([float(each) for each in levels + generator.normal(0, 1, 36)]) == [12, 24]


def test_the_same_series_gives_the_same_steps() -> None:
    values = series(np.random.default_rng(5), 20, 1.5, 10)
    assert step_changes(values, seed=7) == step_changes(values, seed=7)


@pytest.mark.parametrize("runs", [0, 1, SHORTEST - 1])
def test_too_few_runs_show_no_step_however_large(runs: int) -> None:
    assert step_changes([0.0] * (runs // 2) + [100.0] * (runs - runs // 2)) == []
