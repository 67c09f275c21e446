"""Turns taken cell by cell become rounds like any others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from farm.blocks import merge_blocks, take_blocks
from farm.events import Silent
from farm.records import Failure, Round, Turn
from farm.stopping import EFFORTS, LEAST_ROUNDS, Allowance, Effort, known_parts

EFFORT = EFFORTS["quick"]


def turn(latency_ns: int) -> Turn:
    return Turn((latency_ns,), 1, latency_ns, latency_ns)


def block(cell: str, rounds: int, started: int = 0, fell_out: bool = False) -> list[Round]:
    """One cell's turns; where it fell out, the last one is missing."""
    return [
        Round(
            number,
            started + number,
            (cell,),
            {} if fell_out and number == rounds - 1 else {cell: turn(100 * (number + 1))},
            wall_ns=10,
            rates={"fp32": float(started + number)},
        )
        for number in range(rounds)
    ]


def test_a_round_holds_the_turns_of_its_number_in_the_order_of_the_blocks() -> None:
    merged = merge_blocks([block("b", 2), block("a", 2, started=50)])
    assert [each.number for each in merged] == [0, 1]
    assert [each.order for each in merged] == [("b", "a"), ("b", "a")]
    assert [{cell: found.latency_ns for cell, found in each.turns.items()} for each in merged] == [
        {"b": (100,), "a": (100,)},
        {"b": (200,), "a": (200,)},
    ]


def test_a_round_lasts_as_long_as_its_turns_together() -> None:
    assert [each.wall_ns for each in merge_blocks([block("a", 1), block("b", 1), block("c", 1)])] == [30]


def test_a_round_begins_with_its_first_turn_and_has_the_rates_of_then() -> None:
    (merged,) = merge_blocks([block("a", 1, started=7), block("b", 1, started=90)])
    assert (merged.started_unix_ns, merged.rates) == (7, {"fp32": 7.0})


def test_a_cell_that_fell_out_has_no_turn_in_later_rounds() -> None:
    merged = merge_blocks([block("a", 2, fell_out=True), block("b", 3, started=50)])
    assert [set(each.turns) for each in merged] == [{"a", "b"}, {"b"}, {"b"}]


def test_no_blocks_are_no_rounds() -> None:
    assert merge_blocks([]) == []


@dataclass
class MadeUpCohort:
    """Takes turns at once, each said to take `turn_s`; cells fail at the turn that `dies_at` names."""

    turn_s: float = 0.1
    dies_at: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)

    @property
    def round(self) -> Any:
        """As a Ray actor's method is called."""
        return SimpleNamespace(remote=self._round)

    async def _round(self, number: int, order: Sequence[str]) -> tuple[Round, dict[str, Failure]]:
        (cell,) = order
        self.asked.append((cell, number))
        if self.dies_at.get(cell) == number:
            return Round(number, 0, (cell,), {}, 1), {cell: Failure("failed", "it died")}
        return Round(number, 0, (cell,), {cell: turn(1)}, round(self.turn_s * 1e9)), {}


def take(cohort: MadeUpCohort, *cells: str, share_s: float | None = None, effort: Effort = EFFORT) -> list[Round]:
    """What was taken; cells that fell out are told to nobody."""
    return asyncio.run(
        take_blocks(
            cohort, cells, Allowance(effort, known_parts([]), 0.0, share_s), fail=lambda *_: None, listener=Silent()
        )
    )


def test_a_cell_takes_all_its_turns_before_the_next_one_begins() -> None:
    cohort = MadeUpCohort()
    rounds = take(cohort, "b", "a")
    most = EFFORT.most_rounds
    assert cohort.asked == [("b", number) for number in range(most)] + [("a", number) for number in range(most)]
    assert [len(each.turns) for each in rounds] == [2] * most


def test_the_first_cell_keeps_to_its_part_of_the_time_and_the_others_to_its_number() -> None:
    cohort = MadeUpCohort(turn_s=1.0)
    rounds = take(cohort, "a", "b", share_s=2.0)
    assert len(rounds) == LEAST_ROUNDS
    assert len(cohort.asked) == 2 * LEAST_ROUNDS


def test_a_first_cell_that_falls_out_does_not_decide_for_the_others() -> None:
    rounds = take(MadeUpCohort(dies_at={"a": 1}), "a", "b", "c")
    assert [set(each.turns) for each in rounds] == [{"a", "b", "c"}, *[{"b", "c"}] * (EFFORT.most_rounds - 1)]


def test_what_is_raised_for_a_cell_that_fell_out_ends_the_measurement() -> None:
    def fail(name: str, failure: Failure) -> None:
        raise RuntimeError(f"{name}: {failure.reason}")

    cohort = MadeUpCohort(dies_at={"a": 0})
    with pytest.raises(RuntimeError, match="a: it died"):
        asyncio.run(
            take_blocks(cohort, ("a", "b"), Allowance(EFFORT, known_parts([]), 0.0, None), fail=fail, listener=Silent())
        )
    assert cohort.asked == [("a", 0)]
