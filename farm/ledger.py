"""The replicas of a run as they are published: each once, with what they show of how many more are needed."""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from farm import speedups, stats
from farm.errors import FarmError, ResultsError
from farm.events import Notice, ReplicaDone
from farm.records import Cohort
from farm.replica import Bench
from farm.rows import ReplicaLog, RunIdentity, build_rows
from farm.schedule import Job, Schedule
from farm.stopping import known_parts
from farm.store import Store
from farm.variance import VarianceParts

PUBLISH_DELAYS_S = (0.5, 2.0, 5.0)
"""Waits before a failed publication is tried again: a network folder that hiccups is back within seconds."""


class StoreLedger:
    """Publishes to a store. What later decisions need of unfinished cohorts is kept in memory: the store is read once,
    when a run is continued, so that a replica costs the same however many there are."""

    def __init__(self, store: Store, bench: Bench, identity: RunIdentity) -> None:
        self._store = store
        self._bench = bench
        self._identity = identity
        self.before = frozenset(store.published(identity.run))
        """What was published before this session, by cohort and replica."""
        self._same_within = speedups.same_within(store, identity.run)
        self._measured: defaultdict[str, list[pa.Table]] = defaultdict(list)
        if self.before:
            self._read_back()

    async def adopt(self, job: Job, schedule: Schedule) -> bool:
        """Whether another farm published this replica meanwhile; then it is finished."""
        if not await asyncio.to_thread(self._store.has_replica, self._identity.run, *job.key):
            return False
        await self._read_again(job.cohort)
        self._finish(job, schedule)
        return True

    def parts(self, cohort: Cohort) -> VarianceParts:
        """What this cohort's published replicas tell of how rounds and processes differ."""
        measured = [[np.asarray(rounds) for rounds in row["log_ratios"]] for row in self._rows(cohort)]
        return known_parts(measured, self._bench.effort.pilot)

    def decide(self, cohorts: Iterable[Cohort], schedule: Schedule) -> None:
        """Ask for as many replicas as the noise of cohorts needs whose pilot is complete: decided once, by Stein."""
        effort = self._bench.effort
        if effort.most_replicas == effort.replicas:
            return
        for cohort in cohorts:
            for row in self._rows(cohort):
                pilot = [sum(rounds) / len(rounds) for rounds in row["log_ratios"]][: effort.pilot]
                if len(pilot) == effort.pilot:
                    limits = (effort.half_width, effort.replicas, effort.most_replicas)
                    schedule.want(cohort, stats.stein_replicas(pilot, *limits))

    async def publish(self, job: Job, log: ReplicaLog, schedule: Schedule) -> None:
        """Publish one replica; if the folder refuses for good, keep it elsewhere and raise FarmError."""
        rows = build_rows(log, self._identity)
        if await self._write(job, rows):
            self._measured[job.cohort.cohort].append(speedups.rows_for_speedups(rows))
        else:
            remedy = "its result stands, and this one is thrown away; let one farm continue a run"
            self._bench.listener.on(Notice(f"another farm published replica {job.replica} of {job.key[0]}", remedy))
            await self._read_again(job.cohort)
        self._finish(job, schedule)

    def _finish(self, job: Job, schedule: Schedule) -> None:
        """In one step: nobody may see the job finished and not yet what it asks for."""
        cohort = job.cohort
        schedule.finish(job)
        self.decide([cohort], schedule)
        counts = (schedule.wanted(cohort), schedule.done, schedule.total)
        self._bench.listener.on(ReplicaDone(cohort, job.replica, *counts, tuple(self._derive(cohort))))
        if len(self._measured[cohort.cohort]) >= schedule.wanted(cohort):
            del self._measured[cohort.cohort]

    async def _read_again(self, cohort: Cohort) -> None:
        """Another farm is at work on this cohort, too: only the store knows all of it."""
        published = (self._store, self._identity.run, cohort.cohort)
        self._measured[cohort.cohort] = [await asyncio.to_thread(speedups.read_for_speedups, *published)]

    async def _write(self, job: Job, rows: Sequence[dict[str, Any]]) -> bool:
        """Whether this farm published it, rather than another one before."""
        run = self._identity.run
        for delay_s in (*PUBLISH_DELAYS_S, None):
            try:
                return await asyncio.to_thread(self._store.publish_replica, run, *job.key, rows)
            except ResultsError as error:
                if delay_s is None:
                    # Not a ResultsError any more: by now things were measured, and the exit code must not deny it.
                    raise FarmError(f"{error}\n{_keep_elsewhere(run, job, rows)}") from error
                await asyncio.sleep(delay_s)
        raise AssertionError("the last delay is None")

    def _read_back(self) -> None:
        table = speedups.read_for_speedups(self._store, self._identity.run)
        for cohort in map(str, pc.unique(table["cohort"]).to_pylist()):
            self._measured[cohort].append(table.filter(pc.equal(table["cohort"], pa.scalar(cohort))))

    def _derive(self, cohort: Cohort) -> list[dict[str, Any]]:
        tables = self._measured.get(cohort.cohort)
        if not tables:
            return []
        pilot = self._bench.effort.pilot
        derived = speedups.derive_speedups(pa.concat_tables(tables), self._same_within, pilot=pilot, checked=False)
        rows: list[dict[str, Any]] = derived.to_pylist()
        return rows

    def _rows(self, cohort: Cohort) -> list[dict[str, Any]]:
        """The cohort's cells that have ratios."""
        return [row for row in self._derive(cohort) if row["log_ratios"]]


def _keep_elsewhere(run: str, job: Job, rows: Sequence[dict[str, Any]]) -> str:
    """Save rows that could not be published to a folder of their own; say where they are."""
    folder = Path(tempfile.mkdtemp(prefix="farm-unpublished-"))
    Store(folder).publish_replica(run, *job.key, rows)
    return (
        f"the replica that could not be written is kept in {folder}; "
        "copy its measurements folder over the results folder, or run the same command again"
    )
