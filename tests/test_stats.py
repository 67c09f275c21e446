"""Claims about speedups, intervals and verdicts; coverage is tested on simulated processes of known truth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from farm import stats
from farm.uncertainty import variance_over_rounds

SIMULATIONS = 4000
TRUE_LOG_RATIO = math.log(1.3)


def replica(
    generator: np.random.Generator, between_sd: float, rounds: int = 20, truth: float = TRUE_LOG_RATIO
) -> np.ndarray:
    """Log ratios of one simulated pair of processes: an offset of its own, and heavy-tailed rounds around it."""
    return truth + generator.normal(0, between_sd) + 0.03 * generator.standard_t(5, rounds)


def share_covered(intervals: list[stats.Estimate]) -> float:
    return float(np.mean([each.low <= 1.3 <= each.high for each in intervals]))


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


def test_rounds_pair_by_number_and_only_where_both_took_part():
    ratios = stats.paired_log_ratios({0: [200, 202, 990], 1: [100], 3: [50]}, {1: [50, 50, 7], 0: [101], 2: [9], 3: []})
    assert np.exp(ratios) == pytest.approx([2.0, 2.0])


def test_drift_shared_by_a_round_cancels():
    drift = np.linspace(1, 3, 30)
    baseline = {number: [130 * factor] for number, factor in enumerate(drift)}
    method = {number: [100 * factor] for number, factor in enumerate(drift)}
    found = stats.estimate([stats.paired_log_ratios(baseline, method)], between_process_sd=0.0)
    assert (found.low, found.speedup, found.high) == pytest.approx((1.3, 1.3, 1.3))


def test_one_replica_covers_when_the_stored_process_variance_is_true():
    generator = np.random.default_rng(1)
    for between_sd in (0.005, stats.BETWEEN_PROCESS_SD, 0.02):
        found = [stats.estimate([replica(generator, between_sd)], between_sd) for _ in range(SIMULATIONS)]
        assert share_covered(found) >= 0.93
        assert {each.kind for each in found} == {"one-replica"}


def test_one_replica_with_few_rounds_still_covers():
    generator = np.random.default_rng(2)
    found = [stats.estimate([replica(generator, 0.01, rounds=4)], 0.01) for _ in range(SIMULATIONS)]
    assert share_covered(found) >= 0.93


def test_one_replica_is_never_narrower_than_what_processes_differ_by():
    found = stats.estimate([np.full(50, TRUE_LOG_RATIO)], between_process_sd=0.01)
    assert math.log(found.high / found.low) / 2 == pytest.approx(1.96 * 0.01, rel=1e-3)


@pytest.mark.parametrize("replicas", [5, 10])
@pytest.mark.parametrize("between_sd", [0.01, 0.04])
def test_replica_intervals_cover_as_promised(replicas: int, between_sd: float):
    generator = np.random.default_rng(replicas)
    found = [
        stats.estimate([replica(generator, between_sd) for _ in range(replicas)], between_process_sd=0.0)
        for _ in range(SIMULATIONS)
    ]
    assert 0.935 <= share_covered(found) <= 0.965


@pytest.mark.parametrize("spread_over_target", [0.5, 1.0, 2.0])
def test_two_stage_rule_covers_as_promised(spread_over_target: float):
    target = 0.02
    generator = np.random.default_rng(int(10 * spread_over_target))

    def two_stage() -> stats.Estimate:
        replicas = [replica(generator, spread_over_target * target) for _ in range(stats.PILOT_REPLICAS)]
        total = stats.stein_replicas([each.mean() for each in replicas], target, low=5, high=30)
        replicas += [replica(generator, spread_over_target * target) for _ in range(total - len(replicas))]
        return stats.estimate(replicas)

    found = [two_stage() for _ in range(2500)]
    assert 0.935 <= share_covered(found) <= 0.965


def test_two_stage_rule_reaches_its_target():
    generator = np.random.default_rng(3)
    for _ in range(200):
        replicas = [replica(generator, 0.01) for _ in range(5)]
        total = stats.stein_replicas([each.mean() for each in replicas], 0.02, low=5, high=1000)
        replicas += [replica(generator, 0.01) for _ in range(total - 5)]
        found = stats.estimate(replicas)
        assert math.log(found.high / found.low) / 2 <= 0.02 + 1e-12


def test_more_replicas_than_the_pilot_keep_the_pilots_deviation():
    pilot = [np.array([value]) for value in (0.10, 0.12, 0.08, 0.11, 0.09)]
    found = stats.estimate([*pilot, np.array([0.5])])
    half = 2.776 * np.std([0.10, 0.12, 0.08, 0.11, 0.09], ddof=1) / math.sqrt(6)
    assert found.kind == "two-stage"
    assert math.log(found.high / found.low) / 2 == pytest.approx(half, rel=1e-3)
    assert math.log(found.speedup) == pytest.approx(1.0 / 6)


@pytest.mark.parametrize("replicas", [1, 5, 8])
def test_a_against_a_is_rarely_called_faster_or_slower(replicas: int):
    generator = np.random.default_rng(40 + replicas)
    called = [
        stats.verdict(stats.estimate([replica(generator, 0.01, truth=0.0) for _ in range(replicas)], 0.01), 0.03)
        for _ in range(SIMULATIONS)
    ]
    assert np.mean([each in ("faster", "slower") for each in called]) <= 0.06


def test_five_replicas_tell_a_five_percent_difference():
    generator = np.random.default_rng(5)
    called = [
        stats.verdict(stats.estimate([replica(generator, 0.01, truth=math.log(1.05)) for _ in range(5)]), 0.03)
        for _ in range(1000)
    ]
    assert np.mean([each == "faster" for each in called]) >= 0.9


def test_one_round_is_finite_wide_and_labelled():
    found = stats.estimate([np.array([TRUE_LOG_RATIO])])
    assert found.kind == "one-round"
    assert found.speedup == pytest.approx(1.3)
    assert found.low < 1.3 / 1.1 and found.high > 1.3 * 1.1


def test_no_paired_round_is_an_error_not_a_number():
    with pytest.raises(ValueError, match="no round"):
        stats.estimate([np.array([])])
    with pytest.raises(ValueError, match="every cell"):
        stats.geometric_mean_estimate([[np.array([0.1])], [np.array([])]])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.001, 1.2, "faster"),
        (0.8, 0.999, "slower"),
        (0.99, 1.02, "same"),
        (0.99, 1.04, "unclear"),
        (1.0, 1.01, "same"),
    ],
)
def test_verdict_follows_the_interval(low: float, high: float, expected: str):
    assert stats.verdict(Interval(low, high), same_margin=0.03) == expected


@pytest.mark.parametrize("replicas", [1, 2, 5, 8])
def test_the_p_value_says_what_the_interval_says(replicas: int):
    generator = np.random.default_rng(80 + replicas)
    for _ in range(1000):
        found = stats.estimate([replica(generator, 0.01, truth=0.02) for _ in range(replicas)])
        assert (found.p_value < 0.05) == (not found.low <= 1 <= found.high)


def test_the_p_value_does_not_depend_on_the_confidence_asked_for():
    rounds = [np.array([0.01, 0.03, 0.02, 0.05])]
    assert stats.estimate(rounds, confidence=0.99).p_value == stats.estimate(rounds).p_value


def test_replicas_without_any_spread_are_certain():
    assert stats.estimate([np.zeros(4)] * 3).p_value == 1.0
    assert stats.estimate([np.full(4, 0.01)] * 3).p_value == 0.0


def test_rounds_that_stay_like_their_neighbours_tell_less():
    steps, alternating = np.repeat([0.0, 0.1], 8), np.tile([0.0, 0.1], 8)
    independent = np.var(steps, ddof=1) / 16
    assert variance_over_rounds(alternating) == pytest.approx(independent)
    assert variance_over_rounds(steps) > 4 * independent


def test_geometric_mean_is_that_of_the_cells_speedups_whatever_their_replicas():
    generator = np.random.default_rng(9)
    cells = [[replica(generator, 0.01) for _ in range(count)] for count in (5, 8, 6)]
    speedups = [stats.estimate(cell).speedup for cell in cells]
    assert stats.geometric_mean_estimate(cells).speedup == pytest.approx(stats.geometric_mean(speedups))


def test_geometric_mean_of_one_cell_is_the_cells_own_estimate():
    generator = np.random.default_rng(6)
    for replicas in (1, 3, 7):
        cell = [replica(generator, 0.01) for _ in range(replicas)]
        assert stats.geometric_mean_estimate([cell], 0.01) == stats.estimate(cell, 0.01)


@pytest.mark.parametrize("replicas", [(1, 1, 1, 1), (5, 5, 5, 5), (5, 8, 5, 6)])
def test_geometric_mean_intervals_cover(replicas: tuple[int, ...]):
    generator = np.random.default_rng(sum(replicas))
    found = [
        stats.geometric_mean_estimate([[replica(generator, 0.01) for _ in range(each)] for each in replicas], 0.01)
        for _ in range(2000)
    ]
    assert 0.93 <= share_covered(found) <= 0.975
    assert {each.replicas for each in found} == {min(replicas)}


def test_one_replica_of_four_lengths_tells_more_than_one_of_one():
    generator = np.random.default_rng(7)
    cells = [[replica(generator, 0.01)] for _ in range(4)]
    one, four = stats.estimate(cells[0]), stats.geometric_mean_estimate(cells)
    assert math.log(four.high / four.low) < 0.75 * math.log(one.high / one.low)
    assert four.kind == "one-replica"


def test_geometric_mean_of_inverses_is_the_inverse():
    assert stats.geometric_mean([2.0, 0.5, 3.0]) == pytest.approx(1 / stats.geometric_mean([0.5, 2.0, 1 / 3]))


def test_founding_average_is_the_mean_of_percentages():
    assert stats.founding_average([100, 100], [50, 100]) == pytest.approx(50.0)


@pytest.mark.parametrize(
    ("n", "expected"),
    [(10, ()), (11, (50,)), (63, (50,)), (64, (50, 90)), (130, (50, 90, 95)), (662, (50, 90, 95, 99))],
)
def test_percentiles_need_their_samples(n: int, expected: tuple[int, ...]):
    assert stats.supported_percentiles(n) == expected


def test_stein_asks_for_more_where_processes_differ_more():
    quiet, loud = [0.10, 0.101, 0.099, 0.1, 0.1], [0.1, 0.14, 0.06, 0.12, 0.08]
    assert stats.stein_replicas(quiet, 0.02, low=5, high=10) == 5
    assert stats.stein_replicas(loud, 0.02, low=5, high=10) == 10
    expected = math.ceil((2.776445 * np.std(loud, ddof=1) / 0.02) ** 2)
    assert stats.stein_replicas(loud, 0.02, low=5, high=100) == expected
