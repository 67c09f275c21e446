"""What runs inside a measured process: pin, load, warm up, prove, take turns. Imports its own runtime and no other."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from farm import timing, warmup
from farm.errors import ProofFailedError
from farm.records import Cell, Device, ModelInfo, Turn, WarmUp, Workload
from tasks.accuracy import predict
from tasks.artifacts import Artifact, check_outputs, prepare_artifact
from tasks.ceilings import search_ceilings, search_gpu_ceilings
from tasks.half import explain_overflow
from tasks.method import Arrays, Loaded, Method, allocated_bytes, device_clock, find_method, late_proof
from tasks.operations import PRODUCTS
from tasks.sentinels import Case, Sentinel

RUNTIMES = ("torch", "transformers", "onnxruntime", "openvino", "tensorrt", "tensorflow", "jax")
"""Modules whose thread pools and allocators could disturb a cell that does not need them."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

PR_SET_PDEATHSIG = 1

EVALUATION_BATCH = 16
"""Texts evaluated at once where that changes nothing: the weights are then read from memory once for all of them."""

SPARE_CORES, LEAST_WATCHED_NS = 0.5, 50_000_000
"""Calls that were watched for that long must not have kept so many more cores busy than they have threads to run on."""


def cell_environment(threads: int, gpus: str) -> dict[str, str]:
    """What a cell's process is started with: every numerical library gets `threads` threads from its first import on.

    `gpus` is what CUDA may see, as CUDA_VISIBLE_DEVICES has it: the slot's GPU, or nothing.
    """
    limits = {name: str(threads) for name in THREAD_VARIABLES}
    return limits | {"TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": gpus}


def pin(cores: Sequence[int]) -> None:
    """Bind every thread of this process to these cores; later ones inherit it."""
    if hasattr(os, "sched_setaffinity"):
        for task in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(task.name), cores)


def die_with_parent() -> None:
    """Ask the kernel to kill this process with its parent: a stopped process cannot notice that it is alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:  # the parent was faster
            os._exit(0)


def send_output_to(log: str) -> None:
    """Send what this process prints, or is printed about it, to a file of its own."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def put_temporary_files_in(folder: Path) -> None:
    """Let Python and native libraries use a folder of their own: a killed process cannot remove what it made."""
    folder.mkdir(mode=0o700, exist_ok=True)
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None  # somebody may have asked before this process was forked


class WorkshopProcess:
    """A process that prepares artifacts, so that no measuring process ever holds a compiler or an exporter."""

    def __init__(self, cores: Sequence[int]) -> None:
        del cores

    def prepare(self, method_id: str, model: ModelInfo, workload: Workload) -> Artifact:
        """Prepare one artifact into the cache."""
        return prepare_artifact(find_method(method_id), model, workload)


class SentinelProcess:
    """The helper that times a few fixed products and reads in every round: what the machine can do at that moment."""

    def __init__(self, cores: Sequence[int]) -> None:
        del cores
        self._sentinel: Sentinel

    def prepare(self, ceilings: Mapping[str, Any] | None, device: Device = "cpu") -> Mapping[str, Any]:
        """Hold the cases that these ceilings name ready; without any, search for the device's ceilings first."""
        threads = int(os.environ[THREAD_VARIABLES[0]])
        if ceilings is None:
            search = search_gpu_ceilings if device == "cuda" else search_ceilings
            ceilings = {rate: asdict(found) for rate, found in search(threads).items()}
        cases = {rate: Case(**ceiling["sentinel_case"]) for rate, ceiling in ceilings.items()}
        self._sentinel = Sentinel(cases, threads)
        gc.freeze()
        return ceilings

    def measure(self) -> dict[str, float]:
        """The rates now, in GFLOP/s, for int8 in GOP/s, for memory in GB/s."""
        return self._sentinel.measure()


class CellProcess:
    """One cell: one method at one workload, alone in its process."""

    def __init__(self, cores: Sequence[int]) -> None:
        # Imports make a million objects that live for ever; looking through them for garbage took a fifth of the time.
        gc.disable()
        self._cores = set(cores)
        self._method: Method
        self._call: Loaded
        self._inputs: list[Arrays]
        self._load_s = 0.0
        self._batch = 1
        self._samples = timing.TURN_CALLS

    def import_runtime(self, method_id: str, model: ModelInfo) -> None:
        """Import the method's runtime. Cells of a cohort do this at the same time; loading is timed one by one."""
        self._method = find_method(method_id)
        self._method.import_runtime(model)

    def load(self, cell: Cell, model: ModelInfo, folder: str, inputs: Sequence[Arrays]) -> float:
        """Load the artifact; return the seconds it took. `inputs` are the batches that turns will rotate through."""
        self._cell = cell
        self._inputs = [dict(arrays) for arrays in inputs]
        started = time.perf_counter()
        self._call = self._method.load(model, cell.workload, Path(folder))
        self._load_s = time.perf_counter() - started
        # What was imported and loaded stays: the collection before each turn (0.2 s for PyTorch with transformers)
        # then looks only at what the calls made.
        gc.freeze()
        gc.enable()
        return self._load_s

    def warm_up(self, turn_calls: int = timing.TURN_CALLS) -> WarmUp:
        """Answer every input once, prove what ran, then call until the latency is steady or the cap is reached.

        `turn_calls` is the least number of samples in each turn that follows. Raises ProofFailedError where the
        evidence contradicts the method.
        """
        latencies: list[int] = []
        logits = [self._answer(arrays, latencies) for arrays in self._inputs]
        proof = self._prove()
        started_ns, used_ns = time.perf_counter_ns(), time.process_time_ns()
        while not (warmup.is_steady(latencies) or warmup.is_capped(latencies)):
            self._answer(self._inputs[len(latencies) % len(self._inputs)], latencies)
        busy_cores = self._busy_cores(time.process_time_ns() - used_ns, time.perf_counter_ns() - started_ns)
        recent = sorted(latencies[len(latencies) // 2 :])
        call_ns = float(recent[len(recent) // 2])
        self._batch = timing.calls_per_sample(call_ns)
        self._samples = timing.samples_per_turn(call_ns, turn_calls)
        return WarmUp(
            load_s=self._load_s,
            first_call_ns=latencies[0],
            calls=len(latencies),
            steady=warmup.is_steady(latencies),
            call_ns=call_ns,
            logits=tuple(tuple(tuple(row) for row in one.tolist()) for one in logits),
            proof={**proof, "busy_cores": busy_cores},
            precisions={each: self._method.precision_of(each, self._cell.workload) for each in PRODUCTS},
        )

    def turn(self) -> Turn:
        """Take one turn: a discarded re-warm, then timed samples."""
        clock = device_clock(self._call)
        collect = None if clock is None else clock.collect
        return timing.time_turn(self._call, self._inputs, self._samples, self._batch, device_ns=collect)

    def predict(self, encoded: Arrays) -> np.ndarray:
        """Return the logits `[texts, labels]`, each text as the cell would be given it.

        Only where no result depends on it (FP32, any shape) are texts of like length put together: reduced precision
        scales activations over what it is given at once.
        """
        any_shape = self._method.takes_any_shape(self._cell.workload)
        together = any_shape and self._method.exact
        size = EVALUATION_BATCH if together else self._cell.workload.batch_size
        logits = predict(self._call, encoded, size, trim=any_shape)
        for row in np.flatnonzero(~np.isfinite(logits).all(axis=1))[:1]:
            explain_overflow(self._method, self._call, {name: array[row : row + 1] for name, array in encoded.items()})
        return logits

    def peaks(self) -> dict[str, int | None]:
        """The most memory this process has held: its own, and what its framework gave out on a GPU; None is unknown."""
        return {
            "peak_rss_bytes": _peak_rss_bytes(),
            "allocated_vram_bytes": allocated_bytes(getattr(self, "_call", None)),
        }

    def prove_late(self) -> Mapping[str, Any]:
        """What the method proves after its last timed call. Raises ProofFailedError."""
        return dict(late_proof(self._call))

    def _answer(self, arrays: Arrays, latencies: list[int]) -> np.ndarray:
        started = time.perf_counter_ns()
        outputs = self._call(arrays)
        latencies.append(time.perf_counter_ns() - started)
        logits = check_outputs(outputs)
        if not np.isfinite(logits).all():
            explain_overflow(self._method, self._call, arrays)
        return logits

    def _busy_cores(self, used_ns: int, wall_ns: int) -> float:
        """How many cores this process kept busy on average, whatever its runtime says of its threads.

        Raises ProofFailedError where it was more than it was to have. On a GPU a driver's threads may wait in loops.
        """
        busy, threads = used_ns / wall_ns, self._cell.workload.threads
        on_cpu, watched = self._cell.workload.device == "cpu", wall_ns >= LEAST_WATCHED_NS
        if on_cpu and watched and busy > threads + SPARE_CORES:
            raise ProofFailedError(f"its calls kept {busy:.1f} cores busy, with {threads} threads to run on")
        return round(busy, 2)

    def _prove(self) -> Mapping[str, Any]:
        """Evidence about the process, true for every method, beside the method's own."""
        threads = {int(task.name): _affinity(int(task.name)) for task in Path("/proc/self/task").iterdir()}
        strayed = sorted(tid for tid, cpus in threads.items() if not cpus <= self._cores)
        imported = [name for name in RUNTIMES if name in sys.modules]
        process = {
            "pid": os.getpid(),
            "affinity": sorted(os.sched_getaffinity(0)),
            "os_threads": len(threads),
            "python_threads": threading.active_count(),
            "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
            "niceness": os.nice(0),
            "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "imported_runtimes": imported,
        }
        if strayed:
            raise ProofFailedError(f"{len(strayed)} threads may run outside cores {sorted(self._cores)}")
        foreign = sorted(set(imported) - set(self._method.runtimes()))
        if foreign:
            raise ProofFailedError(f"the cell imported {', '.join(foreign)}, which {self._method.id} does not need")
        return {**process, "method": dict(self._call.proof())}


def _affinity(thread: int) -> set[int]:
    try:
        return os.sched_getaffinity(thread)
    except ProcessLookupError:  # a thread may end while it is being listed
        return set()


def _peak_rss_bytes() -> int | None:
    """VmHWM rather than ru_maxrss: the latter also counts what the process was before it executed this program."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
    return int(line.split()[1]) * 1024 if line else None
