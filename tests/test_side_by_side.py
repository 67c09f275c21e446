"""Untimed work on several cells at once: how many, in which order, and what a failure does to the others."""

from __future__ import annotations

import asyncio

import pytest

from farm.records import Cell, Device, Workload
from farm.side_by_side import AT_ONCE, side_by_side

CELLS = [
    Cell(f"c{number}", "candidate", f"c{number}", "control-null", "fp32", Workload("cuda", 1, 1, 8))
    for number in range(9)
]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_as_many_run_at_once_as_the_device_bears(device: Device) -> None:
    running, most, begun = 0, 0, []

    async def work(number: int, cell: Cell) -> None:
        nonlocal running, most
        begun.append((number, cell.cell))
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    asyncio.run(side_by_side(CELLS, work, device))
    assert most == AT_ONCE[device]
    assert begun == [(number, cell.cell) for number, cell in enumerate(CELLS)]


def test_who_wants_to_be_alone_comes_last_and_is() -> None:
    running: set[int] = set()
    beside: dict[int, int] = {}

    async def work(number: int, _: Cell) -> None:
        running.add(number)
        await asyncio.sleep(0)
        beside[number] = len(running) - 1
        running.discard(number)

    asyncio.run(side_by_side(CELLS, work, "cuda", alone=lambda cell: cell.name in {"c0", "c4"}))
    assert list(beside)[-2:] == [0, 4]
    assert beside[0] == beside[4] == 0
    assert beside[1] > 0


def test_what_one_raises_ends_the_others_and_is_what_is_raised() -> None:
    ended: list[int] = []

    async def work(number: int, _: Cell) -> None:
        if number == 1:
            raise KeyError("lost")
        await asyncio.sleep(3600)
        ended.append(number)

    with pytest.raises(KeyError, match="lost"):
        asyncio.run(side_by_side(CELLS, work, "cuda"))
    assert not ended
