"""Timing calls in a loop: one call per sample, or a batch of calls where one is too short to time alone."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from farm.records import Turn

SHORTEST_SAMPLE_NS = 1_000_000
"""A sample lasts at least 1 ms, or its calls are batched: the clock and loop cost 0.1 us, so at most 0.01 %."""

TURN_CALLS = 7
TURN_NS = 100_000_000
"""A turn is at least 7 samples, where nobody asks for another number, and 100 ms: fewer would leave a median of its own
noise and spend more of a turn on its re-warm, longer would let the machine drift between the turns that are compared.
"""


def calls_per_sample(call_ns: float) -> int:
    """How many calls make one sample, for a call of `call_ns`. 1 from 1 ms on, so that percentiles stay true."""
    return max(1, math.ceil(SHORTEST_SAMPLE_NS / max(call_ns, 1.0)))


def samples_per_turn(call_ns: float, least: int = TURN_CALLS) -> int:
    """How many samples make one turn, for a call of `call_ns`: at least `least`."""
    return max(least, math.ceil(TURN_NS / max(call_ns * calls_per_sample(call_ns), 1.0)))


def turn_s(call_ns: float, least: int = TURN_CALLS) -> float:
    """Seconds that the timed calls of one turn take, for a call of `call_ns` and turns of `least` samples or more."""
    return samples_per_turn(call_ns, least) * calls_per_sample(call_ns) * call_ns / 1e9


def time_turn(
    call: Callable[[Any], Any],
    inputs: Sequence[Any],
    samples: int,
    batch: int,
    rewarm_calls: int = 1,
    *,
    device_ns: Callable[[], int] | None = None,
) -> Turn:
    """Time `samples` samples of `batch` calls each, after `rewarm_calls` calls that are thrown away.

    Inputs rotate, so that no call can profit from its predecessor's result. Garbage collection runs before and is
    off during the turn: it would land on whichever method allocates, at a moment of its own choosing. `device_ns`
    returns what a device's own clock counted in the calls since it was last asked; it is asked between samples.
    """
    clock = time.perf_counter_ns
    count = len(inputs)
    gc.collect()
    rewarm_started = clock()
    for number in range(rewarm_calls):
        call(inputs[number % count])
    rewarm_ns = clock() - rewarm_started
    collect = device_ns or int
    collect()
    latencies, on_device = [0] * samples, [0] * samples
    gc.disable()
    try:
        cpu_started, wall_started = time.process_time_ns(), clock()
        if batch == 1:
            for number in range(samples):
                argument = inputs[number % count]
                started = clock()
                call(argument)
                latencies[number] = clock() - started
                on_device[number] = collect()
        else:
            for number in range(samples):
                argument = inputs[number % count]
                started = clock()
                for _ in range(batch):
                    call(argument)
                latencies[number] = (clock() - started) // batch
                on_device[number] = collect() // batch
        wall_ns, cpu_ns = clock() - wall_started, time.process_time_ns() - cpu_started
    finally:
        gc.enable()
    return Turn(tuple(latencies), batch, wall_ns, cpu_ns, rewarm_ns, tuple(on_device) if device_ns else ())
