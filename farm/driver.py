"""The Ray driver: connects, plans, lets every slot measure what it can, publishes, continues what was cut short."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError

from farm import slots, speedups, stats
from farm.bench import lay_out
from farm.cohort import CohortProcess
from farm.errors import FarmError, RequestError, ResultsError
from farm.events import Listener, Notice, ReplicaDone, RunBegan, Silent, StepReporter
from farm.folders import Place
from farm.machine import describe_environment, describe_machine
from farm.plan import Plan, check_lengths, make_plan, resolve_devices
from farm.records import Cohort, Failure, Slot
from farm.replica import BaselineLostError, Bench, measure_replica, prepare_replica
from farm.rows import ReplicaLog, RunIdentity, build_rows
from farm.runs import OpenRun, open_run, set_damaged_aside
from farm.schedule import Job, Schedule, fits
from farm.stopping import Effort, budget_share, known_parts, replica_share_s, spendable_s, worth_starting
from farm.store import Store
from farm.suite import Suite
from farm.variance import VarianceParts
from tasks.models import read_architecture, resolve_model

MOST_ATTEMPTS = 3
"""Tries at one replica before its cells are published as failed."""

LOCK_POLL_S = 2.0
"""How often a slot that another farm holds is tried again."""

CLOSE_S = 15.0
"""How long a cohort may take to end its processes before it is killed with them."""

PUBLISH_DELAYS_S = (0.5, 2.0, 5.0)
"""Waits before a failed publication is tried again: a network folder that hiccups is back within seconds."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: where its results are, and how many cells failed or are invalid."""

    run: str
    root: Place
    failed_cells: int


def run_suite(
    suite: Suite,
    results: str | Place = "results",
    address: str | None = None,
    *,
    fresh: bool = False,
    command: str = "farm run",
    listener: Listener | None = None,
    effort: Effort | None = None,
) -> Outcome:
    """Measure a suite and publish its results under `results`; continues an unfinished run of the same request.

    `effort` replaces the one that the suite names, for who needs other numbers of rounds and replicas than users do.
    Raises RequestError before anything is measured where the request is wrong, ResultsError where results cannot be
    written, KeyboardInterrupt when interrupted: everything published by then is kept.
    """
    listener = listener or Silent()
    store = Store(results)
    if address is None:
        resolve_devices(suite, [describe_machine()])
    model = resolve_model(suite.model, StepReporter(listener))
    check_lengths(suite, model)
    bench = lay_out(suite, model, listener, effort)
    with slots.connected(address):
        nodes = _nodes()
        found = _slots_of(nodes, suite)
        plan = make_plan(suite, model, found, {node.machine.hardware_class: node.machine for node in nodes})
        opened = open_run(store, plan, describe_environment(), command, fresh)
        for device, reason in plan.left_out.items():
            listener.on(Notice(f"{device} is left out", reason))
        set_damaged_aside(store, opened.record.run, listener)
        try:
            asyncio.run(_Driver(store, plan, bench, opened, found).measure())
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
    store.finish_run(opened.record.run)
    table = speedups.rebuild(store, opened.record.run)
    failed = sum(status in ("failed", "invalid") for status in table["status"].to_pylist())
    return Outcome(opened.record.run, store.root, failed)


class _Driver:
    """Measures the replicas of one run that are not published yet."""

    def __init__(self, store: Store, plan: Plan, bench: Bench, opened: OpenRun, found: Sequence[Slot]) -> None:
        self._store = store
        self._bench = bench
        self._listener = bench.listener
        self._plan = plan
        bench.cohorts = plan.cohorts
        self._slots = found
        self._took_s: dict[str, list[float]] = {}
        self._opened = opened
        record = opened.record
        self._identity = RunIdentity(
            *(record.run, plan.suite.name, plan.suite.inputs, plan.model, record.environment),
            architecture=read_architecture(plan.model),
        )
        self._schedule = Schedule(plan.cohorts, bench.effort.replicas, done=store.published(record.run))
        for cohort in plan.cohorts:
            self._decide_replicas(cohort.cohort)

    async def measure(self) -> None:
        """Let every slot work until nothing is left that it could measure."""
        # A polite request to end (from `timeout`, a batch system, a shutdown) is treated like Ctrl-C.
        running = asyncio.current_task()
        if running is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
        done, total = len(self._store.published(self._identity.run)), self._schedule.total
        self._listener.on(RunBegan(self._identity.run, self._opened.continued, done, total, self._plan.cohorts))
        try:
            async with asyncio.TaskGroup() as group:
                for node_id in sorted({slot.node_id for slot in self._slots}):
                    group.create_task(self._work_node([slot for slot in self._slots if slot.node_id == node_id]))
        except* FarmError as errors:
            raise errors.exceptions[0] from errors  # the group's own wrapping means nothing to a user

    async def _work_node(self, own_slots: Sequence[Slot]) -> None:
        """Let the slots of one node work one after another: they share its cores, so each needs all of the node."""
        for slot in own_slots:
            if any(fits(cohort, slot) for cohort in self._plan.cohorts):
                await self._work(slot)

    async def _work(self, slot: Slot) -> None:
        """Reserve the slot once and measure replica after replica on it."""
        async with slots.reserve(slot) as group:
            while (job := self._schedule.take(slot)) is not None:
                if job.replica > 0 and not worth_starting(self._bench.left_s(), self._usual_s(job.cohort)):
                    self._listener.on(
                        Notice(
                            "the time budget ended before every replica was measured",
                            "intervals are wider than the effort aims at; give more time with --set budget_s=SECONDS",
                        )
                    )
                    return
                log = await self._try_replica(job, slot, group)
                await self._publish(job, log)

    async def _try_replica(self, job: Job, slot: Slot, group: Any) -> ReplicaLog:
        """Measure one replica, starting over where its baseline or its cohort's process is lost."""
        failure = Failure("failed", "not tried")
        for attempt in range(1, MOST_ATTEMPTS + 1):
            log = ReplicaLog(job.cohort, job.replica, attempt, slot)
            remote = ray.remote(CohortProcess).options(**slots.in_slot(group, slot))
            cohort = remote.remote(slot, self._bench.suite.limits, self._bench.effort.turn_calls)
            try:
                await self._lock(cohort, slot)
                await prepare_replica(log, cohort, self._bench)
                started = time.monotonic()
                await measure_replica(log, cohort, self._bench, self._share_s(job), self._parts(job))
                self._took_s.setdefault(job.cohort.cohort, []).append(time.monotonic() - started)
                return log
            except BaselineLostError as lost:
                failure = lost.failure
            except RayError as error:
                failure = Failure("failed", f"the cohort's process was lost: {str(error).splitlines()[0]}")
            finally:
                await _end(cohort)
            self._listener.on(Notice(f"attempt {attempt} of {job.cohort.cohort} failed: {failure.reason}"))
            if failure.status != "failed":
                break
        reason = f"the baseline failed: {failure.reason}"
        log.failures = {cell.cell: Failure(failure.status, reason, failure.tail) for cell in job.cohort.cells}
        return log

    async def _lock(self, cohort: Any, slot: Slot) -> None:
        """Wait until no other farm on that machine measures."""
        told = False
        while not await cohort.lock_slot.remote():
            if not told:
                self._listener.on(Notice(f"another farm is measuring on {slot.hostname}", "waiting until it is done"))
                told = True
            await asyncio.sleep(LOCK_POLL_S)

    def _share_s(self, job: Job) -> float | None:
        """Seconds of the budget that this replica may take."""
        waiting = self._schedule.waiting()
        pilot = any(each.replica < self._bench.effort.pilot for each in (job, *waiting))
        spendable = spendable_s(self._bench.effort, self._bench.budget_s, self._bench.left_s(), pilot)
        if spendable is None:
            return None
        same_kind = sum(fits(job.cohort, slot) for slot in self._slots)
        fraction = budget_share(job.cohort, [other.cohort for other in waiting], same_kind)
        return replica_share_s(spendable, fraction, self._usual_s(job.cohort))

    def _usual_s(self, cohort: Cohort) -> float | None:
        """What measuring a replica of this cohort took so far in this session, in seconds."""
        took = self._took_s.get(cohort.cohort)
        return median(took) if took else None

    def _parts(self, job: Job) -> VarianceParts:
        """What this cohort's published replicas tell of how rounds and processes differ."""
        table = speedups.of_cohort(self._store, self._identity.run, job.cohort.cohort)
        found = table["log_ratios"].to_pylist()
        measured = [[np.asarray(rounds) for rounds in replicas] for replicas in found if replicas]
        return known_parts(measured, self._bench.effort.pilot)

    async def _publish(self, job: Job, log: ReplicaLog) -> None:
        """Publish one replica; if the folder refuses for good, keep it elsewhere and stop."""
        rows, run = build_rows(log, self._identity), self._identity.run
        for delay_s in (*PUBLISH_DELAYS_S, None):
            try:
                self._store.publish_replica(run, job.cohort.cohort, job.replica, rows)
                break
            except ResultsError as error:
                if delay_s is None:
                    # Not a ResultsError any more: by now things were measured, and the exit code must not deny it.
                    raise FarmError(f"{error}\n{_keep_elsewhere(run, job, rows)}") from error
                await asyncio.sleep(delay_s)
        self._schedule.finish(job)
        self._decide_replicas(job.cohort.cohort)
        table = speedups.of_cohort(self._store, run, job.cohort.cohort)
        schedule = self._schedule
        counts = (schedule.wanted(job.cohort), schedule.done, schedule.total)
        self._listener.on(ReplicaDone(job.cohort, job.replica, *counts, tuple(table.to_pylist())))

    def _decide_replicas(self, cohort_id: str) -> None:
        """Once a cohort's pilot is complete, ask for as many replicas as its noise needs: decided once, by Stein."""
        effort = self._bench.effort
        if effort.most_replicas == effort.replicas:
            return
        cohort = next(each for each in self._plan.cohorts if each.cohort == cohort_id)
        table = speedups.of_cohort(self._store, self._identity.run, cohort_id)
        for row in table.to_pylist():
            pilot = [sum(rounds) / len(rounds) for rounds in row["log_ratios"] or []][: effort.pilot]
            if len(pilot) == effort.pilot:
                wanted = stats.stein_replicas(pilot, effort.half_width, effort.replicas, effort.most_replicas)
                self._schedule.want(cohort, wanted)


def _nodes() -> list[slots.Node]:
    nodes = slots.discover_nodes()
    if not nodes:
        raise RequestError("the cluster has no node with a CPU to measure on; start a worker node")
    return nodes


def _slots_of(nodes: Sequence[slots.Node], suite: Suite) -> list[Slot]:
    devices = resolve_devices(suite, [node.machine for node in nodes])
    return [slot for node in nodes for slot in slots.slots_of(node, devices, suite.smt)]


async def _end(cohort: Any) -> None:
    """End a cohort and all its processes, politely first."""
    with contextlib.suppress(RayError, TimeoutError):
        async with asyncio.timeout(CLOSE_S):
            await cohort.close.remote()
    with contextlib.suppress(RayError):
        ray.kill(cohort, no_restart=True)


def _keep_elsewhere(run: str, job: Job, rows: Sequence[dict[str, Any]]) -> str:
    """Save rows that could not be published to a folder of their own; say where they are."""
    folder = Path(tempfile.mkdtemp(prefix="farm-unpublished-"))
    Store(folder).publish_replica(run, job.cohort.cohort, job.replica, rows)
    return (
        f"the replica that could not be written is kept in {folder}; "
        "copy its measurements folder over the results folder, or run the same command again"
    )
