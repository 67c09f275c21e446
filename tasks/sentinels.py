"""The sentinel: a few milliseconds of fixed products and reads in every round, and the state they put the round in."""

from __future__ import annotations

import statistics
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from tasks.cuda_kernels import CUDA_RATES, PREFIX, prepare_any
from tasks.kernels import BUFFER_BYTES, RATES, Call, Case

__all__ = ["STATE_CHANGE", "Case", "Sentinel", "sized", "state", "usual"]

STATE_CHANGE = 0.15
"""A rate this far from the replica's median gives the round another state. One reading of a quiet machine spreads by a
few percent, so less would be noise; a neighbour on the matrix units was seen to take 30 to 70 %, so more would miss it.
"""

ORDER = tuple(sorted({*RATES, *CUDA_RATES}, key=CUDA_RATES.index))
"""The rates of CPUs and GPUs, in the order in which they are named."""

Clock = Callable[[], float]

USUAL = "usual"
"""The state of a round whose rates are all near their medians."""

DISCARDED, REPETITIONS = 2, 5
"""Repetitions per rate: thrown away, for the first two after other work were seen to reach half the rate (cold caches,
sleeping threads); and timed, of which the median counts, so that an interrupted one or two do not matter."""

REPETITION_S = 0.4e-3
"""A repetition takes at most this long, mostly about three quarters of it. Seven of four rates are then 10 to 15 ms:
5 % of a round of only three cells, whose turns are at least 100 ms each."""

SMALLEST_SIDE = 64
"""No dimension of a sentinel's product is cut below this: smaller ones no longer fill the registers of the kernels."""

BLOCK_COLUMNS = 32_768
"""Bytes that a read reduces to one number: long enough for reading to be the work."""

LARGEST_BLOCK = 64 << 20
"""Bytes of one read at most: reads of a machine with very fast memory are repeated instead."""


class Sentinel:
    """Fixed cases, their operands held ready, in a process that is pinned and has its threads set before torch loads.

    `cases` gives one case per rate. Where one cannot be prepared (a library is missing, or has no such kernel here) its
    rate is left out of every reading. `threads` is for libraries that take it as an argument;
    None means as many as torch has.
    """

    def __init__(self, cases: Mapping[str, Case], threads: int | None = None) -> None:
        self._cases = {rate: cases[rate] for rate in ORDER if rate in cases}
        self._timed: dict[str, tuple[Call, int]] = {}
        threads = threads or _torch_threads()
        for rate, case in self._cases.items():
            try:
                call = prepare_any(case, threads)
                self._timed[rate] = (call, calls_per_repetition(call))
            except Exception:  # whatever a missing or unsuited library raises: the other rates still speak
                traceback.print_exc()  # into the process's own log

    def measure(self) -> dict[str, float]:
        """Rates at this moment, each in its unit: GFLOP/s, GFLOP/s, GOP/s, GB/s. Takes 10 to 15 ms.

        Every rate is warmed again first, for what ran before has the caches, and its threads may still spin.
        """
        return {rate: self._cases[rate].work / call_s(*timed) / 1e9 for rate, timed in self._timed.items()}


def call_s(call: Call, calls: int, clock: Clock = time.perf_counter) -> float:
    """Seconds of one call: the median of the repetitions, of `calls` calls each, after those thrown away."""
    repetitions = [_repeat_s(call, calls, clock) for _ in range(DISCARDED + REPETITIONS)]
    return statistics.median(repetitions[DISCARDED:]) / calls


def _repeat_s(call: Call, calls: int, clock: Clock) -> float:
    started = clock()
    for _ in range(calls):
        call()
    return clock() - started


def calls_per_repetition(call: Call, clock: Clock = time.perf_counter) -> int:
    """Warm the call up, and count how many fit one repetition: too few microseconds would time the call's overhead."""
    return max(1, int(REPETITION_S / max(1e-9, min(_repeat_s(call, 1, clock) for _ in range(5)))))


def _torch_threads() -> int:
    import torch

    return int(torch.get_num_threads())


def memory_case(library: str, layout: str, block: int, buffer: int) -> Case:
    """Reads of about `block` bytes each that go round in a buffer of `buffer` bytes."""
    inner = max(1, block // BLOCK_COLUMNS)
    return Case("memory", library, max(1, buffer // (inner * BLOCK_COLUMNS)), inner, BLOCK_COLUMNS, layout)


def sized(case: Case, value: float) -> Case:
    """The same kernel on a piece of work that fits one repetition at the rate `value`, in the unit of the case's rate.

    A product's largest side is halved until it fits, a read takes a smaller block.
    """
    fits = REPETITION_S * value * 1e9
    if case.rate == "memory" and case.library.startswith(PREFIX):
        return replace(case, inner=max(2, min(case.inner, int(fits / case.columns))))
    if case.rate == "memory":
        return memory_case(case.library, case.layout, int(min(fits, LARGEST_BLOCK)), BUFFER_BYTES)
    while case.work > fits:
        side = max(("rows", "inner", "columns"), key=lambda name: int(getattr(case, name)))
        if getattr(case, side) < 2 * SMALLEST_SIDE:
            break
        case = replace(case, **{side: getattr(case, side) // 2})
    return case


def usual(rounds: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Median of each rate over a replica's rounds; a rate that no round has is left out."""
    readings = list(rounds)
    found = {rate: [reading[rate] for reading in readings if rate in reading] for rate in ORDER}
    return {rate: statistics.median(values) for rate, values in found.items() if values}


def state(rates_now: Mapping[str, float], usual: Mapping[str, float]) -> str:
    """The state of a round: `usual`, or what is slower and what is faster than the replica's median.

    Such as `bf16 slower`, or `fp32+int8 slower, memory faster`, rates in the order of `ORDER`: rounds of equal state
    can be put together over replicas. A rate that either side lacks says nothing.
    """
    moved = [
        rate
        for rate in ORDER
        if rate in rates_now and rate in usual and abs(rates_now[rate] - usual[rate]) > STATE_CHANGE * usual[rate]
    ]
    slower = "+".join(rate for rate in moved if rates_now[rate] < usual[rate])
    faster = "+".join(rate for rate in moved if rates_now[rate] > usual[rate])
    return ", ".join(part for part in (slower and f"{slower} slower", faster and f"{faster} faster") if part) or USUAL
