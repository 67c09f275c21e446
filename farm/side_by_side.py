"""Work that nobody times, on several cells of a cohort at once where that saves time: making and judging artifacts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from farm.records import Cell, Device

AT_ONCE: Mapping[Device, int] = {"cpu": 1, "cuda": 8}
"""On a CPU one cell's work keeps every core busy. For a GPU it keeps a core or two busy with a compiler and the GPU
idle: one after the other, the methods of a whole suite would take an hour, of which the GPU works minutes."""


async def side_by_side(
    cells: Sequence[Cell],
    work: Callable[[int, Cell], Awaitable[None]],
    device: Device,
    alone: Callable[[Cell], bool] = lambda _: False,
) -> None:
    """Do `work` for each cell (given its place and itself), begun in their order; what one raises ends all the others.

    Cells that want to be `alone` come last, one at a time. Raises what was raised, and not a group of it.
    """
    numbered = list(enumerate(cells))
    await _at_once([each for each in numbered if not alone(each[1])], work, AT_ONCE[device])
    await _at_once([each for each in numbered if alone(each[1])], work, 1)


async def _at_once(
    numbered: Sequence[tuple[int, Cell]], work: Callable[[int, Cell], Awaitable[None]], most: int
) -> None:
    free = asyncio.Semaphore(most)

    async def one(number: int, cell: Cell) -> None:
        async with free:
            await work(number, cell)

    try:
        async with asyncio.TaskGroup() as group:
            for number, cell in numbered:
                group.create_task(one(number, cell))
    except* Exception as errors:
        raise errors.exceptions[0] from None
