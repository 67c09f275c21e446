"""Preparing is timed by the steps that a method names, and all of its time is somewhere."""

from __future__ import annotations

import pytest

from tasks.steps import recorded_steps, step


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_steps_stand_in_the_order_of_their_beginning_and_sum_to_the_whole() -> None:
    clock = Clock()
    with recorded_steps(clock) as found:
        clock.now += 1
        with step("export"):
            clock.now += 5
        with step("fuse"):
            clock.now += 3
        with step("export"):
            clock.now += 2
    assert found == {"export": 7, "fuse": 3, "other": 1}
    assert list(found) == ["export", "fuse", "other"]


def test_a_method_that_names_no_step_has_one() -> None:
    clock = Clock()
    with recorded_steps(clock) as found:
        clock.now += 4
    assert found == {"prepare": 4}


def test_the_time_of_an_inner_step_is_its_own_alone() -> None:
    clock = Clock()
    with recorded_steps(clock) as found, step("quantize"):
        clock.now += 1
        with step("calibrate"):
            clock.now += 10
        clock.now += 2
    assert found == {"quantize": 3, "calibrate": 10, "other": 0}


def test_a_step_that_fails_is_over() -> None:
    clock = Clock()
    with recorded_steps(clock) as found:
        with pytest.raises(RuntimeError), step("export"):
            clock.now += 1
            raise RuntimeError
        clock.now += 2
    assert found == {"export": 1, "other": 2}


def test_a_step_that_nobody_records_does_no_harm() -> None:
    with step("export"):
        pass
    with recorded_steps(Clock()) as found:
        pass
    assert found == {"prepare": 0}
