"""Running asynchronous work to its end, where a loop may be running already: a notebook has one."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any


def run_to_end(work: Coroutine[Any, Any, None]) -> None:
    """Run it in a loop of its own, in a thread beside the loop that this one has.

    A polite request to end (from `timeout`, a batch system, a shutdown) is treated like Ctrl-C: the work is cancelled,
    and when it has tidied up, KeyboardInterrupt is raised.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        try:
            asyncio.run(_until_terminated(work))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
    else:
        _run_beside(work)


async def _until_terminated(work: Coroutine[Any, Any, None]) -> None:
    running = asyncio.current_task()
    if running is not None and threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    await work


def _run_beside(work: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.new_event_loop()
    task = loop.create_task(work)
    ended: Future[None] = Future()

    def live() -> None:
        try:
            loop.run_until_complete(task)
            ended.set_result(None)
        except BaseException as error:
            ended.set_exception(error)
        finally:
            loop.close()

    thread = threading.Thread(target=live, name="farm")
    thread.start()
    try:
        ended.result()
    except KeyboardInterrupt:  # in the notebook, whose thread waits here
        loop.call_soon_threadsafe(task.cancel)
        raise
    finally:
        thread.join()
