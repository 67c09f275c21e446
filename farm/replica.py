"""One replica of one cohort, from preparing its artifacts to its last round."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from farm import stats
from farm.bench import Bench
from farm.blocks import take_blocks
from farm.events import CellFailed, RoundDone, Step
from farm.judging import judge_methods, timed_fault
from farm.plan import round_order
from farm.records import Cell, Failure
from farm.rows import ReplicaLog
from farm.side_by_side import side_by_side
from farm.stopping import Allowance
from farm.variance import VarianceParts
from tasks.method import find_method

REQUEST_S = 3.0
"""A cohort is asked for as many rounds as this takes at once: hundreds of nodes would keep a driver busy with rounds of
some tenths of a second, each a call of Ray's with its result."""


class ReplicaLostError(Exception):
    """Nothing can be compared any more: the replica must start over."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class NodeFaultError(ReplicaLostError):
    """Lost by what is more likely the node's fault than the replica's."""


class NodeUnfitError(ReplicaLostError):
    """The node cannot measure anything of this run."""


class BaselineLostError(ReplicaLostError):
    """The baseline's cell failed."""


async def prepare_replica(log: ReplicaLog, cohort: Any, bench: Bench) -> None:
    """Make and judge the artifacts. `cohort` is a handle of the CohortProcess on the slot.

    Raises BaselineLostError where the replica must start over.
    """
    with bench.budget.excluded(log.slot.node_id):
        await _prepare(log, cohort, bench)
        await judge_methods(log, cohort, bench, partial(_fail, log, bench))


async def measure_replica(
    log: ReplicaLog, cohort: Any, bench: Bench, share_s: float | None, parts: VarianceParts
) -> None:
    """Load and measure what was prepared, within `share_s` seconds (None: as the effort says); fills `log`.

    `parts` is what is known of the cohort's variances, which decides how many rounds are worth their time. Raises
    BaselineLostError where the replica must start over.
    """
    started = time.monotonic()
    await _load(log, cohort, bench)
    setup_s = time.monotonic() - started
    measure = _measure_blocked if bench.suite.order == "blocked" else _measure
    await measure(log, cohort, bench, Allowance(bench.effort, parts, setup_s, share_s))
    log.peaks, proofs = await cohort.finish.remote()
    for cell in log.living():
        _add_proof(log, bench, cell, proofs.get(cell.cell, {}))


def _add_proof(log: ReplicaLog, bench: Bench, cell: Cell, late: Mapping[str, Any] | Failure) -> None:
    """What a cell proved after its last call joins what it proved before its first; it may still be found out."""
    if isinstance(late, Failure):
        _fail(log, bench, cell, late)
        return
    ready = log.ready[cell.cell]
    early = ready.proof["method"]
    remarks = [*early.get("remarks", []), *late.get("remarks", [])]
    proof = {**ready.proof, "method": {**early, **late, "remarks": remarks}}
    log.ready[cell.cell] = replace(ready, proof=proof)


async def _prepare(log: ReplicaLog, cohort: Any, bench: Bench) -> None:
    """Make or find every cell's artifact. The twin shares the baseline's."""
    cells = [cell for cell in log.cohort.cells if cell.role != "twin"]

    async def make(number: int, cell: Cell) -> None:
        if cell.unsupported:
            _fail(log, bench, cell, Failure("unsupported", cell.unsupported))
            return
        bench.listener.on(Step("prepare", number, len(cells), _at(cell)))
        made = await cohort.prepare.remote(cell, bench.model, bench.later_workloads(log.cohort, cell))
        if isinstance(made, Failure):
            _fail(log, bench, cell, made)
        else:
            log.artifacts[cell.cell] = made

    await side_by_side(
        cells, make, log.cohort.workload.device, alone=lambda cell: find_method(cell.method).prepares_alone
    )
    bench.listener.on(Step("prepare", len(cells), len(cells)))
    log.artifacts[log.cohort.cells[1].cell] = log.artifacts[log.cohort.baseline.cell]


async def _load(log: ReplicaLog, cohort: Any, bench: Bench) -> None:
    """Start all cells at once, load and warm them up one by one, and check their logits against the baseline's."""
    cells = [cell for cell in log.cohort.cells if cell.cell in log.artifacts and cell.cell not in log.failures]
    bench.listener.on(Step("load", 0, len(cells), "starting processes"))
    watched = bench.suite.sentinels
    for name, failure in (await cohort.boot.remote(cells, bench.model, watched)).items():
        _fail(log, bench, _cell(log, name), failure)
    if watched:
        await _start_sentinel(log, cohort, bench)
    shape = log.cohort.workload
    inputs = bench.inputs[shape.length, shape.batch_size]
    for number, cell in enumerate(cells):
        if cell.cell in log.failures:
            continue
        bench.listener.on(Step("load", number, len(cells), _at(cell)))
        ready = await cohort.load.remote(cell, bench.model, log.artifacts[cell.cell], inputs)
        if isinstance(ready, Failure):
            _fail(log, bench, cell, ready)
            continue
        log.ready[cell.cell] = ready
        fault = timed_fault(log, bench.evaluation, cell)
        if fault:
            _fail(log, bench, cell, Failure("invalid", fault))
    bench.listener.on(Step("load", len(cells), len(cells)))


async def _start_sentinel(log: ReplicaLog, cohort: Any, bench: Bench) -> None:
    """The first cohort of a slot searches for what its machine can do at best, while nothing else runs there."""
    slot = (log.slot.node_id, log.slot.slot)
    if slot not in bench.ceilings:
        bench.listener.on(Step("load", 0, 1, "searching for the machine's best rates"))
    log.ceilings = await cohort.start_sentinel.remote(bench.ceilings.get(slot))
    if log.ceilings is not None:
        bench.ceilings[slot] = log.ceilings


async def _measure(log: ReplicaLog, cohort: Any, bench: Bench, allowance: Allowance) -> None:
    """Run rounds until they are enough or the time is up; disturbed ones are repeated within limits."""
    started, taken_s, tainted = time.monotonic(), list[float](), 0
    while ahead := allowance.rounds_ahead(taken_s, tainted, time.monotonic() - started):
        living = [cell.cell for cell in log.living()]
        first = len(log.rounds)
        orders = [round_order(log.cohort, log.replica, number, living) for number in range(first, first + ahead)]
        # The first one alone: whoever looks on learns at once that measuring has begun.
        done, failures = await cohort.rounds.remote(first, orders, REQUEST_S if first else 0.0)
        log.rounds += done
        taken_s += [each.wall_ns / 1e9 for each in done]
        tainted += sum(bool(each.taint_reasons) for each in done)
        for name, failure in failures.items():
            _fail(log, bench, _cell(log, name), failure)
        if bench.tells_round(first=first == 0):
            left_s = allowance.left_s(time.monotonic() - started)
            bench.listener.on(RoundDone(log.cohort, log.replica, len(log.rounds), running_speedups(log), left_s))


async def _measure_blocked(log: ReplicaLog, cohort: Any, bench: Bench, allowance: Allowance) -> None:
    """Let one cell after the other take all its turns, in a seeded order."""

    def fail(name: str, failure: Failure) -> None:
        _fail(log, bench, _cell(log, name), failure)

    order = round_order(log.cohort, log.replica, 0, [cell.cell for cell in log.living()])
    log.rounds = await take_blocks(cohort, order, allowance, fail=fail, listener=bench.listener)
    bench.listener.on(RoundDone(log.cohort, log.replica, len(log.rounds), running_speedups(log), None))


def running_speedups(log: ReplicaLog) -> dict[str, stats.Estimate]:
    """The estimates from the rounds so far, by method name."""

    def turns(cell: Cell) -> dict[int, tuple[int, ...]]:
        return {each.number: each.turns[cell.cell].latency_ns for each in log.rounds if cell.cell in each.turns}

    baseline = turns(log.cohort.baseline)
    ratios = {cell.name: stats.paired_log_ratios(baseline, turns(cell)) for cell in log.living()[1:]}
    return {name: stats.estimate([values]) for name, values in ratios.items() if len(values)}


def _fail(log: ReplicaLog, bench: Bench, cell: Cell, failure: Failure) -> None:
    """Take the cell out; without the baseline there is nothing to go on for."""
    if cell.role == "baseline":
        raise BaselineLostError(failure)
    log.failures[cell.cell] = failure
    bench.listener.on(CellFailed(log.cohort, log.replica, log.attempt, cell.name, failure))


def _cell(log: ReplicaLog, name: str) -> Cell:
    return next(cell for cell in log.cohort.cells if cell.cell == name)


def _at(cell: Cell) -> str:
    return f"{cell.name} at length {cell.workload.length}"
