"""Work that nobody times, on several cells of a cohort at once where that saves time: making and judging artifacts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from farm.records import Cell, Device

AT_ONCE: Mapping[Device, int] = {"cpu": 1, "cuda": 6}
"""On a CPU one cell's work keeps every core busy. For a GPU it keeps a core or two busy with a compiler and the GPU
idle: one after the other, the methods of a whole suite would take an hour, of which the GPU works minutes."""


async def side_by_side(cells: Sequence[Cell], work: Callable[[int, Cell], Awaitable[None]], device: Device) -> None:
    """Do `work` for each cell (given its place and itself), begun in their order. What one raises ends all the others.

    Raises that, and not a group of it.
    """
    free = asyncio.Semaphore(AT_ONCE[device])

    async def one(number: int, cell: Cell) -> None:
        async with free:
            await work(number, cell)

    try:
        async with asyncio.TaskGroup() as group:
            for number, cell in enumerate(cells):
                group.create_task(one(number, cell))
    except* Exception as errors:
        raise errors.exceptions[0] from None
