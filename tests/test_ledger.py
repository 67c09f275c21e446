"""Replicas are published once, whoever is first; what is published decides how many more are needed."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from made_up import MODEL, SLOT, plan_of, suite_of
from measured import RUN, run_record, simulated_cohort
from simulated_cluster import Told

from farm.bench import Bench
from farm.budget import Budget
from farm.errors import FarmError, ResultsError
from farm.events import Notice, ReplicaDone
from farm.grounds import failed_log
from farm.ledger import PATIENCE_S, StoreLedger
from farm.records import Cohort, Failure, Round, Turn
from farm.rows import RunIdentity
from farm.schedule import Job, Schedule
from farm.stopping import EFFORTS
from farm.store import Store

COHORTS = plan_of(suite_of(lengths=[64, 128])).cohorts
IDENTITY = RunIdentity(RUN, "simulated", "full", MODEL, {})
DEAD = Failure("failed", "the process died")


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farm.ledger.RETRY_DELAYS_S", (0.01,))
    monkeypatch.setattr("farm.patience.READ_DELAYS_S", (0.0,))


def _ledger(
    folder: Path, effort: str = "quick", told: Told | None = None, patience_s: float = PATIENCE_S
) -> StoreLedger:
    store = Store(folder)
    if not store.runs():
        store.write_run(run_record(suite={"name": "simulated", "effort": effort, "same_within": 0.03}))
    chosen = EFFORTS[effort]
    bench = Bench(suite_of(), MODEL, chosen, {}, None, told or Told(), Budget(chosen, None))
    return StoreLedger(store, bench, IDENTITY, patience_s)


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
    schedule = Schedule(COHORTS, 1)
    job = _taken(schedule)
    publish, refused = Store.publish_replica, tmp_path / "results"

    def refusing(store: Store, *arguments: Any) -> bool:
        if store.root == refused:
            raise ResultsError("the disk is full")
        return publish(store, *arguments)

    monkeypatch.setattr(Store, "publish_replica", refusing)
    ledger = _ledger(tmp_path / "results", patience_s=0.05)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(FarmError, match=r"the disk is full\n.* is kept in .*farm-unpublished-"):
        _publish(ledger, job, schedule)
    (kept,) = tmp_path.glob("farm-unpublished-*")
    assert set(Store(kept).published(RUN)) == {job.key}
    assert schedule.done == 0


def test_a_folder_that_hiccups_gets_the_replica_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, schedule = Told(), Schedule(COHORTS, 1)
    ledger = _ledger(tmp_path, told=told)
    job, answers = _taken(schedule), [True, True, False]
    publish = Store.publish_replica

    def hiccup(store: Store, *arguments: Any) -> bool:
        if answers.pop(0):
            raise ResultsError("try again")
        return publish(store, *arguments)

    monkeypatch.setattr(Store, "publish_replica", hiccup)
    _publish(ledger, job, schedule)
    assert set(Store(tmp_path).published(RUN)) == {job.key}
    messages = [event.message for event in told.events if isinstance(event, Notice)]
    assert messages == ["try again", "the results can be reached again"]


@pytest.mark.parametrize("refusing", ["has_replica", "read_measurements"])
def test_a_store_that_hiccups_before_a_replica_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusing: str
) -> None:
    schedule = Schedule(COHORTS, 1)
    job, ledger, answers = _taken(schedule), _ledger(tmp_path), [True, True]
    _measured(tmp_path, job.cohort, replicas=1)
    ordinary = getattr(Store, refusing)

    def hiccup(*arguments: Any, **options: Any) -> Any:
        if answers and answers.pop():
            raise ResultsError("try again")
        return ordinary(*arguments, **options)

    monkeypatch.setattr(Store, refusing, hiccup)
    assert asyncio.run(ledger.adopt(job, schedule))
    assert not answers


@pytest.mark.parametrize("store_comes_back", [True, False])
def test_a_replica_that_waits_for_its_store_when_the_run_ends_is_published_or_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_comes_back: bool
) -> None:
    told, schedule = Told(), Schedule(COHORTS, 1)
    job, ledger, away = _taken(schedule), _ledger(tmp_path / "results", told=told), True
    publish, root = Store.publish_replica, tmp_path / "results"

    def refusing(store: Store, *arguments: Any) -> bool:
        if store.root == root and away:
            raise ResultsError("the store is away")
        return publish(store, *arguments)

    monkeypatch.setattr(Store, "publish_replica", refusing)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def cancelled() -> None:
        nonlocal away
        publishing = asyncio.create_task(ledger.publish(job, failed_log(job, SLOT, DEAD), schedule))
        while not told.events:
            await asyncio.sleep(0.01)
        away = not store_comes_back
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing

    asyncio.run(cancelled())
    kept = [Path(each) for each in tmp_path.glob("farm-unpublished-*")]
    (holding,) = [tmp_path / "results"] if store_comes_back else kept
    assert set(Store(holding).published(RUN)) == {job.key}
    assert any("is kept in" in event.message for event in told.events if isinstance(event, Notice)) == bool(kept)


def test_a_continued_run_keeps_no_samples_in_memory_and_yet_tells_of_every_replica(tmp_path: Path) -> None:
    _ledger(tmp_path, "standard")
    for cohort in COHORTS:
        _measured(tmp_path, cohort, replicas=4)
    before = pa.total_allocated_bytes()
    told = Told()
    ledger = _ledger(tmp_path, "standard", told)
    gc.collect()
    assert pa.total_allocated_bytes() <= before
    schedule = Schedule(COHORTS, 5, done=ledger.before)
    ledger.decide(COHORTS, schedule)
    _publish(ledger, _taken(schedule), schedule)
    (done,) = [event for event in told.events if isinstance(event, ReplicaDone)]
    assert {row["replicas"] for row in done.speedups} == {4, 1}  # the simulated cells have names of their own


def test_what_a_replica_took_is_told_with_it(tmp_path: Path) -> None:
    told, schedule = Told(), Schedule(COHORTS, 1)
    job = _taken(schedule)
    log = failed_log(job, SLOT, DEAD)
    quiet, disturbed = Turn((7,), 1, 7, 7), Turn((7,), 1, 7, 7, taint_reasons=("steal",))
    first, second = (cell.cell for cell in job.cohort.cells[:2])
    for number, turns in enumerate([{first: quiet, second: quiet}, {first: disturbed}]):
        log.rounds.append(Round(number, 1, tuple(turns), turns, 14))
    asyncio.run(_ledger(tmp_path, told=told).publish(job, log, schedule))
    (done,) = [event for event in told.events if isinstance(event, ReplicaDone)]
    assert (done.turn_ns, done.tainted_turns) == (3 * 7, 1)


def test_a_packed_slot_is_marked_in_the_rows(tmp_path: Path) -> None:
    schedule = Schedule(COHORTS, 1)
    job = _taken(schedule)
    log = failed_log(job, replace(SLOT, packed=True), DEAD)
    asyncio.run(_ledger(tmp_path).publish(job, log, schedule))
    assert Store(tmp_path).read_measurements(RUN, ["packed"])["packed"].to_pylist() == [True] * 4
