"""Where variance comes from is told apart on made-up replicas of known parts, and rounds are chosen by it."""

from __future__ import annotations

import numpy as np
import pytest

from farm import stats
from farm.variance import LEAST_BETWEEN_SD, VarianceParts, best_rounds, pooled_parts, variance_parts


def made_up(seed: int, between_sd: float, round_sd: float, rounds: list[int]) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.normal(0, between_sd) + generator.normal(0, round_sd, count) for count in rounds]


def time_for_precision(parts: VarianceParts, setup_s: float, round_s: float, rounds: int) -> float:
    """Seconds of measuring times the variance they leave, which any number of replicas leaves alike."""
    return (setup_s + rounds * round_s) * (parts.between + parts.round / rounds)


def test_equal_replicas_give_the_textbook_variances() -> None:
    replicas = [np.array([0.0, 0.2]), np.array([1.0, 1.2]), np.array([2.0, 2.2])]
    found = variance_parts(replicas)
    assert found.round == pytest.approx(0.02)
    assert found.between == pytest.approx(1.0 - 0.02 / 2)
    assert found.replicas == 3


@pytest.mark.parametrize("rounds", [[10] * 6, [2, 4, 8, 16, 20, 20]])
def test_both_parts_are_right_on_average_whether_rounds_are_equal_or_not(rounds: list[int]) -> None:
    found = [variance_parts(made_up(seed, 0.03, 0.05, rounds)) for seed in range(3000)]
    assert np.mean([each.between for each in found]) == pytest.approx(0.03**2, rel=0.05)
    assert np.mean([each.round for each in found]) == pytest.approx(0.05**2, rel=0.02)


def test_processes_that_differ_less_than_their_rounds_explain_do_not_differ() -> None:
    assert variance_parts([np.array([-1.0, 1.0]), np.array([1.0, -1.0])]).between == 0


def test_one_replica_is_given_the_stored_variance_between_processes() -> None:
    found = variance_parts([np.array([0.1, 0.2, 0.3]), np.array([])])
    assert found == VarianceParts(stats.BETWEEN_PROCESS_SD**2, pytest.approx(0.01), 1)


def test_single_rounds_are_given_the_stored_variance_of_a_round() -> None:
    found = variance_parts([np.array([0.0]), np.array([0.4])])
    assert found == VarianceParts(pytest.approx(0.08 - stats.ROUND_SD**2), stats.ROUND_SD**2, 2)


def test_no_paired_round_has_no_variance() -> None:
    with pytest.raises(ValueError, match="no round"):
        variance_parts([np.array([])])


def test_cells_that_share_their_rounds_are_pooled_by_the_mean() -> None:
    assert pooled_parts([VarianceParts(1.0, 4.0, 5), VarianceParts(3.0, 2.0, 4)]) == VarianceParts(2.0, 3.0, 4)
    with pytest.raises(ValueError, match="no cell"):
        pooled_parts([])


@pytest.mark.parametrize(("between_sd", "setup_s"), [(0.01, 10.0), (0.01, 2.0), (0.03, 10.0), (0.005, 5.0)])
def test_the_best_number_of_rounds_leaves_the_least_variance_for_the_time(between_sd: float, setup_s: float) -> None:
    parts = VarianceParts(between_sd**2, 0.072**2, 5)
    chosen = best_rounds(parts, setup_s, round_s=1.5, least=2, most=200)
    value = {rounds: time_for_precision(parts, setup_s, 1.5, rounds) for rounds in range(2, 200, 2)}
    assert value[chosen] <= 1.02 * min(value.values())
    assert chosen % 2 == 0


def test_more_rounds_where_rounds_differ_and_fewer_where_processes_do() -> None:
    def chosen(between_sd: float, round_sd: float) -> int:
        return best_rounds(VarianceParts(between_sd**2, round_sd**2, 5), 10.0, 1.5, least=4, most=40)

    assert chosen(0.01, 0.17) > chosen(0.01, 0.072) > chosen(0.03, 0.072)


def test_rounds_stay_within_their_limits() -> None:
    assert best_rounds(VarianceParts(1e-4, 1.0, 5), 10.0, 1.0, least=4, most=20) == 20
    assert best_rounds(VarianceParts(1.0, 1e-6, 5), 10.0, 1.0, least=4, most=20) == 4
    assert best_rounds(VarianceParts(1e-4, 1e-4, 5), 0.0, 1.0, least=4, most=20) == 4


def test_processes_that_seem_alike_are_not_taken_to_be_so() -> None:
    seeming = best_rounds(VarianceParts(0.0, 0.01**2, 5), 10.0, 1.0, least=4, most=1000)
    assert seeming == best_rounds(VarianceParts(LEAST_BETWEEN_SD**2, 0.01**2, 5), 10.0, 1.0, least=4, most=1000) == 16


def test_a_round_that_takes_no_time_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="takes some time"):
        best_rounds(VarianceParts(1e-4, 1e-4, 5), 10.0, 0.0, least=4, most=20)
