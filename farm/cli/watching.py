"""Who is told of a run beside the screen: the file that `farm status` reads and, on a cluster, Ray's metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from farm.addresses import named_place
from farm.events import Listener


@contextmanager
def watched(screen: Listener, results: str, metrics: bool) -> Iterator[Listener]:
    """One listener for all of them; `metrics` on a cluster. Raises RequestError where there cannot be results at that
    address."""
    from farm.job_log import Together
    from farm.logbook import UPLOAD_EVERY_S
    from farm.progress import WRITE_EVERY_S, ProgressFile

    beside_turns = "://" in named_place(results) and not metrics
    every_s = UPLOAD_EVERY_S if beside_turns else WRITE_EVERY_S
    kept = ProgressFile(results, aside=metrics or beside_turns, every_s=every_s)
    listeners: list[Listener] = [screen, kept]
    if metrics:
        from farm.metrics import Metrics

        listeners.append(Metrics())
    try:
        yield Together(tuple(listeners))
    finally:
        kept.end()
