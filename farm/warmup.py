"""When a cell is steady: two adjacent windows of calls agree, after a minimum of calls and time."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

LEAST_CALLS = 3
LEAST_NS = 1_000_000_000
"""At least 3 calls and 1 s: thread pools, page faults, caches and clocks settle within the first second."""

MOST_NS = 2_000_000_000
MOST_CALLS = 5_000
"""The cap. A cell that is still changing after 2 s is measured all the same, and marked as not steady."""

WINDOW_CALLS = 3
AGREEMENT = 0.01
"""Two windows whose medians differ by less than 1 % are taken for steady."""


def windows_agree(latencies_ns: Sequence[int]) -> bool:
    """Whether the medians of the last two windows of calls agree. A window holds a quarter of all calls."""
    window = max(WINDOW_CALLS, len(latencies_ns) // 4)
    if len(latencies_ns) < 2 * window:
        return False
    late, early = median(latencies_ns[-window:]), median(latencies_ns[-2 * window : -window])
    return abs(late - early) <= AGREEMENT * early


def is_steady(latencies_ns: Sequence[int]) -> bool:
    """Whether warm-up may end because the latency has settled."""
    enough = len(latencies_ns) >= LEAST_CALLS and sum(latencies_ns) >= LEAST_NS
    # Calls below 0.2 ms reach the most calls before the least time.
    return (enough or len(latencies_ns) >= MOST_CALLS) and windows_agree(latencies_ns)


def is_capped(latencies_ns: Sequence[int]) -> bool:
    """Whether warm-up must end whether or not the latency has settled."""
    return sum(latencies_ns) >= MOST_NS or len(latencies_ns) >= MOST_CALLS
