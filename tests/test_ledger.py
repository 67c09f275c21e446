"""Replicas are published once, whoever is first; what is published decides how many more are needed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import MODEL, SLOT, plan_of, suite_of
from measured import RUN, run_record, simulated_cohort
from simulated_cluster import Told

from farm.budget import Budget
from farm.errors import FarmError, ResultsError
from farm.events import Notice, ReplicaDone
from farm.grounds import failed_log
from farm.ledger import StoreLedger
from farm.records import Cohort, Failure
from farm.replica import Bench
from farm.rows import RunIdentity
from farm.schedule import Job, Schedule
from farm.stopping import EFFORTS
from farm.store import Store

COHORTS = plan_of(suite_of(lengths=[64, 128])).cohorts
IDENTITY = RunIdentity(RUN, "simulated", "full", MODEL, {})
DEAD = Failure("failed", "the process died")


def _ledger(folder: Path, effort: str = "quick", told: Told | None = None) -> StoreLedger:
    store = Store(folder)
    if not store.runs():
        store.write_run(run_record(suite={"name": "simulated", "effort": effort, "same_within": 0.03}))
    chosen = EFFORTS[effort]
    bench = Bench(suite_of(), MODEL, chosen, {}, None, told or Told(), Budget(chosen, None))
    return StoreLedger(store, bench, IDENTITY)


def _publish(ledger: StoreLedger, job: Job, schedule: Schedule) -> None:
    asyncio.run(ledger.publish(job, failed_log(job, SLOT, DEAD), schedule))


def _taken(schedule: Schedule) -> Job:
    job = schedule.take(SLOT)
    assert job is not None
    return job


def _measured(folder: Path, cohort: Cohort, replicas: int, spread: float = 0.0) -> None:
    """Publish sound replicas of a cohort, as an earlier session would have."""
    for replica in range(replicas):
        factor = float(np.exp(spread * (-1) ** replica))
        rows = simulated_cohort(64, replica, speedups={"pytorch": 1.0, "quantized": 2.0 * factor})
        own = [row | {"cohort": cohort.cohort, "run": RUN} for row in rows]
        Store(folder).publish_replica(RUN, cohort.cohort, replica, own)


def test_a_replica_is_published_and_finished_and_told(tmp_path: Path) -> None:
    told, schedule = Told(), Schedule(COHORTS, 1)
    job = _taken(schedule)
    _publish(_ledger(tmp_path, told=told), job, schedule)
    assert set(Store(tmp_path).published(RUN)) == {job.key}
    (done,) = [event for event in told.events if isinstance(event, ReplicaDone)]
    assert (done.done, done.total, {row["status"] for row in done.speedups}) == (1, 2, {"failed"})


def test_a_replica_that_another_farm_published_first_stays_as_it_is(tmp_path: Path) -> None:
    told, schedule = Told(), Schedule(COHORTS, 1)
    job = _taken(schedule)
    ledger = _ledger(tmp_path, told=told)
    _measured(tmp_path, job.cohort, replicas=1)
    before = Store(tmp_path).part_path(RUN, *job.key)
    content = before.read_bytes()
    _publish(ledger, job, schedule)
    assert before.read_bytes() == content
    assert schedule.done == 1
    assert any("another farm published" in event.message for event in told.events if isinstance(event, Notice))


def test_what_another_farm_published_is_adopted_and_counts(tmp_path: Path) -> None:
    schedule = Schedule(COHORTS, 1)
    job, ledger = _taken(schedule), _ledger(tmp_path)
    assert not asyncio.run(ledger.adopt(job, schedule))
    _measured(tmp_path, job.cohort, replicas=1)
    assert asyncio.run(ledger.adopt(job, schedule))
    assert schedule.done == 1


@pytest.mark.parametrize(("spread", "wanted"), [(0.0, 5), (0.2, 10)])
def test_a_continued_run_decides_by_what_was_published_before(tmp_path: Path, spread: float, wanted: int) -> None:
    _ledger(tmp_path, "standard")
    _measured(tmp_path, COHORTS[0], replicas=5, spread=spread)
    ledger = _ledger(tmp_path, "standard")
    schedule = Schedule(COHORTS, 5, done=ledger.before)
    ledger.decide(COHORTS, schedule)
    assert schedule.wanted(COHORTS[0]) == wanted
    assert schedule.wanted(COHORTS[1]) == 5
    assert schedule.done == 5


def test_what_is_known_of_the_noise_comes_from_what_is_published(tmp_path: Path) -> None:
    _ledger(tmp_path)
    _measured(tmp_path, COHORTS[0], replicas=5, spread=0.1)
    ledger = _ledger(tmp_path)
    assert ledger.parts(COHORTS[0]).between > 4 * ledger.parts(COHORTS[1]).between


def test_a_folder_that_refuses_for_good_gets_nothing_and_the_replica_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, schedule = _ledger(tmp_path / "results"), Schedule(COHORTS, 1)
    job = _taken(schedule)
    publish, refused = Store.publish_replica, tmp_path / "results"

    def refusing(store: Store, *arguments: Any) -> bool:
        if store.root == refused:
            raise ResultsError("the disk is full")
        return publish(store, *arguments)

    monkeypatch.setattr(Store, "publish_replica", refusing)
    monkeypatch.setattr("farm.ledger.PUBLISH_DELAYS_S", (0.0, 0.0))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(FarmError, match=r"the disk is full\n.* is kept in .*farm-unpublished-"):
        _publish(ledger, job, schedule)
    (kept,) = tmp_path.glob("farm-unpublished-*")
    assert set(Store(kept).published(RUN)) == {job.key}
    assert schedule.done == 0


def test_a_folder_that_hiccups_gets_the_replica_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, schedule = _ledger(tmp_path), Schedule(COHORTS, 1)
    job, answers = _taken(schedule), [True, True, False]
    publish = Store.publish_replica

    def hiccup(store: Store, *arguments: Any) -> bool:
        if answers.pop(0):
            raise ResultsError("try again")
        return publish(store, *arguments)

    monkeypatch.setattr(Store, "publish_replica", hiccup)
    monkeypatch.setattr("farm.ledger.PUBLISH_DELAYS_S", (0.0, 0.0))
    _publish(ledger, job, schedule)
    assert set(Store(tmp_path).published(RUN)) == {job.key}


def test_a_packed_slot_is_marked_in_the_rows(tmp_path: Path) -> None:
    schedule = Schedule(COHORTS, 1)
    job = _taken(schedule)
    log = failed_log(job, replace(SLOT, packed=True), DEAD)
    asyncio.run(_ledger(tmp_path).publish(job, log, schedule))
    assert Store(tmp_path).read_measurements(RUN, ["packed"])["packed"].to_pylist() == [True] * 4
