"""Made-up cohorts of known truth: turns of processes that differ, on a machine that drifts, waves and stumbles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

BASELINE_NS = 20e6
BURN_IN = 20
"""Steps after which an autoregression of up to 0.9 has forgotten 88 % of where it began."""


@dataclass(frozen=True)
class World:
    """What moves latencies, as standard deviations of their logs unless it says otherwise.

    `between_sd` and `round_sd` are those of a log ratio: each process has 1 / sqrt(2) of them. Everything that the
    machine does (drift, wave, noise, bursts) happens in the order of the turns, to whichever cell has its turn.
    """

    between_sd: float = 0.01
    round_sd: float = 0.06
    round_memory: float = 0.1  # correlation of a process's own noise from round to round
    tail_degrees: float = 5.0  # Student's t: heavier tails than the normal
    drift_sd: float = 0.3  # linear, over a replica
    wave: float = 0.1  # amplitude; slower than a replica of ten rounds
    wave_rounds: float = 25.0
    machine_sd: float = 0.03
    machine_memory: float = 0.9  # from turn to turn
    burst_share: float = 0.004  # of turns that start a burst, which hits two turns
    burst: float = 0.3


def log_latencies(
    world: World,
    generator: np.random.Generator,
    *,
    repetitions: int,
    replicas: int,
    rounds: int,
    speedups: tuple[float, ...] = (1.0,),
) -> FloatArray:
    """Log latencies of turns, by repetition, cell, replica and round; cell 0 is the baseline.

    Rounds run in random order and then in reverse, so `rounds` is even.
    """
    cells = 1 + len(speedups)
    own = _autoregression(generator, (repetitions, cells, replicas, rounds), world.round_memory, world.tail_degrees) * (
        world.round_sd / np.sqrt(2)
    )
    processes = generator.normal(0, world.between_sd / np.sqrt(2), (repetitions, cells, replicas, 1))
    truth = np.log(BASELINE_NS) - np.log(np.array([1.0, *speedups]))[:, np.newaxis, np.newaxis]
    return truth + processes + own + _machine(world, generator, (repetitions, cells, replicas, rounds))


def log_ratios(turns: FloatArray) -> FloatArray:
    """By repetition, method, replica and round."""
    return turns[:, :1] - turns[:, 1:]


def samples_by_round(turns: FloatArray, generator: np.random.Generator, calls: int = 5) -> dict[int, list[float]]:
    """One process's calls in nanoseconds: late rather than early around each turn's latency."""
    late = generator.exponential(0.02, (len(turns), calls)) + generator.normal(0, 0.01, (len(turns), calls))
    return dict(enumerate(np.exp(turns[:, np.newaxis] + late).tolist()))


def _machine(world: World, generator: np.random.Generator, shape: tuple[int, int, int, int]) -> FloatArray:
    """What the machine adds to each cell's turn: a series over all turns, read where the cell has its turn."""
    repetitions, cells, replicas, rounds = shape
    turns = cells * rounds
    series = world.machine_sd * _autoregression(
        generator, (repetitions, replicas, turns), world.machine_memory, world.tail_degrees
    )
    time = np.arange(turns) / turns
    phase = generator.uniform(0, 2 * np.pi, (repetitions, replicas, 1))
    series += generator.normal(0, world.drift_sd, (repetitions, replicas, 1)) * time
    series += world.wave * np.sin(2 * np.pi * rounds / world.wave_rounds * time + phase)
    starts = generator.random(series.shape) < world.burst_share
    hit = starts.copy()
    hit[..., 1:] |= starts[..., :-1]
    series += hit * world.burst * generator.uniform(0.5, 1.5, series.shape)
    forward = np.argsort(generator.random((repetitions, replicas, rounds // 2, cells)), axis=-1)
    order = np.stack([forward, cells - 1 - forward], axis=3).reshape(repetitions, replicas, rounds, cells)
    when = order + cells * np.arange(rounds)[:, np.newaxis]
    taken = np.take_along_axis(series, when.reshape(repetitions, replicas, turns), axis=-1)
    return np.moveaxis(taken.reshape(repetitions, replicas, rounds, cells), -1, 1)


def _autoregression(
    generator: np.random.Generator, shape: tuple[int, ...], memory: float, tail_degrees: float
) -> FloatArray:
    """A first-order autoregression of unit variance along the last axis, driven by Student's t."""
    unit = np.sqrt((tail_degrees - 2) / tail_degrees * (1 - memory**2))
    pushes = unit * generator.standard_t(tail_degrees, (shape[-1] + BURN_IN, *shape[:-1]))
    pushes[0] /= np.sqrt(1 - memory**2)
    for step in range(1, len(pushes)):
        pushes[step] += memory * pushes[step - 1]
    return np.moveaxis(pushes[BURN_IN:], 0, -1)
