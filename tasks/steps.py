"""Named steps of preparing an artifact: a method says what it is doing, and its time is counted there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

WHOLE = "prepare"
"""The only step of a method that names none."""

OTHER = "other"
"""What a method that names steps does between them, such as importing its exporter."""


class _Record:
    def __init__(self, clock: Callable[[], float]) -> None:
        self.seconds: dict[str, float] = {}
        self._clock = clock
        self._name = OTHER
        self._since = clock()

    def enter(self, name: str) -> str:
        """Count the time from now on under this name; returns the one it was counted under."""
        now = self._clock()
        self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._since
        self.seconds.setdefault(name, 0.0)
        before, self._name, self._since = self._name, name, now
        return before


_record: ContextVar[_Record | None] = ContextVar("record", default=None)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Count the time spent inside under `name`, as in `with step("export"): ...` in a method's `prepare`.

    Steps of one name add up; the time of a step inside another is its own alone. Where nobody records, nothing happens.
    """
    record = _record.get()
    if record is None:
        yield
        return
    before = record.enter(name)
    try:
        yield
    finally:
        record.enter(before)


@contextmanager
def recorded_steps(clock: Callable[[], float] = time.perf_counter) -> Iterator[dict[str, float]]:
    """Record the steps of what runs inside: seconds by name, in the order in which they began, filled in at the end.

    They sum to the whole time: `other` has what no step had, and stands alone as `prepare` where no step was named.
    """
    record = _Record(clock)
    token = _record.set(record)
    found: dict[str, float] = {}
    try:
        yield found
    finally:
        _record.reset(token)
        record.enter(OTHER)
        named = {name: seconds for name, seconds in record.seconds.items() if name != OTHER}
        found |= named | {OTHER if named else WHOLE: record.seconds[OTHER]}
