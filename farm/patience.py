"""Asking once more what a store refused for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from farm.errors import ResultsError

READ_DELAYS_S = (0.2, 1.0)
"""Waits before something is read again: a network's hiccup is over by then, and who asks for a table waits for it."""

T = TypeVar("T")


def patiently(read: Callable[[], T]) -> T:
    """What `read` gives. Raises the ResultsError of the last try."""
    for delay_s in READ_DELAYS_S:
        try:
            return read()
        except ResultsError:
            time.sleep(delay_s)
    return read()
