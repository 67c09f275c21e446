"""Asynchronous work is run to its end, also where a loop is running already, as in a notebook."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from farm.loops import run_to_end


def test_work_is_run_where_no_loop_is_running() -> None:
    seen = []

    async def work() -> None:
        seen.append(threading.current_thread())

    run_to_end(work())
    assert seen == [threading.main_thread()]


def test_work_is_run_beside_a_running_loop() -> None:
    seen = []

    async def work() -> None:
        await asyncio.sleep(0)
        seen.append(True)

    async def notebook() -> None:
        run_to_end(work())

    asyncio.run(notebook())
    assert seen == [True]


def test_what_the_work_raises_reaches_a_notebook() -> None:
    async def work() -> None:
        raise ValueError("wrong")

    async def notebook() -> None:
        run_to_end(work())

    with pytest.raises(ValueError, match="wrong"):
        asyncio.run(notebook())


def test_an_interrupted_notebook_waits_until_the_work_has_tidied_up() -> None:
    tidied = []

    async def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(600)
        finally:
            tidied.append(True)

    # The handler that IPython has: the interruption is raised where the main thread waits.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    loop = asyncio.new_event_loop()

    async def notebook() -> None:
        run_to_end(work())

    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(notebook())
    finally:
        loop.close()
        signal.signal(signal.SIGINT, before)
    assert tidied == [True]


def test_a_polite_request_to_end_is_an_interruption() -> None:
    async def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(600)

    with pytest.raises(KeyboardInterrupt):
        run_to_end(work())
