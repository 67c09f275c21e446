"""The driver: connects to a cluster, plans, lets every node measure what it can, continues what was cut short."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from farm import connecting, speedups, summaries
from farm.bench import Bench, check_calibration, inputs_sha256, lay_out
from farm.cluster import RayCluster
from farm.crew import Crew
from farm.errors import FarmError, RequestError, ResultsError
from farm.events import Listener, Notice, RunBegan, Silent, StepReporter
from farm.folders import Place
from farm.hardware import takes_every_class
from farm.ledger import CLUSTER_PATIENCE_S, PATIENCE_S, StoreLedger
from farm.logbook import Logbook, logged
from farm.loops import run_to_end
from farm.machine import describe_environment, describe_machine
from farm.plan import Plan, check_lengths, make_plan, resolve_devices
from farm.records import Cohort, Slot
from farm.rows import RunIdentity
from farm.runs import OpenRun, of_unfinished, open_run, set_damaged_aside
from farm.schedule import Schedule
from farm.stopping import Effort
from farm.store import RunRecord, Store
from farm.suite import Suite
from tasks.models import read_architecture, resolve_model


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
    written, FarmError where they no longer can when something was measured, KeyboardInterrupt when interrupted:
    everything published by then is kept.
    """
    listener = listener or Silent()
    store = Store(results)
    with ExitStack() as ends:
        if address is None:
            resolve_devices(suite, [describe_machine()])
        elsewhere = address not in (None, "auto")
        if elsewhere:  # first of all: a model may take minutes to fetch or train
            ends.enter_context(connecting.connected(address))
        model = resolve_model(suite.model, StepReporter(listener))
        check_lengths(suite, model)
        bench = lay_out(suite, model, listener, effort)
        if address is None:
            check_calibration(suite, model, [describe_machine()], listener)
        if not elsewhere:
            ends.enter_context(connecting.connected(address))
        shared = address is not None
        cluster = RayCluster(bench, shared)
        plan, opened = _open(store, bench, cluster, command=command, fresh=fresh)
        with logged(store, opened.record.run, listener) as book:
            bench.listener = book
            _tell(plan, opened, book)
            set_damaged_aside(store, opened.record.run, book)
            table = run_to_end(
                _measure(store, bench, plan, opened, cluster, shared=shared, backwards=bool(book.others))
            )
    failed = sum(status in ("failed", "invalid") for status in table["status"].to_pylist())
    return Outcome(opened.record.run, store.root, failed)


def _open(store: Store, bench: Bench, cluster: RayCluster, *, command: str, fresh: bool) -> tuple[Plan, OpenRun]:
    """Plan for the nodes that are up, and begin the run or go on with one that was cut short."""
    suite, model = bench.suite, bench.model
    found = cluster.first_slots()
    machines = list(cluster.machines.values())
    resolve_devices(suite, machines)
    if cluster.shared:
        check_calibration(suite, model, machines, bench.listener)
    environment, texts = describe_environment(), bench.evaluation.sha256 if bench.evaluation else None
    if not fresh:
        found = list(of_unfinished(store, suite, model, found, environment, texts_sha256=texts))
    plan = make_plan(suite, model, found, cluster.machines)
    return plan, open_run(store, plan, environment, command, texts_sha256=texts, fresh=fresh)


def _tell(plan: Plan, opened: OpenRun, book: Logbook) -> None:
    """What to know before anything is measured."""
    _tell_left_out(plan, book)
    for other in book.others:
        remedy = "this one begins at the other end; every replica is published once, by whoever is first"
        book.on(Notice(f"another farm ({other}) is measuring this run", remedy))
    for missing in _missing_classes(opened.record, {cohort.hardware_class for cohort in plan.cohorts}):
        remedy = "what this run lacks of it is not measured now; start one and give the same command again"
        book.on(Notice(f"no node of class {missing} is up, which belongs to this run", remedy))


def _tell_left_out(plan: Plan, listener: Listener) -> None:
    for what, reason in plan.left_out.items():
        listener.on(Notice(f"{what} is left out", reason))


async def _measure(
    store: Store, bench: Bench, plan: Plan, opened: OpenRun, cluster: RayCluster, *, shared: bool, backwards: bool
) -> pa.Table:
    """Let a crew measure what is not published yet; the speedups of the finished run."""
    record = opened.record
    identity = RunIdentity(
        *(record.run, plan.suite.name, plan.suite.inputs, plan.model, record.environment),
        architecture=read_architecture(plan.model),
        inputs_sha256={shape: inputs_sha256(inputs) for shape, inputs in bench.inputs.items()},
    )
    ledger = StoreLedger(store, bench, identity, CLUSTER_PATIENCE_S if shared else PATIENCE_S)
    schedule = Schedule(plan.cohorts, bench.effort.replicas, done=ledger.before, backwards=backwards)
    ledger.decide(plan.cohorts, schedule)
    bench.plan_for(plan.cohorts)
    bench.listener.on(RunBegan(record.run, opened.continued, schedule.done, schedule.total, plan.cohorts))
    planner = _LatePlanner(store, record, plan, bench, cluster)
    patience_s = plan.suite.limits.node_s
    crew = Crew(
        cluster, schedule, ledger, bench.budget, bench.listener, plan_for=planner.plan_for, patience_s=patience_s
    )
    try:
        await crew.work()
    except BaseException:
        await asyncio.to_thread(planner.note, schedule.unfinished_classes())
        raise
    await ledger.insist(partial(planner.write_down, schedule.unfinished_classes()))
    return await ledger.insist(partial(_conclude, store, opened))


class _LatePlanner:
    """Plans for hardware classes whose first node joins when the run has begun, where the suite takes every class."""

    def __init__(self, store: Store, record: RunRecord, plan: Plan, bench: Bench, cluster: RayCluster) -> None:
        """`known` are the classes that the run has cohorts for."""
        self._store = store
        self._record = record
        self._plan = plan
        self._bench = bench
        self._cluster = cluster
        self._writer = ThreadPoolExecutor(1)  # one after the other: the last word counts
        self._met = self.known = {cohort.hardware_class for cohort in plan.cohorts}

    def plan_for(self, found: Sequence[Slot]) -> Sequence[Cohort]:
        """The cohorts for a node's slots that were not planned before; none where they cannot run the suite."""
        suite, model = self._plan.suite, self._plan.model
        new = found[0].hardware_class
        if new in self._met or not takes_every_class(suite.hardware):
            return ()
        self._met = self._met | {new}
        try:
            plan = make_plan(suite, model, found, self._cluster.machines, late=True)
        except RequestError as error:
            self._bench.listener.on(Notice(f"class {new} joined and is left out", str(error)))
            return ()
        _tell_left_out(plan, self._bench.listener)
        self._bench.plan_for(plan.cohorts)
        self.known = self.known | {new}
        # In a thread: a store that stalls must not stop the other nodes' rounds.
        self._writer.submit(self._store.note_classes, self._record.run, self.known, self.known)
        return plan.cohorts

    def note(self, unfinished: set[str]) -> None:
        """As `write_down`, where the results may be out of reach: whoever publishes the next replica says so."""
        with suppress(ResultsError):
            self.write_down(unfinished)

    def write_down(self, unfinished: set[str]) -> None:
        """Write down which classes belong to the run, and that all is measured but of those that are `unfinished`.

        Raises ResultsError.
        """
        self._writer.submit(self._store.note_classes, self._record.run, self.known, unfinished).result()


def _missing_classes(record: RunRecord, here: Iterable[str] = ()) -> list[str]:
    """Hardware classes that belong to the run, are not `here` and of which something was not measured yet."""
    return sorted(set(record.hardware_classes) - set(record.measured_classes) - set(here))


def _conclude(store: Store, opened: OpenRun) -> pa.Table:
    """Derive the speedups and mark the run finished. Raises FarmError where something is missing."""
    table = speedups.rebuild(store, opened.record.run)
    summaries.write_summaries(store, opened.record.run)
    _finish(store, opened)
    return table


def _finish(store: Store, opened: OpenRun) -> None:
    """Mark the run finished. Raises FarmError where a class is missing or what was published is damaged by now: then
    it is not finished, and can be continued."""
    damaged = [each.path.name for each in store.damaged(opened.record.run)]
    if damaged:
        raise FarmError(
            f"damaged since they were written: {', '.join(damaged)}. Give the same command again: it measures them anew"
        )
    missing = _missing_classes(store.run(opened.record.run))
    if missing:
        raise FarmError(
            f"all is measured but what needs nodes of class {', '.join(missing)}, of which none is up. "
            "Start one and give the same command again: it continues this run"
        )
    store.finish_run(opened.record.run)
