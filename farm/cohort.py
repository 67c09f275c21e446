"""The cohort's own process on the slot's node: starts its cells, runs rounds when asked, parks who is not running."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from farm.actor import die_with_parent
from farm.cores import CoreClaim
from farm.gpu_cohort import GpuSide
from farm.guards import Watch, disturbance, taint_reasons
from farm.machine import describe_machine
from farm.nursery import ImportStage, Nursery, ProcessDiedError, Resident, TooLateError, import_stages
from farm.own_processes import own_pids
from farm.records import Cell, Failure, ModelInfo, Round, Slot, Turn, WarmUp, Workload
from farm.residents import Residents
from farm.suite import Limits
from farm.timing import TURN_CALLS, turn_s
from tasks.artifacts import Artifact, artifact_key, evaluation_path, find_artifact, load_evaluation, save_evaluation
from tasks.method import Arrays, Method, find_method

SENTINEL = "sentinel"
"""The name of the sentinel's process among the cells'."""

SENTINEL_RUNTIME = "torch"
"""What the sentinel needs: it is forked as soon as that is imported, or imports it itself."""

CALLS_LIMIT_FACTOR = 20
LEAST_CALL_LIMIT_S = 10.0
"""A call may take 20 times the baseline's, and always 10 s, before the cell counts as hanging."""


class CohortProcess:
    """A Ray actor in the slot's placement group, at zero CPU. Every wait for an answer has a limit."""

    def __init__(self, slot: Slot, limits: Limits, turn_calls: int = TURN_CALLS) -> None:
        die_with_parent()  # with Ray's raylet, whatever this process waits for: the cells then end with it
        self._slot = slot
        self._limits = limits
        self._turn_calls = turn_calls
        self._residents = Residents(slot, limits.memory_bytes)
        self._watch = Watch(_with_siblings(slot.cores))
        self._gpu = GpuSide(slot)
        self._call_limit_s = limits.call_s or LEAST_CALL_LIMIT_S
        self._turn_s: dict[str, float] = {}
        self._flushed = False
        self._claim = CoreClaim(_with_siblings(slot.cores), whole_machine=not slot.packed)

    def lock_slot(self) -> bool:
        """Take this machine's cores for the slot; false while another Ray on the machine measures on them."""
        return self._claim.take()

    def prepare(self, cell: Cell, model: ModelInfo, later: Sequence[Workload] = ()) -> Artifact | Failure:
        """Find the cell's artifact in this node's cache, or make it in a process of its own.

        That process also makes what the method needs for the `later` workloads of the run: importing and loading a
        model costs more than most conversions. What fails then is reported when its own cohort asks.
        """
        method = find_method(cell.method)
        found = find_artifact(method, model, cell.workload)
        if found is not None:
            return found
        name = f"prepare-{cell.cell}"
        try:
            workshop = self._residents.launch("workshop", name, cell.workload)
            artifact = self._make(workshop, cell, model, cell.workload)
            with suppress(Exception):
                for workload in later:
                    self._make(workshop, cell, model, workload)
        except Exception as error:
            return self._residents.explain(name, error, f"preparing took longer than {self._limits.prepare_s:g} s")
        finally:
            self._residents.kill(name)
        os.sync()  # the kernel must not flush the artifact while somebody is being timed
        return artifact

    def _make(self, workshop: Resident, cell: Cell, model: ModelInfo, workload: Workload) -> Artifact:
        limit_s = self._limits.prepare_s
        made: Artifact = workshop.call("prepare", cell.method, model, workload, timeout_s=limit_s)
        return made

    def evaluate(self, cell: Cell, model: ModelInfo, encoded: Arrays, dataset_sha256: str) -> np.ndarray | Failure:
        """Return the logits `[texts, labels]` of the method over an evaluation set, from the cache if they are there.

        `cell` is at the length the texts are encoded for; it runs in a process of its own, as it does when measured.
        """
        artifact = self.prepare(cell, model)
        if isinstance(artifact, Failure):
            return artifact
        path = evaluation_path(artifact, describe_machine(), cell.workload, dataset_sha256)
        stored = load_evaluation(path)
        if stored is not None:
            return stored
        name = f"evaluate-{cell.cell}"
        one = {key: rows[: cell.workload.batch_size] for key, rows in encoded.items()}
        try:
            resident = self._residents.launch("cell", name, cell.workload)
            resident.call("import_runtime", cell.method, model, timeout_s=self._limits.load_s)
            resident.call("load", cell, model, artifact.folder, [one], timeout_s=self._limits.load_s)
            # One batch first: a call that hangs must not use up the limit that is meant for all texts.
            resident.call("predict", one, timeout_s=self._limits.load_s)
            logits = resident.call("predict", encoded, timeout_s=self._limits.prepare_s)
        except Exception as error:
            return self._residents.explain(name, error, "evaluating took longer than the suite's limits allow")
        finally:
            self._residents.kill(name)
        with suppress(OSError):  # the logits are at hand; a full disk only means computing them again next time
            save_evaluation(path, logits)
        return np.asarray(logits)

    def evaluate_unlike(
        self, cell: Cell, judged: Workload, model: ModelInfo, encoded: Arrays, dataset_sha256: str
    ) -> np.ndarray | Failure | None:
        """As `evaluate`, at the cell's own length; None where its artifact is the very one judged at that workload."""
        method = find_method(cell.method)
        if artifact_key(method, model, cell.workload) == artifact_key(method, model, judged):
            return None
        return self.evaluate(cell, model, encoded, dataset_sha256)

    def boot(self, cells: Sequence[Cell], model: ModelInfo, sentinel: bool = False) -> dict[str, Failure]:
        """Start the processes of all cells with their runtimes imported, and the sentinel's; nothing is timed yet.

        A runtime that several cells share is imported once, and they are forked from there; the others import theirs
        at the same time.
        """
        failures: dict[str, Failure] = {}
        late = f"importing took longer than {self._limits.load_s:g} s"
        try:
            try:
                self._fork_all(import_stages(cells), model, sentinel)
            except (ProcessDiedError, TooLateError):  # a library that crashes or hangs on import takes only its own
                self._residents.kill_all()
                self._fork_all([ImportStage(None, list(cells))], model, sentinel)
        except Exception as error:
            return {cell.cell: self._give_up(cell.cell, error, late) for cell in cells}
        for cell in cells:
            try:
                self._residents[cell.cell].answer(self._limits.load_s)
                self._residents.park(cell.cell)
            except Exception as error:
                failures[cell.cell] = self._give_up(cell.cell, error, late)
        self._watch.own(own_pids(exclude=self.pids().values()))
        return failures

    def _fork_all(self, stages: Sequence[ImportStage], model: ModelInfo, sentinel: bool) -> None:
        """Fork every cell as soon as the nursery has imported what it needs, and never what it does not."""
        first = next(cell for stage in stages for cell in stage.cells)
        nursery = self._residents.open_nursery("cells", first.workload)
        at = next((number for number, stage in enumerate(stages) if SENTINEL_RUNTIME in stage.runtimes), 0)
        for number, stage in enumerate(stages):
            if stage.method is not None:
                self._import(nursery, stage.method, model)
            for cell in stage.cells:
                self._residents.fork(nursery, "cell", cell.cell).ask("import_runtime", cell.method, model)
            if sentinel and number == at:
                self._residents.fork(nursery, "sentinel", SENTINEL)

    def _import(self, nursery: Nursery, method: Method, model: ModelInfo) -> None:
        """Import what the method needs. Raises ProcessDiedError or TooLateError where the nursery is of no more use."""
        try:
            nursery.import_runtime(method.id, model, self._limits.load_s)
        except (ProcessDiedError, TooLateError):
            raise
        except Exception:  # each cell will meet the same error, and report it as its own
            return

    def start_sentinel(self, known: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Let the sentinel hold the cases that `known` ceilings name, or search for them (None); then park it.

        Returns the ceilings, or None where there is no sentinel: a machine is measured without it rather than not.
        """
        try:
            ceilings: Mapping[str, Any] = self._residents[SENTINEL].call(
                "prepare", known, "cuda" if self._slot.gpu else "cpu", timeout_s=self._limits.load_s
            )
            self._gpu.arrived(self._residents[SENTINEL].pid)
            self._residents.park(SENTINEL)
        except Exception as error:
            self._give_up(SENTINEL, error, "the sentinel took too long")
            return None
        return ceilings

    def load(self, cell: Cell, model: ModelInfo, artifact: Artifact, inputs: Sequence[Arrays]) -> WarmUp | Failure:
        """Load one cell and warm it up, alone on the slot; then park it."""
        name, limit_s = cell.cell, self._limits.load_s
        try:
            self._residents.wake(name)
            resident = self._residents[name]
            with self._gpu.growth() as grown:
                resident.call("load", cell, model, artifact.folder, list(inputs), timeout_s=limit_s)
                ready: WarmUp = resident.call("warm_up", self._turn_calls, timeout_s=limit_s)
            self._gpu.arrived(resident.pid)
            self._residents.park(name)
        except Exception as error:
            return self._give_up(name, error, f"loading and warming up took longer than {limit_s:g} s")
        self._turn_s[name] = turn_s(ready.call_ns, self._turn_calls)
        if cell.role == "baseline" and self._limits.call_s is None:
            self._call_limit_s = max(LEAST_CALL_LIMIT_S, CALLS_LIMIT_FACTOR * ready.call_ns / 1e9)
        return replace(ready, vram_bytes=grown())

    def round(self, number: int, order: Sequence[str]) -> tuple[Round, dict[str, Failure]]:
        """Give each cell one turn in this order, every other cell being stopped; report who fell out."""
        if not self._flushed:  # what cells wrote while loading must not be flushed while somebody is being timed
            os.sync()
            self._flushed = True
        started_unix_ns, started = time.time_ns(), time.perf_counter_ns()
        turns: dict[str, Turn] = {}
        failures: dict[str, Failure] = {}
        rates = self._ask_sentinel()
        for name in order:
            try:
                turns[name] = self._turn(name)
            except Exception as error:
                failures[name] = self._give_up(name, error, f"a call took longer than {self._call_limit_s:g} s")
        wall_ns = time.perf_counter_ns() - started
        return Round(number, started_unix_ns, tuple(order), turns, wall_ns, rates), failures

    def rounds(
        self, first: int, orders: Sequence[Sequence[str]], for_s: float
    ) -> tuple[list[Round], dict[str, Failure]]:
        """Run rounds in these orders, numbered from `first` on, until a cell falls out or the time is up."""
        until = time.monotonic() + for_s
        done: list[Round] = []
        for number, order in enumerate(orders, first):
            one, failures = self.round(number, order)
            done.append(one)
            if failures or time.monotonic() >= until:
                return done, failures
        return done, {}

    def _turn(self, name: str) -> Turn:
        """Wake the cell for one turn, with the guards' snapshots on either side."""
        resident = self._residents[name]
        self._gpu.before_turn()
        before = self._watch.snapshot(resident.pid)
        self._residents.wake(name)
        resident.ask("turn")
        self._gpu.amid_turn(self._turn_s[name])
        turn: Turn = resident.answer(self._turn_limit_s(name))
        read = disturbance(before, self._watch.snapshot(resident.pid), len(self._slot.cores))
        seen, reasons = self._gpu.after_turn()
        self._residents.park(name)
        return replace(turn, disturbance=asdict(read) | seen, taint_reasons=(*taint_reasons(read), *reasons))

    def _ask_sentinel(self) -> dict[str, float]:
        """What the machine can do at this moment, or nothing where there is no sentinel (any more)."""
        if SENTINEL not in self._residents.pids():
            return {}
        try:
            self._residents.wake(SENTINEL)
            rates: dict[str, float] = self._residents[SENTINEL].call("measure", timeout_s=LEAST_CALL_LIMIT_S)
            self._residents.park(SENTINEL)
        except Exception as error:
            self._give_up(SENTINEL, error, "the sentinel took too long")
            return {}
        return rates

    def finish(self) -> tuple[dict[str, dict[str, int | None]], dict[str, Mapping[str, Any] | Failure]]:
        """End all cells; return the peaks of each one's memory in bytes, and what it proved after its last call."""
        peaks: dict[str, dict[str, int | None]] = {}
        proofs: dict[str, Mapping[str, Any] | Failure] = {}
        for name in list(self.pids()):
            if name != SENTINEL:
                with suppress(Exception):  # of memory nothing is known then, and the row says so by having none
                    self._residents.wake(name)
                    peaks[name] = self._residents[name].call("peaks", timeout_s=LEAST_CALL_LIMIT_S)
                proofs[name] = self._prove_late(name)
            self._residents.kill(name)
        return peaks, proofs

    def _prove_late(self, name: str) -> Mapping[str, Any] | Failure:
        """What only a profiler tells. Where it breaks down, what was measured stands: only its word is missing."""
        try:
            proof: Mapping[str, Any] = self._residents[name].call("prove_late", timeout_s=self._limits.load_s)
        except Exception as error:
            failure = self._residents.explain(name, error, "profiling took too long")
            if failure.status == "invalid":
                return failure
            return {"remarks": [f"which kernels ran is unknown: {failure.reason}"]}
        return proof

    def close(self) -> None:
        """End every process and give the slot's cores free."""
        self._residents.close()
        self._claim.give_up()

    def pids(self) -> Mapping[str, int]:
        """Process ids of the living cells, for tests and for people who look with their own tools."""
        return self._residents.pids()

    def _turn_limit_s(self, name: str) -> float:
        """How long a turn may take: one call may use up the call limit, the rest thrice their usual time."""
        return self._call_limit_s + 3 * self._turn_s[name]

    def _give_up(self, name: str, error: Exception, when_late: str) -> Failure:
        """Turn an error into the row's reason and end the process."""
        failure = self._residents.explain(name, error, when_late)
        self._residents.kill(name)
        return failure


def _with_siblings(cores: Sequence[int]) -> tuple[int, ...]:
    """The cores and their idle SMT siblings: work there slows a core as surely as work on it."""
    groups = describe_machine().smt_siblings
    return tuple(sorted({cpu for group in groups if set(group) & set(cores) for cpu in group} | set(cores)))
