"""Who is told of a run beside the screen: the file that `farm status` reads and, on a cluster, Ray's metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from farm.events import Listener


@contextmanager
def watched(screen: Listener, results: str, metrics: bool) -> Iterator[Listener]:
    """One listener for all of them; `metrics` on a cluster. Raises RequestError where there cannot be results at that
    address."""
    from farm.job_log import Together
    from farm.progress import ProgressFile

    kept = ProgressFile(results, aside=metrics or "://" in results)
    listeners: list[Listener] = [screen, kept]
    if metrics:
        from farm.metrics import Metrics

        listeners.append(Metrics())
    try:
        yield Together(tuple(listeners))
    finally:
        kept.end()
