"""The search for a machine's ceilings: the best sustained rate of each kind, over sizes, layouts and libraries.

An easy ceiling is a false one: on one machine a single library's BF16 product gave anything from a fifth of its best
rate to all of it, by size and layout. So every kernel of `tasks.kernels` is screened, the best kernels are tried at
every shape, and the best of those are timed again and again in windows long enough to count.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence

from farm.errors import FarmError
from tasks import cuda_kernels
from tasks.contests import Ceiling, Contest, Kernel, Pair
from tasks.cuda_kernels import prepare_any
from tasks.kernels import RATES, Call, Case, kernels_of
from tasks.native import tile_products
from tasks.sentinels import Clock

BUDGET_S = 8.0
"""Seconds of a whole search, once the libraries are imported."""

SCREENING_SHARE, WINDOWS_SHARE = 0.45, 0.3
"""Of the budget: screening, in equal parts for the rates, and the long windows; pairs with the sentinel take the rest.
"""

PAIRS, FEWEST_PAIRS = 8, 3
"""Windows of the winner with sentinel readings around each. Single ratios were seen to spread by a tenth where a
machine is restless: the median of eight is good to about 4 %. `FEWEST_PAIRS` are timed whatever the budget."""


def search_ceilings(threads: int, budget_s: float = BUDGET_S) -> dict[str, Ceiling]:
    """Find the ceilings of this process's cores with `threads` threads, in about `budget_s` seconds.

    Call it in a process of its own (it grows to 0.8 GB) that is pinned to the slot and has its thread variables set,
    while nothing else runs there. A ceiling brings its own sentinel reading; whoever uses other sentinel cases calls
    `Sentinel.measure()` right after, and hopes that the machine has not changed. Importing libraries comes before the
    budget, and with little budget one window and a few pairs are timed per rate. A library that is missing, or a
    case that raises, is passed over; a rate that nothing could measure is left out.
    """
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(threads)
    for library in ("onnx", "onnxruntime"):
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    with contextlib.suppress(OSError, FarmError):  # no compiler, or no room: the libraries' kernels are left
        tile_products.build()
    kernels = {rate: kernels_of(rate) for rate in RATES}
    return search(kernels, lambda case: prepare_any(case, threads), budget_s)


def search_gpu_ceilings(threads: int, budget_s: float = BUDGET_S) -> dict[str, Ceiling]:
    """The ceilings of the GPU that this process sees, under the conditions of `search_ceilings`.

    A precision that the chip has no units for raises, and is left out.
    """
    cuda_kernels.begin()
    kernels = {rate: cuda_kernels.kernels_of(rate) for rate in cuda_kernels.CUDA_RATES}
    found = search(kernels, lambda case: prepare_any(case, threads), budget_s)
    cuda_kernels.give_back()
    return found


def search(
    kernels: Mapping[str, Sequence[Kernel]],
    prepare: Callable[[Case], Call],
    budget_s: float,
    clock: Clock = time.perf_counter,
) -> dict[str, Ceiling]:
    """The search over `kernels` (libraries and layouts by rate), with the case's preparation and the clock given.

    Screening keeps the best cases of each rate. Then windows of all rates take turns, so that a slow second of the
    machine does not fall on one rate alone. Last the winners take turns with their sentinels.
    """
    started = clock()
    contests = []
    for turn, rate in enumerate(kernels, start=1):
        contest = Contest(rate, prepare, clock)
        contest.screen(kernels[rate], started + budget_s * SCREENING_SHARE * turn / len(kernels))
        contests += [contest] if contest.entries else []
    _time_windows(contests, started + budget_s * (SCREENING_SHARE + WINDOWS_SHARE), clock)
    pairs = [contest.pair() for contest in contests]
    _time_pairs(pairs, started + budget_s, clock)
    return {pair.contest.rate: pair.ceiling() for pair in pairs}


def _time_windows(contests: Sequence[Contest], until: float, clock: Clock) -> None:
    """Windows in turns, one of every rate's best case first, then of the others, again and again until time is up."""
    ranks = range(max((len(contest.entries) for contest in contests), default=0))
    turns = [(contest, contest.entries[rank]) for rank in ranks for contest in contests if rank < len(contest.entries)]
    for turn, (contest, entry) in enumerate(itertools.cycle(turns)):
        if turn >= len(contests) and clock() >= until:
            return
        contest.time_window(entry)


def _time_pairs(pairs: Sequence[Pair], until: float, clock: Clock) -> None:
    for turn in range(PAIRS):
        for pair in pairs:
            if turn < FEWEST_PAIRS or clock() < until:
                pair.time()
