"""The replicas of a run as they are published: each once, with what they show of how many more are needed."""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cached_property, partial
from itertools import chain, repeat
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from farm import speedups, stats
from farm.bench import Bench
from farm.errors import FarmError, ResultsError, after_measuring
from farm.events import Notice, ReplicaDone
from farm.folders import Place
from farm.records import Cohort
from farm.rows import ReplicaLog, RunIdentity, build_rows
from farm.schedule import Job, Schedule
from farm.stopping import known_parts
from farm.store import Store
from farm.variance import VarianceParts

RETRY_DELAYS_S = (0.5, 2.0, 5.0, 15.0, 30.0)
"""Waits before the results are tried again; the last one again and again."""

PATIENCE_S = 10.0
"""How long a folder may refuse: one on a network that hiccups is back within seconds, and a full disk is not."""

CLUSTER_PATIENCE_S = 1800.0
"""The same on a cluster, where giving up ends the work of every node: a store's outage is mostly over by then."""

T = TypeVar("T")


class StoreLedger:
    """Publishes to a store. Of unfinished cohorts what later decisions need is kept in memory, so that a replica costs
    the same however many there are. Where a run is continued that is log ratios alone, until their cohort goes on."""

    def __init__(self, store: Store, bench: Bench, identity: RunIdentity, patience_s: float = PATIENCE_S) -> None:
        """After `patience_s` of a store that refuses, publishing gives up."""
        self._store = store
        self._bench = bench
        self._identity = identity
        self._patience_s = patience_s
        published = store.published(identity.run)
        self.before = frozenset(published)
        """What was published before this farm began, by cohort and replica."""
        self._same_within = speedups.same_within(store, identity.run)
        self._measured: defaultdict[str, list[pa.Table]] = defaultdict(list)
        self._ratios: dict[str, list[list[stats.FloatArray]]] = {}
        self._earlier: defaultdict[str, list[Place]] = defaultdict(list)
        for (cohort, _), place in published.items():
            self._earlier[cohort].append(place)
        for cohort, places in self._earlier.items():
            self._learn(cohort, self._derive(speedups.read_parts(store, places, cohort)))
        self._recalling = asyncio.Lock()
        self._refused = False
        self._gave_up = False

    async def adopt(self, job: Job, schedule: Schedule) -> bool:
        """Whether another farm published this replica meanwhile; then it is finished."""
        if not await self.insist(partial(self._store.has_replica, self._identity.run, *job.key)):
            return False
        await self._read_again(job.cohort)
        self._finish(job, schedule)
        return True

    def parts(self, cohort: Cohort) -> VarianceParts:
        """What this cohort's published replicas tell of how rounds and processes differ."""
        return known_parts(self._ratios.get(cohort.cohort, ()), self._bench.effort.pilot)

    def decide(self, cohorts: Iterable[Cohort], schedule: Schedule) -> None:
        """Ask for as many replicas as the noise of cohorts needs whose pilot is complete: decided once, by Stein."""
        effort = self._bench.effort
        for cohort in cohorts:
            for ratios in self._ratios.get(cohort.cohort, ()) if effort.most_replicas > effort.replicas else ():
                pilot = [float(np.mean(rounds)) for rounds in ratios[: effort.pilot]]
                if len(pilot) == effort.pilot:
                    limits = (effort.half_width, effort.replicas, effort.most_replicas)
                    schedule.want(cohort, stats.stein_replicas(pilot, *limits))
            if len(self._earlier.get(cohort.cohort, ())) >= schedule.wanted(cohort):
                self._forget(cohort)

    async def publish(self, job: Job, log: ReplicaLog, schedule: Schedule) -> None:
        """Publish one replica; if the store refuses for good, keep it elsewhere and raise FarmError. One that is
        cancelled meanwhile is published or kept all the same: it is measured."""
        rows = build_rows(log, self._identity)
        if await self._write(job, rows):
            await self._recall(job.cohort)
            self._measured[job.cohort.cohort].append(speedups.rows_for_speedups(rows))
        else:
            remedy = "its result stands, and this one is thrown away; let one farm continue a run"
            self._tell(f"another farm published replica {job.replica} of {job.key[0]}", remedy)
            await self._read_again(job.cohort)
        self._finish(job, schedule, log)

    def _finish(self, job: Job, schedule: Schedule, log: ReplicaLog | None = None) -> None:
        """In one step: nobody may see the job finished and not yet what it asks for."""
        cohort = job.cohort
        schedule.finish(job)
        tables = self._measured.get(cohort.cohort, [])
        derived = self._derive(pa.concat_tables(tables)) if tables else []
        self._learn(cohort.cohort, derived)
        self.decide([cohort], schedule)
        counts = (schedule.wanted(cohort), schedule.done, schedule.total)
        turns = _turns(log) if log else (0, 0)
        self._bench.listener.on(ReplicaDone(cohort, job.replica, *counts, tuple(derived), *turns))
        replicas = sum(pc.count_distinct(table["replica"]).as_py() for table in tables)
        if replicas >= schedule.wanted(cohort):
            self._forget(cohort)

    async def _recall(self, cohort: Cohort) -> None:
        """Read what was published of a cohort before this farm began, when it goes on."""
        async with self._recalling:
            places = self._earlier.get(cohort.cohort)
            if places:
                table = await self.insist(partial(speedups.read_parts, self._store, places, cohort.cohort))
                self._measured[cohort.cohort].insert(0, table)
                del self._earlier[cohort.cohort]

    async def _read_again(self, cohort: Cohort) -> None:
        """Another farm is at work on this cohort, too: only the store knows all of it."""
        published = (self._store, self._identity.run, cohort.cohort)
        async with self._recalling:
            self._measured[cohort.cohort] = [await self.insist(partial(speedups.read_for_speedups, *published))]
            self._earlier.pop(cohort.cohort, None)

    async def _write(self, job: Job, rows: Sequence[dict[str, Any]]) -> bool:
        """Whether this farm published it, rather than another one before."""
        put = partial(self._store.publish_replica, self._identity.run, *job.key, rows)
        try:
            return await self.insist(put)
        except asyncio.CancelledError:
            # The run ends, or the node it was measured on went.
            kept = await asyncio.to_thread(self._put_or_keep, job, rows)
            if kept:
                self._tell(kept)
            raise
        except FarmError as error:
            self._gave_up = True
            raise FarmError(f"{error}\n{self._keep(job, rows)}") from error

    async def insist(self, ask: Callable[[], T]) -> T:
        """What the store answers, asked again while it refuses. Raises FarmError when patience is at its end."""
        clock = asyncio.get_running_loop().time
        began = clock()
        for delay_s in chain(RETRY_DELAYS_S, repeat(RETRY_DELAYS_S[-1])):
            try:
                answer = await asyncio.to_thread(ask)
            except ResultsError as error:
                if clock() - began + delay_s > self._patience_s:
                    with after_measuring():
                        raise
                if not self._refused:
                    self._refused = True
                    self._tell(str(error), f"tried again for up to {self._patience_s:.0f} s; what is measured waits")
                await asyncio.sleep(delay_s)
            else:
                if self._refused:
                    self._refused = False
                    self._tell("the results can be reached again")
                return answer
        raise AssertionError("the delays do not end")

    def _put_or_keep(self, job: Job, rows: Sequence[dict[str, Any]]) -> str:
        """Publish a replica by the one try that there is time for, else keep it elsewhere and say where."""
        if not self._gave_up:
            with suppress(ResultsError):
                self._store.publish_replica(self._identity.run, *job.key, rows)
                return ""
        return self._keep(job, rows)

    def _keep(self, job: Job, rows: Sequence[dict[str, Any]]) -> str:
        """Save rows that could not be published to a folder of their own; say where they are, or that they are lost."""
        try:
            kept = self._kept
            kept.publish_replica(self._identity.run, *job.key, rows)
        except (ResultsError, OSError) as error:
            return f"the replica that could not be written could not be kept elsewhere either, and is lost: {error}"
        return (
            f"the replica that could not be written is kept in {kept.root}; "
            "copy its measurements folder over the results folder, or run the same command again"
        )

    @cached_property
    def _kept(self) -> Store:
        return Store(tempfile.mkdtemp(prefix="farm-unpublished-"))

    def _tell(self, message: str, remedy: str = "") -> None:
        self._bench.listener.on(Notice(message, remedy))

    def _derive(self, table: pa.Table) -> list[dict[str, Any]]:
        pilot = self._bench.effort.pilot
        rows: list[dict[str, Any]] = speedups.derive_speedups(
            table, self._same_within, pilot=pilot, checked=False
        ).to_pylist()
        return rows

    def _learn(self, cohort: str, derived: Iterable[dict[str, Any]]) -> None:
        """Keep the log ratios of the cells that have any."""
        with_ratios = [row["log_ratios"] for row in derived if row["log_ratios"]]
        self._ratios[cohort] = [[np.asarray(rounds) for rounds in ratios] for ratios in with_ratios]

    def _forget(self, cohort: Cohort) -> None:
        """No decision needs a complete cohort any more."""
        self._measured.pop(cohort.cohort, None)
        self._ratios.pop(cohort.cohort, None)
        self._earlier.pop(cohort.cohort, None)


def _turns(log: ReplicaLog) -> tuple[int, int]:
    """Nanoseconds of turns in a replica, and how many of its turns were disturbed."""
    turn_ns = sum(turn.wall_ns for each in log.rounds for turn in each.turns.values())
    return turn_ns, sum(len(each.turns) for each in log.rounds if each.taint_reasons)
