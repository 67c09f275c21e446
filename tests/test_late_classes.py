"""A run is finished when all is measured of every hardware class that belongs to it, whenever it joined."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made_up import MACHINE, MODEL, SLOT, plan_of, suite_of
from measured import measured_row
from simulated_cluster import Told

from farm.driver import _finish, _LatePlanner
from farm.errors import FarmError
from farm.events import Notice
from farm.plan import Plan
from farm.records import Slot
from farm.runs import OpenRun, of_unfinished, open_run
from farm.store import Store

RED = replace(SLOT, hardware_class="red")
ENVIRONMENT = {"libraries": {"torch": "1"}}
ALL = suite_of(hardware="all", methods=["control-null", "control-work"], threads=[1, 4])


def _open(store: Store, plan: Plan) -> OpenRun:
    return open_run(store, plan, ENVIRONMENT, "farm run")


def _planner(store: Store, opened: OpenRun, plan: Plan) -> tuple[_LatePlanner, Told]:
    told = Told()
    bench: Any = SimpleNamespace(listener=told, plan_for=lambda _: None)
    cluster: Any = SimpleNamespace(machines={name: replace(MACHINE, hardware_class=name) for name in ("plain", "red")})
    return _LatePlanner(store, opened.record, plan, bench, cluster), told


def _session(store: Store, first: Sequence[Slot], late: Sequence[Slot], unfinished: Collection[str]) -> OpenRun:
    """A session that begins with the first class, meets the late one, and leaves some unfinished."""
    plan = plan_of(ALL, slots=tuple(first))
    opened = _open(store, plan)
    planner, _ = _planner(store, opened, plan)
    if late:
        assert planner.plan_for(late)
    planner.note(set(unfinished))
    return opened


def test_a_missing_class_that_joins_later_and_is_wholly_measured_finishes_the_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    begun = _session(store, [SLOT, RED], [], unfinished=["plain", "red"])
    continued = _session(store, [SLOT], [RED], unfinished=[])
    assert continued.record.run == begun.record.run
    _finish(store, continued)
    assert store.run(begun.record.run).finished_unix_ns is not None


def test_a_class_that_joined_late_and_is_half_measured_keeps_the_run_unfinished(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _session(store, [SLOT], [RED], unfinished=["plain", "red"])
    without = _session(store, [SLOT], [], unfinished=[])
    with pytest.raises(FarmError, match="what needs nodes of class red"):
        _finish(store, without)
    assert store.run(without.record.run).finished_unix_ns is None


def test_a_class_that_was_wholly_measured_before_need_not_come_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _session(store, [SLOT, RED], [], unfinished=["plain"])
    _finish(store, _session(store, [SLOT], [], unfinished=[]))


def test_what_of_a_late_class_is_left_out_is_told(tmp_path: Path) -> None:
    plan = plan_of(ALL)
    planner, told = _planner(Store(tmp_path), _open(Store(tmp_path), plan), plan)
    cohorts = planner.plan_for([replace(RED, cores=(0,))])
    assert {cohort.workload.threads for cohort in cohorts} == {1}
    assert told.events == [Notice("4 threads on red is left out", "it has 1 core")]


def test_any_hardware_goes_on_where_an_unfinished_run_began_whatever_has_most_slots_now(tmp_path: Path) -> None:
    store, suite = Store(tmp_path), suite_of(hardware="any")
    begun = _open(store, plan_of(suite, slots=(RED,)))
    now = [SLOT, replace(SLOT, node_id="another"), RED]
    assert of_unfinished(store, suite, MODEL, now, ENVIRONMENT) == [RED]
    assert of_unfinished(store, suite, MODEL, now[:2], ENVIRONMENT) == now[:2]
    assert of_unfinished(store, suite_of(hardware="any", lengths=[16]), MODEL, now, ENVIRONMENT) == now
    store.finish_run(begun.record.run)
    assert of_unfinished(store, suite, MODEL, now, ENVIRONMENT) == now


def test_a_run_of_which_a_part_was_damaged_meanwhile_is_not_finished(tmp_path: Path) -> None:
    store = Store(tmp_path)
    opened = _session(store, [SLOT], [], unfinished=[])
    store.publish_replica(opened.record.run, "c", 0, [measured_row("c", 0, "pytorch", 9.0, run=opened.record.run)])
    assert not store.damaged(opened.record.run)
    (part,) = (tmp_path / "measurements" / opened.record.run).glob("*.parquet")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 0xFF
    part.write_bytes(content)
    with pytest.raises(FarmError, match=r"damaged since they were written: c-0.parquet. Give the same command again"):
        _finish(store, opened)
    assert store.run(opened.record.run).finished_unix_ns is None
