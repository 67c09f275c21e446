"""Running asynchronous work to its end, where a loop may be running already: a notebook has one."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, wait
from typing import Any, TypeVar

T = TypeVar("T")


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """What it returns. Run in a loop of its own; where this thread has a running one, in a thread beside it.

    A polite request to end (from `timeout`, a batch system, a shutdown) is treated like Ctrl-C: the work is cancelled,
    and when it has tidied up, KeyboardInterrupt is raised.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        try:
            return asyncio.run(_until_terminated(work))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
    return _run_beside(work)


async def _until_terminated(work: Coroutine[Any, Any, T]) -> T:
    running = asyncio.current_task()
    if running is not None and threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    return await work


def _run_beside(work: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.new_event_loop()
    task = loop.create_task(work)
    ended: Future[T] = Future()

    def live() -> None:
        try:
            ended.set_result(loop.run_until_complete(task))
        except BaseException as error:
            ended.set_exception(error)
        finally:
            loop.close()

    try:
        threading.Thread(target=live, name="farm").start()
        return ended.result()
    except KeyboardInterrupt:  # in the notebook, whose thread waits here
        loop.call_soon_threadsafe(task.cancel)
        wait([ended])
        raise
