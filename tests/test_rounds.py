"""A cohort runs several rounds when asked once, and answers early where it must."""

from __future__ import annotations

import time
from typing import Any

from farm.cohort import CohortProcess
from farm.records import Failure, Round

ORDERS = [("a", "b"), ("b", "a"), ("a", "b"), ("b", "a")]


class Rounds(CohortProcess):
    """Rounds that take some time, of which one may lose a cell."""

    def __init__(self, round_s: float = 0.0, fails_in: int | None = None) -> None:
        self._round_s, self._fails_in = round_s, fails_in

    def round(self, number: int, order: Any) -> tuple[Round, dict[str, Failure]]:
        time.sleep(self._round_s)
        failures = {"b": Failure("failed", "gone")} if number == self._fails_in else {}
        return Round(number, 0, tuple(order), {}, 1, {}), failures


def test_all_rounds_are_run_in_the_orders_given() -> None:
    done, failures = Rounds().rounds(6, ORDERS, for_s=60.0)
    assert [(each.number, each.order) for each in done] == list(enumerate(ORDERS, 6))
    assert failures == {}


def test_a_cell_that_falls_out_ends_the_request_for_the_next_round_is_without_it() -> None:
    done, failures = Rounds(fails_in=1).rounds(0, ORDERS, for_s=60.0)
    assert [each.number for each in done] == [0, 1]
    assert set(failures) == {"b"}


def test_a_request_ends_with_the_round_in_which_its_time_does() -> None:
    done, _ = Rounds(round_s=0.05).rounds(0, ORDERS, for_s=0.0)
    assert len(done) == 1
