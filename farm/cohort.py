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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from farm.actor import CellProcess, WorkshopProcess
from farm.errors import FarmError, MethodUnsupportedError, ProofFailedError
from farm.machine import describe_machine
from farm.records import Cell, Failure, ModelInfo, Round, Slot, Turn, WarmUp, Workload
from farm.suite import Limits
from farm.timing import turn_s
from tasks.artifacts import Artifact, evaluation_path, find_artifact, load_evaluation, save_evaluation
from tasks.method import Arrays, find_method

BOOT_S = 120
"""A process that Ray has not started after two minutes will not start."""

TAIL_BYTES = 2_000
"""The end of a dead cell's own output that is kept with its row."""

CALLS_LIMIT_FACTOR = 20
LEAST_CALL_LIMIT_S = 10.0
"""A call may take 20 times the baseline's, and always 10 s, before the cell counts as hanging."""


@dataclass
class Running:
    """A process of this cohort: its Ray handle, its pid once it has told it, and its own log."""

    handle: Any
    log: Path
    pid: int = 0


class CohortProcess:
    """Lives in the slot's placement group at zero CPU. Every wait here has a limit and learns of a death."""

    def __init__(self, slot: Slot, limits: Limits) -> None:
        self._slot = slot
        self._limits = limits
        self._folder = Path(tempfile.mkdtemp(prefix="farm-cohort-"))
        self._running: dict[str, Running] = {}
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
            handle = self._launch(WorkshopProcess, name, cell).handle
            artifact = self._make(handle, cell, model, cell.workload)
            with suppress(RayError):
                for workload in later:
                    self._make(handle, cell, model, workload)
        except Exception as error:
            return self._explain(name, error, f"preparing took longer than {self._limits.prepare_s:g} s")
        finally:
            self._kill(name)
        os.sync()  # the kernel must not flush the artifact while somebody is being timed
        return artifact

    def _make(self, handle: Any, cell: Cell, model: ModelInfo, workload: Workload) -> Artifact:
        made: Artifact = ray.get(handle.prepare.remote(cell.method, model, workload), timeout=self._limits.prepare_s)
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
            handle = self._launch(CellProcess, name, cell).handle
            ray.get(handle.import_runtime.remote(cell.method, model), timeout=self._limits.load_s)
            ray.get(handle.load.remote(cell, model, artifact.folder, [one]), timeout=self._limits.load_s)
            # One batch first: a call that hangs must not use up the limit that is meant for all texts.
            ray.get(handle.predict.remote(one), timeout=self._limits.load_s)
            logits = ray.get(handle.predict.remote(encoded), timeout=self._limits.prepare_s)
        except Exception as error:
            return self._explain(name, error, "evaluating took longer than the suite's limits allow")
        finally:
            self._kill(name)
        with suppress(OSError):  # the logits are at hand; a full disk only means computing them again next time
            save_evaluation(path, logits)
        return np.asarray(logits)

    def boot(self, cells: Sequence[Cell], model: ModelInfo) -> dict[str, Failure]:
        """Start the processes of all cells and import their runtimes, all at once: nothing is timed yet."""
        for cell in cells:
            self._start(CellProcess, cell.cell, cell)
        failures: dict[str, Failure] = {}
        asked = {}
        for cell in cells:
            try:
                self._await_pid(cell.cell)
                asked[cell.cell] = self._running[cell.cell].handle.import_runtime.remote(cell.method, model)
            except Exception as error:
                failures[cell.cell] = self._give_up(cell.cell, error, f"the process did not start in {BOOT_S} s")
        for name, reference in asked.items():
            try:
                ray.get(reference, timeout=self._limits.load_s)
            except Exception as error:
                failures[name] = self._give_up(name, error, f"importing took longer than {self._limits.load_s:g} s")
        for name in self._running:
            self._park(name)
        return failures

    def load(self, cell: Cell, model: ModelInfo, artifact: Artifact, inputs: Sequence[Arrays]) -> WarmUp | Failure:
        """Load one cell and warm it up, alone on the slot; then park it."""
        name, limit_s = cell.cell, self._limits.load_s
        try:
            self._continue(name)
            handle = self._running[name].handle
            ray.get(handle.load.remote(cell, model, artifact.folder, list(inputs)), timeout=limit_s)
            ready: WarmUp = ray.get(handle.warm_up.remote(), timeout=limit_s)
            self._park(name)
        except Exception as error:
            return self._give_up(name, error, f"loading and warming up took longer than {limit_s:g} s")
        self._turn_s[name] = turn_s(ready.call_ns)
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
                turns[name] = ray.get(self._running[name].handle.turn.remote(), timeout=self._turn_limit_s(name))
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
                peaks[name] = ray.get(running.handle.peak_rss_bytes.remote(), timeout=LEAST_CALL_LIMIT_S)
            self._kill(name)
        return peaks

    def close(self) -> None:
        """End every process, release the slot's lock and remove this process's folder."""
        for name in list(self._running):
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

    def _start(self, kind: type, name: str, cell: Cell) -> Running:
        """Ask Ray for a process of this cohort.

        It sets its threads itself, before it imports a runtime: a runtime environment would do so too, but starting
        through one takes Ray half a second more for each process.
        """
        log = self._folder / f"{name}.log"
        remote = ray.remote(kind).options(num_cpus=0, max_restarts=0)
        cores = self._slot.cores[: cell.workload.threads] if cell.workload.device == "cpu" else self._slot.cores
        # Ray tells this process, which holds the slot's GPU, which one that is; its children hold none themselves.
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "") if self._slot.gpu else ""
        self._running[name] = Running(remote.remote(list(cores), cell.workload.threads, gpus, str(log)), log)
        return self._running[name]

    def _launch(self, kind: type, name: str, cell: Cell) -> Running:
        running = self._start(kind, name, cell)
        self._await_pid(name)
        return running

    def _await_pid(self, name: str) -> None:
        running = self._running[name]
        running.pid = ray.get(running.handle.pid.remote(), timeout=BOOT_S)

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
        running = self._running.get(name)
        tail = _tail(running.log) if running else ""
        if isinstance(error, GetTimeoutError):
            return Failure("failed", when_late, tail)
        if isinstance(error, RayActorError | ProcessLookupError):
            return Failure("failed", "the process died", tail)
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, ProofFailedError):
            return Failure("invalid", str(cause), tail)
        if isinstance(cause, MethodUnsupportedError):
            return Failure("unsupported", str(cause), tail)
        if isinstance(cause, FarmError):
            return Failure("failed", str(cause), tail)
        return Failure("failed", f"{type(cause).__name__}: {cause}".splitlines()[0], tail or str(error)[-TAIL_BYTES:])

    def _kill(self, name: str) -> None:
        """End a process through Ray, to which a signal of ours would look like a crash. It must run to be told."""
        running = self._running.pop(name, None)
        if running is None:
            return
        if running.pid:
            with suppress(ProcessLookupError):
                os.kill(running.pid, signal.SIGCONT)
        with suppress(RayError):
            ray.kill(running.handle, no_restart=True)


def _tail(log: Path) -> str:
    try:
        return log.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
    except OSError:
        return ""
