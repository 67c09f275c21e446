"""The bootstrap as a second opinion: it agrees on clean data, speaks up on odd replicas, and covers by itself."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
import pytest

from farm import bootstrap, stats
from farm.bootstrap import (
    BOOTSTRAP_REPLICAS,
    CrossCheck,
    PairedTurns,
    Replica,
    _Turns,
    cross_check,
    geometric_mean_cross_check,
    paired_turns,
)

TRUTH = 1.3


def made_up(
    generator: np.random.Generator, replicas: int, rounds: int = 4, offsets: Sequence[float] = (), calls: int = 5
) -> list[Replica]:
    """Replicas that differ by 1 %, of rounds that differ by 6 % and calls by 3 %; `offsets` move the first of them."""

    def replica(number: int) -> Replica:
        offset = math.log(TRUTH) + generator.normal(0, 0.01) + (offsets[number] if number < len(offsets) else 0.0)
        turns = generator.normal(0, 0.042, (2, rounds, 1)) + generator.normal(0, 0.03, (2, rounds, calls))
        return [PairedTurns(np.exp(offset + one), np.exp(other)) for one, other in zip(*turns, strict=True)]

    return [replica(number) for number in range(replicas)]


def log_ratios(replicas: Sequence[Replica]) -> list[np.ndarray]:
    return [
        np.log([statistics.median(turns.baseline) / statistics.median(turns.method) for turns in replica])
        for replica in replicas
        if replica
    ]


def checked(replicas: Sequence[Replica], seed: int = 0, pilot: int = stats.PILOT_REPLICAS) -> CrossCheck | None:
    return cross_check(stats.estimate(log_ratios(replicas), pilot=pilot), replicas, seed, pilot)


def interval(replicas: Sequence[Replica], seed: int = 0, pilot: int = stats.PILOT_REPLICAS) -> tuple[float, float]:
    found = checked(replicas, seed, pilot)
    assert found is not None
    return found.low, found.high


def test_too_few_replicas_are_not_cross_checked() -> None:
    replicas = made_up(np.random.default_rng(1), BOOTSTRAP_REPLICAS)
    assert checked(replicas) is not None
    assert {checked(replicas[:count]) for count in range(1, BOOTSTRAP_REPLICAS)} == {None}
    assert checked([*replicas[:-1], []]) is None


@pytest.mark.parametrize("replicas", [8, 10])
def test_clean_data_agree_with_their_interval(replicas: int) -> None:
    generator = np.random.default_rng(replicas)
    found = [checked(made_up(generator, replicas), seed) for seed in range(150)]
    assert np.mean([each is not None and each.agrees for each in found]) >= 0.98


def test_a_replica_unlike_the_others_is_noticed() -> None:
    found = checked(made_up(np.random.default_rng(2), 10, rounds=20, offsets=[0.0] * 3 + [0.3]))
    assert found is not None
    assert not found.agrees


@pytest.mark.parametrize("pilot", [stats.PILOT_REPLICAS, 10])
def test_the_bootstraps_own_interval_covers(pilot: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "DRAWS", 300)  # a third of the time; over many intervals their noise averages out
    generator = np.random.default_rng(3)
    found = [interval(made_up(generator, 10), seed, pilot) for seed in range(300)]
    assert 0.91 <= np.mean([low <= TRUTH <= high for low, high in found]) <= 0.98


def test_the_same_seed_gives_the_same_interval() -> None:
    replicas = made_up(np.random.default_rng(4), 8)
    assert interval(replicas, 1) == interval(replicas, 1)
    assert interval(replicas, 1) != interval(replicas, 2)


def test_replicas_may_have_other_numbers_of_rounds_and_rounds_other_numbers_of_samples() -> None:
    generator = np.random.default_rng(5)
    replicas = [
        made_up(generator, 1, rounds, calls=calls)[0] for rounds, calls in zip(range(2, 12), [5, 6] * 5, strict=True)
    ]
    low, high = interval(replicas)
    assert low < TRUTH < high


def test_a_single_sample_per_turn_is_enough() -> None:
    low, high = interval(made_up(np.random.default_rng(6), 8, calls=1))
    assert low < TRUTH < high


def test_replicas_that_are_all_alike_leave_no_doubt() -> None:
    same = [[PairedTurns(np.array([2.0, 2.0]), np.array([1.0]))] * 3] * 8
    assert interval(same) == pytest.approx((2.0, 2.0))


@pytest.mark.parametrize("calls", [1, 2, 5, 6, 40])
def test_medians_of_resamples_are_drawn_without_resampling(calls: int) -> None:
    generator = np.random.default_rng(8)
    samples = np.exp(generator.normal(0, 1, calls))
    short = _Turns.of([np.array([1.0, 5.0]), samples]).resampled_log_medians(np.ones(40_000, dtype=np.int64), generator)
    plain = np.log(np.median(generator.choice(samples, (40_000, calls)), axis=1))
    assert short.mean() == pytest.approx(plain.mean(), abs=0.02)
    assert short.std() == pytest.approx(plain.std(), abs=0.02)


def test_turns_are_paired_as_log_ratios_are() -> None:
    baseline, method = {0: [200, 202, 990], 1: [100], 3: [50]}, {1: [50, 50, 7], 0: [101], 2: [9], 3: []}
    paired = paired_turns(baseline, method)
    assert log_ratios([paired])[0] == pytest.approx(stats.paired_log_ratios(baseline, method))


def cells_of_shared_moments(generator: np.random.Generator, counts: Sequence[int]) -> list[list[np.ndarray]]:
    """Log ratios by cell and replica; replicas of one number share 10 % of their moment."""
    moments = list(generator.normal(0, 0.1, max(counts)))
    return [log_ratios(made_up(generator, count, offsets=moments[:count])) for count in counts]


@pytest.mark.parametrize("counts", [(8, 8, 8), (8, 10, 9)])
def test_geometric_means_over_shared_moments_agree_with_their_interval(counts: tuple[int, ...]) -> None:
    generator = np.random.default_rng(9)

    def agrees(seed: int) -> bool:
        cells = cells_of_shared_moments(generator, counts)
        found = geometric_mean_cross_check(stats.geometric_mean_estimate(cells), cells, seed)
        return found is not None and found.agrees

    assert np.mean([agrees(seed) for seed in range(40)]) >= 0.95


def test_moments_that_cells_share_stay_in_the_bootstraps_interval() -> None:
    generator = np.random.default_rng(10)
    cells = cells_of_shared_moments(generator, (10, 10, 10))
    shuffled = [[cell[place] for place in generator.permutation(10)] for cell in cells]

    def width(of: list[list[np.ndarray]]) -> float:
        found = geometric_mean_cross_check(stats.geometric_mean_estimate(of, pilot=10), of, 0, pilot=10)
        assert found is not None
        return math.log(found.high / found.low)

    assert width(shuffled) < 0.8 * width(cells)


def test_a_geometric_mean_with_a_short_cell_is_not_cross_checked() -> None:
    cells = cells_of_shared_moments(np.random.default_rng(11), (8, 7))
    estimate = stats.geometric_mean_estimate(cells)
    assert geometric_mean_cross_check(estimate, cells, 0) is None
    assert geometric_mean_cross_check(estimate, [], 0) is None


def test_of_one_cell_rounds_alone_say_what_rounds_and_samples_say() -> None:
    replicas = made_up(np.random.default_rng(12), 9)
    estimate = stats.estimate(log_ratios(replicas))
    sampled, rounds = checked(replicas), geometric_mean_cross_check(estimate, [log_ratios(replicas)], 0)
    assert sampled is not None and rounds is not None
    half = math.log(estimate.high / estimate.low) / 2
    assert (math.log(rounds.low), math.log(rounds.high)) == pytest.approx(
        (math.log(sampled.low), math.log(sampled.high)), abs=0.4 * half
    )
