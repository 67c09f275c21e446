"""Turns are timed in samples long enough for the clock, after calls that are thrown away."""

from __future__ import annotations

import gc

import pytest

from farm.timing import SHORTEST_SAMPLE_NS, TURN_CALLS, TURN_NS, calls_per_sample, samples_per_turn, time_turn, turn_s


@pytest.mark.parametrize("call_ns", [1_000_000, 1_000_001, 5e6, 3e9])
def test_a_call_of_a_millisecond_or_more_is_a_sample_of_its_own(call_ns: float) -> None:
    assert calls_per_sample(call_ns) == 1


@pytest.mark.parametrize("call_ns", [0.0, 1.0, 250.0, 333_333.0, 999_999.0])
def test_shorter_calls_are_batched_until_the_sample_is_long_enough(call_ns: float) -> None:
    calls = calls_per_sample(call_ns)
    assert calls > 1
    assert calls * max(call_ns, 1.0) >= SHORTEST_SAMPLE_NS > (calls - 1) * call_ns


@pytest.mark.parametrize(("call_ns", "samples"), [(1e6, 100), (3e6, 34), (20e6, TURN_CALLS), (2e9, TURN_CALLS)])
def test_a_turn_has_samples_enough_for_its_least_number_and_time(call_ns: float, samples: int) -> None:
    assert samples_per_turn(call_ns) == samples
    assert turn_s(call_ns) == pytest.approx(samples * call_ns / 1e9)


def test_a_turn_of_batched_calls_lasts_its_least_time_too() -> None:
    for call_ns in (100.0, 40_000.0, 700_000.0):
        assert samples_per_turn(call_ns) * calls_per_sample(call_ns) * call_ns >= TURN_NS


def test_inputs_rotate_and_the_rewarm_is_not_timed() -> None:
    called: list[str] = []
    turn = time_turn(called.append, ["a", "b", "c"], samples=5, batch=1, rewarm_calls=2)
    assert called == ["a", "b", *"abcab"]
    assert len(turn.latency_ns) == 5
    assert turn.calls_per_sample == 1


def test_a_batched_sample_repeats_one_input() -> None:
    called: list[str] = []
    turn = time_turn(called.append, ["a", "b"], samples=3, batch=4, rewarm_calls=1)
    assert called == ["a", *"aaaabbbbaaaa"]
    assert len(turn.latency_ns) == 3
    assert turn.calls_per_sample == 4


class Clock:
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made_up = Clock()
    monkeypatch.setattr("farm.timing.time.perf_counter_ns", made_up)
    return made_up


def test_a_sample_is_the_time_of_one_call(clock: Clock) -> None:
    costs = iter([9_999, 10, 20, 30])  # the first is the re-warm's

    def call(_: object) -> None:
        clock.now += next(costs)

    turn = time_turn(call, [0], samples=3, batch=1)
    assert turn.latency_ns == (10, 20, 30)
    assert turn.wall_ns == 60


def test_a_batched_sample_is_the_time_of_one_of_its_calls(clock: Clock) -> None:
    def call(_: object) -> None:
        clock.now += 70

    turn = time_turn(call, [0], samples=2, batch=5)
    assert turn.latency_ns == (70, 70)
    assert turn.wall_ns == 700


def test_garbage_is_not_collected_while_timing() -> None:
    states: list[bool] = []
    time_turn(lambda _: states.append(gc.isenabled()), [0], samples=3, batch=1, rewarm_calls=1)
    assert states == [True, False, False, False]
    assert gc.isenabled()


def test_garbage_is_collected_again_after_a_call_that_raised() -> None:
    calls = 0

    def call(_: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        time_turn(call, [0], samples=3, batch=1)
    assert gc.isenabled()


def test_a_devices_own_time_is_kept_of_every_sample_and_none_of_the_calls_thrown_away() -> None:
    on_device: list[int] = []

    def collect() -> int:
        counted = sum(on_device)
        on_device.clear()
        return counted

    turn = time_turn(lambda _: on_device.append(30), [0], samples=2, batch=4, rewarm_calls=9, device_ns=collect)
    assert turn.device_ns == (30, 30)
    assert time_turn(lambda _: None, [0], samples=2, batch=1).device_ns == ()
