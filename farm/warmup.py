"""When a cell is steady: two adjacent windows of calls agree, after a minimum of calls and time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median, variance

LEAST_CALLS = 3
LEAST_NS = 1_000_000_000
"""At least 3 calls and 1 s: thread pools, page faults, caches and clocks settle within the first second."""

MOST_NS = 2_000_000_000
MOST_CALLS = 5_000
"""The cap. A cell that is still changing after 2 s is measured all the same, and marked as not steady."""

WINDOW_CALLS = 2
"""The smallest window that shows how much calls differ among themselves."""

AGREEMENT = 0.01
"""Two windows whose medians differ by less than 1 % are taken for steady."""

NOISE_FACTOR = 2.0
"""So are windows whose medians differ by less than twice the standard error of that difference: on a machine where
single calls differ by 15 %, medians of a few calls never agree within 1 %, however warm the cell is."""


def windows_agree(latencies_ns: Sequence[int]) -> bool:
    """Whether the last two windows of calls show no change beyond their noise.

    A window holds a quarter of all calls. The very first call, which initializes lazily, belongs to none.
    """
    calls = latencies_ns[1:]
    window = max(WINDOW_CALLS, len(calls) // 4)
    if len(calls) < 2 * window:
        return False
    late, early = calls[-window:], calls[-2 * window : -window]
    change = abs(median(late) - median(early))
    return change <= max(AGREEMENT * median(early), NOISE_FACTOR * _standard_error(late, early))


def is_steady(latencies_ns: Sequence[int]) -> bool:
    """Whether warm-up may end because the latency has settled."""
    enough = len(latencies_ns) >= LEAST_CALLS and sum(latencies_ns) >= LEAST_NS
    # Calls below 0.2 ms reach the most calls before the least time.
    return (enough or len(latencies_ns) >= MOST_CALLS) and windows_agree(latencies_ns)


def is_capped(latencies_ns: Sequence[int]) -> bool:
    """Whether warm-up must end whether or not the latency has settled. Two windows are waited for in any case."""
    judged = len(latencies_ns) > 2 * WINDOW_CALLS
    return (judged and sum(latencies_ns) >= MOST_NS) or len(latencies_ns) >= MOST_CALLS


def _standard_error(late: Sequence[int], early: Sequence[int]) -> float:
    """Of the difference of two windows' means, from how calls differ within them (a trend within one counts too)."""
    return math.sqrt((variance(late) + variance(early)) / len(late))
