"""The contest of one rate's kernels: screened at a few shapes, the best at all, then timed in windows and in pairs."""

from __future__ import annotations

import itertools
import math
import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from tasks import cuda_kernels
from tasks.caches import held_bytes, last_level_bytes
from tasks.cuda_kernels import PREFIX
from tasks.kernels import BUFFER_BYTES, Call, Case
from tasks.sentinels import LARGEST_BLOCK, Clock, call_s, calls_per_repetition, memory_case, sized

WARM_S, QUICK_S = 0.001, 0.004
"""A case is screened for this long, or two calls, after this long or one call of warming, and its fastest call counts,
over the fastest of a small fixed case before and after: many a machine runs one and a half times as fast for a second,
and whatever is screened then would win all the finalists' places."""

REFERENCE_CALLS = 3
"""Calls of that fixed case."""

STATES_APART = 2.0
"""The fixed case is not believed below this fraction of its best: the states of one machine were at most 1.7 apart, and
what is slower is time that was stolen while it ran, not the state in which the case ran."""

LONGEST_CALL_S = 0.05
"""A case expected to take longer per call is passed over: larger products gain nothing where small ones are slow."""

WINDOW_S = 0.05
"""A window's median call counts as sustained: no clock error or short burst of speed lasts that long."""

KERNELS_KEPT = 3
"""Kernels that are tried at every shape; the best one of a shape was among the first two wherever this was tried."""

FINALISTS = 3
"""Cases per rate whose operands are kept for the windows."""

CACHE_MULTIPLE = 4
"""A buffer is this many times the last-level cache, so that hardly any of it is still there when it is read again."""

LARGEST_BUFFER = 1 << 30
"""Bytes of a buffer at most: more than that a small machine could not spare."""

Shape = tuple[int, int, int]
Kernel = tuple[str, str]

FIRST_SHAPES = ((128, 512, 512),)
"""Tells a reference kernel (thousands of times slower) from a real one before it takes seconds. The first kernel that
works gives the fixed case that screening compares with."""

RANKING_SHAPES = ((128, 768, 3072), (512, 512, 512))
"""Rows, inner, columns on which kernels are ranked: a short text through a wide layer, and a square in cache."""

OTHER_SHAPES = (
    *((64, 768, 768), (256, 3072, 768), (512, 768, 3072), (512, 1024, 1024), (1024, 1024, 1024)),
    *((1024, 2048, 2048), (2048, 2048, 2048), (4096, 4096, 4096)),
)
"""Where the best kernels are tried too: from one sentence through a layer, to squares that feed many cores.
Little work comes first, so where time runs out the large ones are missing: that is where small ones are enough."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The best rate of one kind that was sustained, in the unit of `RATES`, and the case that gave it.

    `searched` counts the cases that ran. `sentinel_case` is the winner's small version for a `Sentinel`, and `sentinel`
    what that read in the state of the machine in which `value` was sustained: `value` divided by the median ratio of
    the two, timed in turns. So `value × sentinel_now / sentinel` is the ceiling of any later moment, and neither a
    burst of speed during the search nor a slow moment after it makes it wrong.
    """

    rate: str
    value: float
    case: Case
    searched: int
    sentinel_case: Case
    sentinel: float
    cached_bytes: int = 0
    """Of memory: what the caches of these cores hold, which need not be read from there again in the next call."""


@dataclass(slots=True)
class Entry:
    """A case whose operands are held: its screened rate over the reference's, and the rate of each long window."""

    case: Case
    call: Call
    rank: float
    windows: list[float] = field(default_factory=list)

    @property
    def sustained(self) -> float:
        """The best window: others may have been short of time that was stolen."""
        return max(self.windows, default=0.0)


class Contest:
    """The cases of one rate, from the first screening to the winner."""

    def __init__(self, rate: str, prepare: Callable[[Case], Call], clock: Clock) -> None:
        self.rate = rate
        self.entries: list[Entry] = []
        self._prepare = prepare
        self._clock = clock
        self.searched = 0
        self._reference: tuple[Case, Call] | None = None
        self._best_reference = 0.0
        self._rates: dict[Kernel, float] = {}
        self._ranks: dict[Kernel, float] = {}

    def screen(self, kernels: Sequence[Kernel], until: float) -> None:
        """Try every kernel at the shapes that rank them, then the best kernels at all others."""
        on_gpu = any(library.startswith(PREFIX) for library, _ in kernels)
        first, others = cuda_kernels.shapes_of(self.rate) if on_gpu else _shapes(self.rate)
        self._try_all(kernels, first, until)
        kept = sorted(self._ranks, key=lambda kernel: -self._ranks[kernel])[:KERNELS_KEPT]
        self._try_all(kept, others, until)

    def _try_all(self, kernels: Sequence[Kernel], shapes: Iterable[Shape], until: float) -> None:
        failed: set[Kernel] = set()
        for shape, kernel in itertools.product(shapes, kernels):
            case = Case(self.rate, kernel[0], *shape, kernel[1])
            if self.entries and self._clock() >= until:
                return
            if kernel in failed or case.work > LONGEST_CALL_S * self._rates.get(kernel, math.inf) * 1e9:
                continue
            try:
                self._try(case, kernel)
            except Exception:  # whatever a missing or unsuited library raises: the others set the ceiling
                failed.add(kernel)

    def _try(self, case: Case, kernel: Kernel) -> None:
        call = self._prepare(case)
        call()  # some kernels are found missing only when they run
        self._reference = self._reference or (case, call)
        before = self._fastest(*self._reference, 0.0, REFERENCE_CALLS)
        rate = self._fastest(case, call, QUICK_S, 2)
        after = self._fastest(*self._reference, 0.0, REFERENCE_CALLS)
        self._best_reference = max(self._best_reference, before, after)
        reference = max(before, after, self._best_reference / STATES_APART)
        self._rates[kernel] = max(rate, self._rates.get(kernel, 0.0))
        self._ranks[kernel] = max(rate / reference, self._ranks.get(kernel, 0.0))
        self.searched += 1
        self.entries = sorted([*self.entries, Entry(case, call, rate / reference)], key=lambda entry: -entry.rank)
        del self.entries[FINALISTS:]

    def _fastest(self, case: Case, call: Call, at_least_s: float, at_least: int) -> float:
        _timed(call, WARM_S, 1, self._clock)
        return case.work / min(_timed(call, at_least_s, at_least, self._clock)) / 1e9

    def time_window(self, entry: Entry) -> float:
        """Time a window of that case and return its rate: its median call's."""
        rate = entry.case.work / statistics.median(_timed(entry.call, WINDOW_S, 3, self._clock)) / 1e9
        entry.windows.append(rate)
        return rate

    def pair(self) -> Pair:
        """The winner beside its kernel on little work, or beside torch's best where the winner is not torch's.

        In a sentinel one library's threads must do for all rates: two libraries' threads disturb each other.
        """
        winner = max(self.entries, key=lambda entry: entry.sustained)
        ranked = sorted(self._ranks, key=lambda kernel: -self._ranks[kernel])
        own = (winner.case.library, winner.case.layout)
        library, layout = next((kernel for kernel in (own, *ranked) if not kernel[0].startswith("onnxruntime")), own)
        case = sized(replace(winner.case, library=library, layout=layout), statistics.median(winner.windows))
        call = self._prepare(case)
        return Pair(self, winner, case, call, calls_per_repetition(call, self._clock), self._clock)


@dataclass(slots=True)
class Pair:
    """A contest's winner and its sentinel, timed in turns."""

    contest: Contest
    winner: Entry
    case: Case
    call: Call
    calls: int
    clock: Clock
    ratios: list[float] = field(default_factory=list)

    def time(self) -> None:
        """Time a window of the winner with a sentinel reading before and after."""
        before = self._read()
        rate = self.contest.time_window(self.winner)
        self.ratios.append(rate / max(before, self._read()))

    def _read(self) -> float:
        return self.case.work / call_s(self.call, self.calls, self.clock) / 1e9

    def ceiling(self) -> Ceiling:
        """The winner at its best, tied to its sentinel by the median ratio."""
        value = self.winner.sustained
        sentinel = value / statistics.median(self.ratios)
        held = _held(self.winner.case) if self.contest.rate == "memory" else 0
        return Ceiling(self.contest.rate, value, self.winner.case, self.contest.searched, self.case, sentinel, held)


def _timed(call: Call, at_least_s: float, at_least: int, clock: Clock) -> list[float]:
    """Seconds of each of at least so many calls, for at least so long."""
    durations: list[float] = []
    started = now = clock()
    while len(durations) < at_least or now - started < at_least_s:
        call()
        before, now = now, clock()
        durations.append(now - before)
    return durations


def _shapes(rate: str) -> tuple[Sequence[Shape], Sequence[Shape]]:
    """Shapes that every kernel is tried at, and those that only the best are, each from little work to much."""
    if rate != "memory":
        return (*FIRST_SHAPES, *RANKING_SHAPES), OTHER_SHAPES
    buffer = min(max(BUFFER_BYTES, CACHE_MULTIPLE * last_level_bytes()), LARGEST_BUFFER)
    blocks = [memory_case("", "", block, buffer) for block in (LARGEST_BLOCK // 4, LARGEST_BLOCK)]
    shapes = [(case.rows, case.inner, case.columns) for case in blocks]
    return shapes[:1], shapes[1:]


def _held(case: Case) -> int:
    """What caches hold of the memory that this case reads: the GPU's, or those of the cores of this process."""
    if case.library.startswith(PREFIX):
        return cuda_kernels.cache_bytes()
    return held_bytes(set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else {0})
