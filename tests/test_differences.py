"""Claims about changes between runs: intervals that cover, and noise between runs that twins measure."""

from __future__ import annotations

import math

import numpy as np
import pytest

from farm import stats
from farm.differences import NOTHING_MEASURED, Between, Mean, between_latencies, between_speedups, change

Log = list[list[list[np.ndarray]]]


def simulated_run(
    generator: np.random.Generator, *, lengths: int, replicas: int, machine_sd: float, process_sd: float
) -> Log:
    """Log latencies by length, cell (baseline, twin, method) and replica, ten rounds each.

    A whole run shares one speed of the machine, and every cell one deviation that all its replicas have: what no
    number of replicas shows. Beside it, the machine drifts from round to round, and processes and calls differ.
    """
    shared = generator.normal(0, machine_sd)
    run: Log = []
    for _ in range(lengths):
        own = generator.normal(0, process_sd, 3)
        cells: list[list[np.ndarray]] = [[], [], []]
        for _ in range(replicas):
            drift = shared + generator.normal(0, 0.02) + np.cumsum(generator.normal(0, 0.01, 10))
            for cell in range(3):
                noise = generator.normal(0, 0.007) + generator.normal(0, 0.05, 10)
                cells[cell].append(drift + own[cell] + noise)
        run.append(cells)
    return run


def mean(log_values: list[np.ndarray]) -> Mean:
    found = stats.log_mean(log_values)
    assert found is not None
    return Mean(found.mean, found.variance, min(found.degrees, stats.MOST_DEGREES))


def over_baseline(run: Log, length: int, cell: int) -> Mean:
    return mean([base - own for base, own in zip(run[length][0], run[length][cell], strict=True)])


def coverage(
    lengths: int, replicas: int, machine_sd: float, process_sd: float, times: int = 120
) -> tuple[float, float]:
    """The shares of intervals, of speedups and of latencies, that hold the truth: no change."""
    generator = np.random.default_rng([lengths, replicas, round(1000 * machine_sd)])
    held = np.zeros(2)
    for _ in range(times):
        old, new = (
            simulated_run(generator, lengths=lengths, replicas=replicas, machine_sd=machine_sd, process_sd=process_sd)
            for _ in range(2)
        )
        twins = [over_baseline(run, length, 1) for run in (old, new) for length in range(lengths)]
        moved = [
            float(np.mean([mean(old[length][cell]).mean - mean(new[length][cell]).mean for cell in (0, 1)]))
            for length in range(lengths)
        ]
        for length in range(lengths):
            ratio = change(over_baseline(old, length, 2), over_baseline(new, length, 2), between_speedups(twins))
            latency = change(mean(new[length][2]), mean(old[length][2]), between_latencies(moved))
            held += [ratio.low <= 1 <= ratio.high, latency.low <= 1 <= latency.high]
    speedups, latencies = held / (times * lengths)
    return float(speedups), float(latencies)


@pytest.mark.parametrize("machine_sd", [0.0, 0.2])
@pytest.mark.parametrize(("lengths", "replicas"), [(4, 1), (2, 5), (4, 5)])
def test_intervals_hold_the_truth_whatever_the_machine_did_between_runs(
    lengths: int, replicas: int, machine_sd: float
) -> None:
    speedups, latencies = coverage(lengths, replicas, machine_sd, process_sd=0.0)
    # 480 or 240 intervals, of which those of one run are alike: three standard errors below 0.95.
    assert speedups >= 0.92
    assert latencies >= 0.92


def test_what_processes_keep_for_a_whole_run_is_seen_in_the_twins() -> None:
    with_twins, _ = coverage(4, 5, 0.0, process_sd=0.03)
    assert with_twins >= 0.9


def test_without_twins_such_intervals_would_be_too_narrow() -> None:
    generator = np.random.default_rng(3)
    held = []
    for _ in range(100):
        old, new = (simulated_run(generator, lengths=1, replicas=5, machine_sd=0.0, process_sd=0.03) for _ in range(2))
        found = change(over_baseline(old, 0, 2), over_baseline(new, 0, 2), NOTHING_MEASURED)
        held.append(found.low <= 1 <= found.high)
    assert np.mean(held) < 0.85


def test_a_real_change_is_found() -> None:
    steady = Mean(math.log(2.0), 1e-4, 4)
    slower = change(steady, Mean(math.log(1.8), 1e-4, 4), Between(1e-5, 8))
    assert slower.speedup == pytest.approx(0.9)
    assert slower.high < 1
    assert slower.p_value < 0.05


def test_twins_no_further_apart_than_they_say_widen_nothing() -> None:
    assert between_speedups([Mean(0.01, 1e-4, 4), Mean(-0.01, 1e-4, 4)]).variance == 0
    assert between_speedups([Mean(0.05, 1e-4, 4), Mean(-0.05, 1e-4, 4)]).sd == pytest.approx(0.049, abs=1e-3)


def test_runs_without_twins_are_widened_by_nothing_and_say_so() -> None:
    assert between_speedups([]) == NOTHING_MEASURED
    assert between_latencies([]) == NOTHING_MEASURED
