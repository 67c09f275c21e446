"""Workers that found nothing to do: told when there may be something, as many of them as there are jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


class Idlers:
    """Each waits for a future of its own, and says what it would do now."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], Callable[[], Sequence[Any]]] = {}

    @contextmanager
    def join(self, next_to_work: Callable[[], Sequence[Any]]) -> Iterator[asyncio.Future[None]]:
        """A future that is done when there may be work, of which `next_to_work` says whether it is the caller's."""
        told = asyncio.get_running_loop().create_future()
        self._waiting[told] = next_to_work
        try:
            yield told
        finally:
            del self._waiting[told]

    def tell(self, jobs: int) -> None:
        """Wake as many as there are jobs that are new to them."""
        for told, next_to_work in list(self._waiting.items()) if jobs else ():
            if not told.done() and next_to_work():
                told.set_result(None)
                jobs -= 1
            if not jobs:
                return

    def tell_all(self) -> None:
        """Wake all that would do something now."""
        self.tell(len(self._waiting))

    def dismiss(self) -> None:
        """Nothing is left to do for anybody."""
        for told in self._waiting:
            told.cancel()
