"""What the kernel counts around a turn becomes reasons to distrust it; what it does not count stays unknown."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace

import pytest

from farm.counters import TICK_NS, ThreadWaits
from farm.guards import ADVICE, Disturbance, Snapshot, Watch, advice, disturbance, taint_reasons

OWN = 50
TURN_NS = 300_000_000
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def nothing_happened(**known: object) -> Disturbance:
    unknown: dict[str, object] = {field.name: None for field in fields(Disturbance)}
    return Disturbance(**{**unknown, "wall_ns": TURN_NS, "slot_ns": 2 * TURN_NS, **known})  # type: ignore[arg-type]


UNKNOWN = Snapshot(0, None, None, None, None, None, {}, None, None, None)


def turn(before: Snapshot, after: Snapshot, cores: int = 2) -> Disturbance:
    """The disturbance of a turn of 300 ms between these readings."""
    return disturbance(replace(before, taken_ns=0), replace(after, taken_ns=TURN_NS), cores)


def test_foreign_time_is_what_neither_the_cell_nor_the_farm_used() -> None:
    before = replace(UNKNOWN, busy_ns=(0, 10**9), cell_cpu_ns=0, own_cpu_ns={OWN: 5})
    busy_ns = (200_000_000, 10**9 + 300_000_000)
    after = replace(UNKNOWN, busy_ns=busy_ns, cell_cpu_ns=290_000_000, own_cpu_ns={OWN: 30_000_005})
    seen = turn(before, after)
    assert seen.foreign_ratio == pytest.approx(0.3)
    assert seen.own_ratio == pytest.approx(0.1)


def test_foreign_time_is_never_negative() -> None:
    before = replace(UNKNOWN, busy_ns=(0, 0), cell_cpu_ns=0)
    assert turn(before, replace(UNKNOWN, busy_ns=(300, 290), cell_cpu_ns=600)).foreign_ratio == 0


def test_foreign_time_is_unknown_without_the_cells_own() -> None:
    assert turn(replace(UNKNOWN, busy_ns=(0,)), replace(UNKNOWN, busy_ns=(TURN_NS,))).foreign_ratio is None


@pytest.mark.parametrize(("use", "tainted_in"), [(0.5, 0.015), (0.8, 0.015), (1.0, 0.0)])
def test_sampling_of_partly_idle_cores_seldom_taints(use: float, tainted_in: float) -> None:
    """A kernel that looks 250 times a second sees a cell busy in a share of its looks, and rounds to ticks."""
    chance = random.Random(20)
    turns, tainted = 2_000, 0
    for _ in range(turns):
        started = [chance.random() * TICK_NS for _ in range(2)]
        seen_ns = [first + 4_000_000 * sum(chance.random() < use for _ in range(75)) for first in started]
        busy_ns = tuple(int(each // TICK_NS) * TICK_NS for each in seen_ns)
        before = replace(UNKNOWN, busy_ns=(0, 0), cell_cpu_ns=0)
        after = replace(UNKNOWN, busy_ns=busy_ns, cell_cpu_ns=int(2 * TURN_NS * use))
        tainted += bool(taint_reasons(turn(before, after)))
    assert tainted / turns <= tainted_in


def test_foreign_time_is_seen_beside_a_cell_that_keeps_its_cores_half_busy() -> None:
    before = replace(UNKNOWN, busy_ns=(0, 0), cell_cpu_ns=0)
    after = replace(UNKNOWN, busy_ns=(TURN_NS, TURN_NS // 2), cell_cpu_ns=TURN_NS)
    assert taint_reasons(turn(before, after)) == ("foreign-cpu",)


def test_own_processes_that_came_or_went_during_the_turn_are_left_out() -> None:
    seen = turn(replace(UNKNOWN, own_cpu_ns={1: 0, 2: 0}), replace(UNKNOWN, own_cpu_ns={2: TURN_NS // 100, 3: 10**12}))
    assert seen.own_ratio == pytest.approx(0.01)


def test_a_cell_that_died_during_its_turn_makes_its_counters_unknown() -> None:
    before = replace(UNKNOWN, cell_cpu_ns=5, major_faults=1, threads={1: ThreadWaits(1, 1, 1)})
    seen = turn(before, UNKNOWN)
    assert (seen.cell_cpu_ns, seen.major_faults, seen.involuntary_switches, seen.run_delay_ns) == (None,) * 4


# Reasons


@pytest.mark.parametrize(
    ("known", "reasons"),
    [
        ({}, ()),
        ({"steal_ratio": 0.5, "throttled_ns": 1}, ("steal", "throttled")),
        ({"foreign_ratio": 0.06}, ("foreign-cpu",)),
        ({"foreign_ratio": 0.049}, ()),
        ({"throttled_ns": 0, "major_faults": 0}, ()),
        ({"major_faults": 1}, ("major-faults",)),
        ({"involuntary_switches": 10**6, "run_delay_ns": 10**9, "pressure_ratio": 1.0, "own_ratio": 1.0}, ()),
    ],
)
def test_a_turn_is_distrusted_for_causes_and_not_for_symptoms(
    known: dict[str, object], reasons: tuple[str, ...]
) -> None:
    assert taint_reasons(nothing_happened(**known)) == reasons


@pytest.mark.parametrize("wall_ns", [100_000_000, 300_000_000])
@pytest.mark.parametrize("share", ["steal_ratio", "foreign_ratio"])
def test_rounding_to_ticks_does_not_taint_a_short_turn(wall_ns: int, share: str) -> None:
    for ticks, tainted in ((1, False), (2, False), (4, True)):
        slot_ns = 2 * wall_ns
        seen = nothing_happened(wall_ns=wall_ns, slot_ns=slot_ns, **{share: ticks * TICK_NS / slot_ns})
        assert bool(taint_reasons(seen)) == tainted


def test_a_tick_more_on_each_core_taints_no_short_turn() -> None:
    before = replace(UNKNOWN, busy_ns=(0, 0), steal_ns=0, cell_cpu_ns=0)
    after = replace(UNKNOWN, busy_ns=(10 * TICK_NS, 10 * TICK_NS), steal_ns=2 * TICK_NS, cell_cpu_ns=18 * TICK_NS)
    seen = disturbance(before, replace(after, taken_ns=10 * TICK_NS), 2)
    assert seen.steal_ratio == seen.foreign_ratio == pytest.approx(0.1)
    assert taint_reasons(seen) == ()


def test_every_reason_comes_with_advice() -> None:
    everything = nothing_happened(steal_ratio=1.0, foreign_ratio=1.0, throttled_ns=1, major_faults=1)
    assert taint_reasons(everything) == tuple(ADVICE)
    assert all(":" in advice(reason) for reason in ADVICE)
    assert "from-the-future" in advice("from-the-future")


# Real processes

SPIN = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); print(flush=True)\nwhile True: pass"
SLEEP = "import sys, time; print(flush=True); time.sleep(60)"


@contextmanager
def child(program: str, core: int = 0) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", program, str(core)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.communicate()


@LINUX
def test_another_process_on_the_slot_is_seen() -> None:
    core = min(os.sched_getaffinity(0))
    with child(SLEEP) as cell, child(SPIN, core):
        guard = Watch([core])
        before = guard.snapshot(cell)
        time.sleep(0.5)
        seen = disturbance(before, guard.snapshot(cell), 1)
    # Whoever else uses the machine may take most of the core from the other process, but is foreign as well.
    assert seen.foreign_ratio is not None
    assert seen.foreign_ratio + (seen.steal_ratio or 0) > 0.5
    assert set(taint_reasons(seen)) & {"foreign-cpu", "steal"}


@LINUX
def test_what_the_cell_or_the_farm_itself_uses_is_not_foreign() -> None:
    core = min(os.sched_getaffinity(0))
    with child(SPIN, core) as cell, child(SPIN, core) as own:
        guard = Watch([core], [own])
        before = guard.snapshot(cell)
        time.sleep(0.5)
        after = guard.snapshot(cell)
    counted = disturbance(before, after, 1)
    alone = disturbance(replace(before, own_cpu_ns={}), replace(after, own_cpu_ns={}), 1)
    assert counted.cell_cpu_ns
    assert counted.own_ratio
    assert alone.foreign_ratio is not None
    assert counted.foreign_ratio == pytest.approx(max(alone.foreign_ratio - counted.own_ratio, 0), abs=1e-9)


@LINUX
def test_a_cell_that_shares_its_core_is_switched_and_waits() -> None:
    core = min(os.sched_getaffinity(0))
    with child(SPIN, core) as cell, child(SPIN, core):
        guard = Watch([core])
        before = guard.snapshot(cell)
        time.sleep(0.5)
        seen = disturbance(before, guard.snapshot(cell), 1)
    assert seen.involuntary_switches is None or seen.involuntary_switches > 0
    assert seen.run_delay_ns is None or seen.run_delay_ns > 0


@LINUX
def test_a_stopped_cell_uses_no_cpu_time() -> None:
    with child(SPIN, min(os.sched_getaffinity(0))) as cell:
        os.kill(cell, signal.SIGSTOP)
        os.waitid(os.P_PID, cell, os.WSTOPPED)
        guard = Watch([0])
        before = guard.snapshot(cell)
        time.sleep(0.1)
        assert disturbance(before, guard.snapshot(cell), 1).cell_cpu_ns == 0


@LINUX
def test_the_cells_clock_counts_all_its_threads_the_ended_ones_too() -> None:
    program = (
        "import threading, time\n"
        "def spin():\n"
        "    while time.thread_time() < 0.05: pass\n"
        "threads = [threading.Thread(target=spin) for _ in range(3)]\n"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
        "print(flush=True); time.sleep(60)"
    )
    with child(program) as cell:
        seen = Watch([0]).snapshot(cell)
    assert seen.cell_cpu_ns is not None
    assert seen.cell_cpu_ns >= 150_000_000


def test_a_process_that_is_gone_is_unknown() -> None:
    with child(SLEEP) as cell:
        pass
    seen = Watch([0], [cell]).snapshot(cell)
    assert (seen.cell_cpu_ns, seen.major_faults, seen.own_cpu_ns) == (None, None, {})
