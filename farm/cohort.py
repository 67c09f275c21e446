"""The cohort's own process on the slot's node: starts its cells, runs rounds when asked, parks who is not running."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from farm.errors import FarmError, MethodUnsupportedError, ProofFailedError
from farm.machine import describe_machine
from farm.nursery import Kind, Nursery, ProcessDiedError, Resident, TooLateError
from farm.records import Cell, Failure, ModelInfo, Round, Slot, Turn, WarmUp, Workload
from farm.suite import Limits
from farm.timing import TURN_CALLS, turn_s
from tasks.artifacts import Artifact, evaluation_path, find_artifact, load_evaluation, save_evaluation
from tasks.method import Arrays, Method, find_method

TAIL_BYTES = 2_000
"""The end of a dead cell's own output that is kept with its row."""

CALLS_LIMIT_FACTOR = 20
LEAST_CALL_LIMIT_S = 10.0
"""A call may take 20 times the baseline's, and always 10 s, before the cell counts as hanging."""


class CohortProcess:
    """A Ray actor in the slot's placement group, at zero CPU. Every wait here has a limit and learns of a death."""

    def __init__(self, slot: Slot, limits: Limits, turn_calls: int = TURN_CALLS) -> None:
        self._slot = slot
        self._limits = limits
        self._turn_calls = turn_calls
        self._folder = Path(tempfile.mkdtemp(prefix="farm-cohort-"))
        self._running: dict[str, Resident] = {}
        self._nurseries: dict[str, Nursery] = {}
        self._call_limit_s = limits.call_s or LEAST_CALL_LIMIT_S
        self._turn_s: dict[str, float] = {}
        self._lock: int | None = None

    def lock_slot(self) -> bool:
        """Take the machine-wide lock of this slot; false while another Ray on this machine measures on it."""
        if self._lock is None:
            # One lock a machine, not one a slot: slots of one machine share its caches and memory bandwidth.
            self._lock = os.open(Path(tempfile.gettempdir()) / "inference-farm.lock", os.O_RDONLY | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

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
            workshop = self._launch("workshop", name, cell)
            artifact = self._make(workshop, cell, model, cell.workload)
            with suppress(Exception):
                for workload in later:
                    self._make(workshop, cell, model, workload)
        except Exception as error:
            return self._explain(name, error, f"preparing took longer than {self._limits.prepare_s:g} s")
        finally:
            self._kill(name)
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
            resident = self._launch("cell", name, cell)
            resident.call("import_runtime", cell.method, model, timeout_s=self._limits.load_s)
            resident.call("load", cell, model, artifact.folder, [one], timeout_s=self._limits.load_s)
            # One batch first: a call that hangs must not use up the limit that is meant for all texts.
            resident.call("predict", one, timeout_s=self._limits.load_s)
            logits = resident.call("predict", encoded, timeout_s=self._limits.prepare_s)
        except Exception as error:
            return self._explain(name, error, "evaluating took longer than the suite's limits allow")
        finally:
            self._kill(name)
        with suppress(OSError):  # the logits are at hand; a full disk only means computing them again next time
            save_evaluation(path, logits)
        return np.asarray(logits)

    def boot(self, cells: Sequence[Cell], model: ModelInfo) -> dict[str, Failure]:
        """Start the processes of all cells with their runtimes imported; nothing is timed yet.

        A runtime that several cells share is imported once, and they are forked from there; the others import theirs
        at the same time.
        """
        failures: dict[str, Failure] = {}
        late = f"importing took longer than {self._limits.load_s:g} s"
        try:
            self._fork_all(cells, model)
        except Exception as error:
            return {cell.cell: self._give_up(cell.cell, error, late) for cell in cells}
        for cell in cells:
            try:
                self._running[cell.cell].answer(self._limits.load_s)
                self._park(cell.cell)
            except Exception as error:
                failures[cell.cell] = self._give_up(cell.cell, error, late)
        return failures

    def _fork_all(self, cells: Sequence[Cell], model: ModelInfo) -> None:
        """Fork every cell as soon as the nursery has imported what it needs, and never what it does not."""
        nursery = self._open_nursery("cells", cells[0])
        for method, together in _import_stages(cells):
            if method is not None:
                with suppress(FarmError, ImportError):  # each cell will meet the same error, and report it as its own
                    nursery.import_runtime(method.id, model, self._limits.load_s)
            for cell in together:
                resident = nursery.fork("cell", self._log(cell.cell))
                self._running[cell.cell] = resident
                resident.ask("import_runtime", cell.method, model)

    def load(self, cell: Cell, model: ModelInfo, artifact: Artifact, inputs: Sequence[Arrays]) -> WarmUp | Failure:
        """Load one cell and warm it up, alone on the slot; then park it."""
        name, limit_s = cell.cell, self._limits.load_s
        try:
            self._continue(name)
            resident = self._running[name]
            resident.call("load", cell, model, artifact.folder, list(inputs), timeout_s=limit_s)
            ready: WarmUp = resident.call("warm_up", self._turn_calls, timeout_s=limit_s)
            self._park(name)
        except Exception as error:
            return self._give_up(name, error, f"loading and warming up took longer than {limit_s:g} s")
        self._turn_s[name] = turn_s(ready.call_ns, self._turn_calls)
        if cell.role == "baseline" and self._limits.call_s is None:
            self._call_limit_s = max(LEAST_CALL_LIMIT_S, CALLS_LIMIT_FACTOR * ready.call_ns / 1e9)
        return ready

    def round(self, number: int, order: Sequence[str]) -> tuple[Round, dict[str, Failure]]:
        """Give each cell one turn in this order, every other cell being stopped; report who fell out."""
        started_unix_ns, started = time.time_ns(), time.perf_counter_ns()
        turns: dict[str, Turn] = {}
        failures: dict[str, Failure] = {}
        for name in order:
            try:
                self._continue(name)
                turns[name] = self._running[name].call("turn", timeout_s=self._turn_limit_s(name))
                self._park(name)
            except Exception as error:
                failures[name] = self._give_up(name, error, f"a call took longer than {self._call_limit_s:g} s")
        wall_ns = time.perf_counter_ns() - started
        return Round(number, started_unix_ns, tuple(order), turns, wall_ns), failures

    def finish(self) -> dict[str, int | None]:
        """End all cells; return each one's peak resident memory in bytes."""
        peaks: dict[str, int | None] = {}
        for name, running in list(self._running.items()):
            with suppress(Exception):
                self._continue(name)
                peaks[name] = running.call("peak_rss_bytes", timeout_s=LEAST_CALL_LIMIT_S)
            self._kill(name)
        return peaks

    def close(self) -> None:
        """End every process, release the slot's lock and remove this process's folder."""
        for name in [*self._running, *self._nurseries]:
            self._kill(name)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def pids(self) -> Mapping[str, int]:
        """Process ids of the living cells, for tests and for people who look with their own tools."""
        return {name: running.pid for name, running in self._running.items()}

    def _turn_limit_s(self, name: str) -> float:
        """How long a turn may take: one call may use up the call limit, the rest thrice their usual time."""
        return self._call_limit_s + 3 * self._turn_s[name]

    def _open_nursery(self, name: str, cell: Cell) -> Nursery:
        cores = self._slot.cores[: cell.workload.threads] if cell.workload.device == "cpu" else self._slot.cores
        # Ray tells this process, which holds the slot's GPU, which one that is; its children hold none themselves.
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "") if self._slot.gpu else ""
        self._nurseries[name] = Nursery(cores, cell.workload.threads, gpus, self._log(f"nursery-{name}"))
        return self._nurseries[name]

    def _launch(self, kind: Kind, name: str, cell: Cell) -> Resident:
        """Start a process that shares nothing with the cells."""
        self._running[name] = self._open_nursery(name, cell).fork(kind, self._log(name))
        return self._running[name]

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _park(self, name: str) -> None:
        os.kill(self._running[name].pid, signal.SIGSTOP)

    def _continue(self, name: str) -> None:
        os.kill(self._running[name].pid, signal.SIGCONT)

    def _give_up(self, name: str, error: Exception, when_late: str) -> Failure:
        """Turn an error into the row's reason and end the process."""
        failure = self._explain(name, error, when_late)
        self._kill(name)
        return failure

    def _explain(self, name: str, error: Exception, when_late: str) -> Failure:
        tail = _tail(self._log(name))
        if isinstance(error, TooLateError):
            return Failure("failed", when_late, tail)
        if isinstance(error, ProcessDiedError | ProcessLookupError):
            return Failure("failed", "the process died", tail)
        if isinstance(error, ProofFailedError):
            return Failure("invalid", str(error), tail)
        if isinstance(error, MethodUnsupportedError):
            return Failure("unsupported", str(error), tail)
        if isinstance(error, FarmError):
            return Failure("failed", str(error), tail)
        return Failure("failed", f"{type(error).__name__}: {error}".splitlines()[0], tail)

    def _kill(self, name: str) -> None:
        """End a process, and the nursery that was opened for it alone."""
        if (running := self._running.pop(name, None)) is not None:
            running.kill()
        if (nursery := self._nurseries.pop(name, None)) is not None:
            nursery.close()


def _import_stages(cells: Sequence[Cell]) -> list[tuple[Method | None, list[Cell]]]:
    """In which order a nursery imports and forks: each stage's method is imported first, then its cells are forked.

    Stages grow: what one imported, all later ones need too. Cells that fit no such chain come first, from a nursery
    that has imported nothing.
    """
    bare: list[Cell] = []
    stages: list[tuple[Method | None, list[Cell]]] = [(None, bare)]
    imported: set[str] = set()
    for cell in sorted(cells, key=lambda cell: len(find_method(cell.method).runtimes())):
        method = find_method(cell.method)
        needed = set(method.runtimes())
        if not (method.forks_after_import and imported <= needed):
            bare.append(cell)
        elif imported == needed:
            stages[-1][1].append(cell)
        else:
            stages.append((method, [cell]))
            imported = needed
    return stages


def _tail(log: Path) -> str:
    try:
        return log.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
    except OSError:
        return ""
