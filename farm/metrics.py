"""A run in numbers for Ray's own dashboard and Prometheus, through `ray.util.metrics`.

Only on a cluster: the private one collects no metrics, as nobody reads them there and collecting wakes cores up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property

from ray.util.metrics import Counter, Gauge

from farm.events import AttemptFailed, CellFailed, Event, NodeLost, ReplicaBegan, ReplicaDone, RunBegan

_TAGS = ("run",)


class Metrics:
    """Publishes what happens."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: dict[tuple[str, int], tuple[float, str]] = {}
        self._done = self._total = 0
        self._share: float | None = None
        self._tags: dict[str, str] = {}

    def on(self, event: Event) -> None:
        """Publish what an event changes."""
        match event:
            case RunBegan():
                self._tags = {"run": event.run}
                self._done, self._total = event.done, event.total
            case ReplicaBegan():
                self._began[event.cohort.cohort, event.replica] = (self._clock(), event.slot.node_id)
            case AttemptFailed():
                self._began.pop((event.cohort.cohort, event.replica), None)
            case NodeLost():
                self._began = {key: begun for key, begun in self._began.items() if begun[1] != event.node_id}
            case CellFailed():
                self._cells_failed.inc(tags=self._tags)
            case ReplicaDone():
                self._done, self._total = event.done, event.total
                self._replica_done(event)
        self._show_gauges()

    def _show_gauges(self) -> None:
        """Tell gauges again and again: Ray forgets one that was not set for some seconds."""
        if not self._tags:
            return
        self._queue.set(max(0, self._total - self._done - len(self._began)), tags=self._tags)
        if self._share is not None:
            self._turn_share.set(self._share, tags=self._tags)

    def _replica_done(self, event: ReplicaDone) -> None:
        self._cells_done.inc(len(event.cohort.cells), tags=self._tags)
        if event.tainted_turns:  # a counter of Ray's refuses to be increased by nothing
            self._turns_tainted.inc(event.tainted_turns, tags=self._tags)
        begun = self._began.pop((event.cohort.cohort, event.replica), None)
        if begun is not None and event.turn_ns:
            self._share = event.turn_ns / 1e9 / max(self._clock() - begun[0], 1e-9)

    @cached_property
    def _cells_done(self) -> Counter:
        return Counter("farm_cells_done", "Cells of published cohort replicas, failed ones included", _TAGS)

    @cached_property
    def _cells_failed(self) -> Counter:
        return Counter("farm_cells_failed", "Cells that failed", _TAGS)

    @cached_property
    def _turns_tainted(self) -> Counter:
        return Counter("farm_turns_tainted", "Turns that a guard saw disturbed", _TAGS)

    @cached_property
    def _queue(self) -> Gauge:
        return Gauge("farm_queue_length", "Cohort replicas that wait for a slot", _TAGS)

    @cached_property
    def _turn_share(self) -> Gauge:
        return Gauge("farm_turn_share", "Share of the newest replica's time, preparing included, that was turns", _TAGS)
