"""Blocked order: all turns of one cell, then all of the next, as most benchmarks do. To see what rounds save.

The turns are put together into rounds afterwards, so that whatever follows is the same in both orders.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from farm.events import Listener, Step
from farm.records import Failure, Round
from farm.stopping import Allowance


async def take_blocks(
    cohort: Any,
    order: Sequence[str],
    allowance: Allowance,
    *,
    fail: Callable[[str, Failure], None],
    listener: Listener,
) -> list[Round]:
    """Let the cells of a cohort (a handle of its CohortProcess) take all their turns in this order, each in one go.

    The first one takes as many as its part of the allowance allows, the others as many as that. `fail` is told of a
    cell that falls out; what it raises ends the measurement.
    """
    wanted: int | None = None
    part = allowance.divided(len(order))

    def another(rounds_s: Sequence[float], elapsed_s: float) -> bool:
        return part.another_round(rounds_s, 0, elapsed_s) if wanted is None else len(rounds_s) < wanted

    blocks: list[list[Round]] = []
    for number, cell in enumerate(order):
        listener.on(Step("measure", number, len(order), cell))
        block, failures = await _take_block(cohort, cell, another)
        blocks.append(block)
        for name, failure in failures.items():
            fail(name, failure)
        if wanted is None and not failures:
            wanted = len(block)
    return merge_blocks(blocks)


def merge_blocks(blocks: Sequence[Sequence[Round]]) -> list[Round]:
    """The rounds of blocked order, ascending: each holds the turns that all blocks took under its number.

    A block is what one cell was asked for before the next one began: rounds with that cell alone, numbered from 0. A
    cell that fell out has a shorter block and no turn in the later rounds.
    """
    numbers = sorted({each.number for block in blocks for each in block})
    return [_merge([each for block in blocks for each in block if each.number == number]) for number in numbers]


async def _take_block(
    cohort: Any, cell: str, another: Callable[[Sequence[float], float], bool]
) -> tuple[list[Round], dict[str, Failure]]:
    """One cell's turns until there need not be `another` or it falls out."""
    started, block = time.monotonic(), list[Round]()
    failures: dict[str, Failure] = {}
    while not failures and another([each.wall_ns / 1e9 for each in block], time.monotonic() - started):
        done, failures = await cohort.round.remote(len(block), (cell,))
        block.append(done)
    return block, failures


def _merge(parts: Sequence[Round]) -> Round:
    """Rounds of one number, in the order they were taken; the first says when it started and the machine's rates."""
    return Round(
        number=parts[0].number,
        started_unix_ns=parts[0].started_unix_ns,
        order=tuple(cell for part in parts for cell in part.order),
        turns={cell: turn for part in parts for cell, turn in part.turns.items()},
        wall_ns=sum(part.wall_ns for part in parts),
        rates=parts[0].rates,
    )
