"""Methods of known behaviour: no work, fixed work, and each way to fail. For tests and for checking a machine."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from farm.records import Device, Machine, ModelInfo, Workload
from tasks.gpu_settings import needs_cuda_build
from tasks.method import Arrays, Loaded, Method


class Controlled:
    """Calls `behave` and answers constant logits."""

    def __init__(self, workload: Workload, behave: Callable[[], None], logit: float = 1.0) -> None:
        self._logits = np.tile(np.array([0.0, logit], np.float32), (workload.batch_size, 1))
        self._behave = behave

    def __call__(self, inputs: Arrays) -> Arrays:
        """Answer the same logits whatever the inputs."""
        del inputs
        self._behave()
        return {"logits": self._logits}

    def proof(self) -> Mapping[str, Any]:
        """A control has nothing to prove but that it ran."""
        return {"control": True}


class Control(Method):
    """A method that never looks at the model."""

    runs_model: ClassVar[bool] = False


UNIT_CYCLES = 50_000
"""Of a GPU's clock in a unit of its work: about as long as a unit takes on a CPU."""


class Null(Control):
    """Does nothing: what remains is what the harness itself costs."""

    id: ClassVar[str] = "control-null"
    about: ClassVar[str] = "control: a call that does nothing"

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """Nothing to load."""
        del model, folder
        return Controlled(workload, lambda: None)


@dataclass(frozen=True)
class WorkOptions:
    """`units` of fixed work per call; one unit is a few tens of microseconds of integer arithmetic."""

    units: int = 100


class FixedWork(Control):
    """A fixed amount of arithmetic: twice the units take twice as long on any machine."""

    id: ClassVar[str] = "control-work"
    about: ClassVar[str] = "control: a fixed amount of arithmetic per call"
    Options: ClassVar[type] = WorkOptions

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """Fix the amount of work."""
        del model, folder
        units = WorkOptions(**workload.options).units

        def work() -> None:
            total = 0
            for number in range(units * 500):
                total += number & 7

        return Controlled(workload, work)


class FixedGpuWork(Control):
    """A GPU that counts its own clock: twice the units take twice as long on any chip whose clock stays the same."""

    id: ClassVar[str] = "control-gpu-work"
    about: ClassVar[str] = "control: a GPU that is busy for a fixed number of its cycles per call"
    devices: ClassVar[tuple[Device, ...]] = ("cuda",)
    requires: ClassVar[tuple[str, ...]] = ("torch",)
    Options: ClassVar[type] = WorkOptions

    def check_supported(self, machine: Machine, device: Device) -> None:
        """A PyTorch for CUDA starts the kernel."""
        super().check_supported(machine, device)
        needs_cuda_build(self.id, machine)

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """Fix the number of cycles."""
        import torch

        del model, folder
        cycles = WorkOptions(**workload.options).units * UNIT_CYCLES

        def work() -> None:
            torch.cuda._sleep(cycles)
            torch.cuda.synchronize()

        return Controlled(workload, work)


@dataclass(frozen=True)
class FailureOptions:
    """`at`: load or call. `after`: calls that succeed first. `how`: raise, exit, or segfault."""

    at: str = "call"
    after: int = 0
    how: str = "raise"

    def __post_init__(self) -> None:
        """Refuse words that mean nothing."""
        if self.at not in ("load", "call") or self.how not in ("raise", "exit", "segfault"):
            raise ValueError("at is 'load' or 'call'; how is 'raise', 'exit' or 'segfault'")


def _after(calls: int, misbehave: Callable[[], None]) -> Callable[[], None]:
    """Nothing at the first so many calls, `misbehave` at every later one."""
    counted = itertools.count()

    def behave() -> None:
        if next(counted) >= calls:
            misbehave()

    return behave


def _fail(how: str) -> None:
    if how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "exit":
        os._exit(17)
    raise RuntimeError("this control raises on purpose")


class Crash(Control):
    """Dies at a chosen moment."""

    id: ClassVar[str] = "control-crash"
    about: ClassVar[str] = "control: raises, exits or segfaults"
    Options: ClassVar[type] = FailureOptions

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """Fail now, or return a callable that will."""
        del model, folder
        options = FailureOptions(**workload.options)
        if options.at == "load":
            _fail(options.how)
        return Controlled(workload, _after(options.after, lambda: _fail(options.how)))


class BrokenImport(Control):
    """Its library is there and cannot be imported, as where a shared library is missing."""

    id: ClassVar[str] = "control-broken-import"
    about: ClassVar[str] = "control: a library that raises when it is imported"
    runs_on: ClassVar[tuple[str, ...]] = ("colorsys",)
    """Small, and nobody else's: a nursery imports it for these cells alone."""
    forks_after_import: ClassVar[bool] = True

    def import_runtime(self, model: ModelInfo) -> None:
        """Raise what the dynamic loader does."""
        del model
        raise OSError("libmissing.so.1: cannot open shared object file: No such file or directory")

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """Never reached."""
        raise NotImplementedError


class CrashingImport(BrokenImport):
    """Its library takes the process with it when it is imported, as where the CPU lacks an instruction."""

    id: ClassVar[str] = "control-crashing-import"
    about: ClassVar[str] = "control: a library that crashes when it is imported"

    def import_runtime(self, model: ModelInfo) -> None:
        """Die as an illegal instruction lets a process die."""
        del model
        os.kill(os.getpid(), signal.SIGILL)


@dataclass(frozen=True)
class HangOptions:
    """`at`: load or call. `after`: calls that return first."""

    at: str = "call"
    after: int = 0


def _hang() -> None:
    time.sleep(86_400)


class Hang(Control):
    """Stops answering at a chosen moment."""

    id: ClassVar[str] = "control-hang"
    about: ClassVar[str] = "control: never returns"
    Options: ClassVar[type] = HangOptions

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """Hang now, or return a callable that will."""
        del model, folder
        options = HangOptions(**workload.options)
        if options.at == "load":
            _hang()
        return Controlled(workload, _after(options.after, _hang))


@dataclass(frozen=True)
class LeakOptions:
    """`bytes_per_call` are allocated in every call and never given back. `after`: calls that leak nothing."""

    bytes_per_call: int = 1_000_000
    after: int = 0


class Leak(Control):
    """Needs more memory with every call, until there is none."""

    id: ClassVar[str] = "control-leak"
    about: ClassVar[str] = "control: leaks memory"
    Options: ClassVar[type] = LeakOptions

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """Nothing leaks yet."""
        del model, folder
        options = LeakOptions(**workload.options)
        kept: list[np.ndarray] = []
        return Controlled(
            workload, _after(options.after, lambda: kept.append(np.ones(options.bytes_per_call, np.uint8)))
        )


class Wrong(Control):
    """Answers something else than the baseline: must be found out before it is timed."""

    id: ClassVar[str] = "control-wrong"
    about: ClassVar[str] = "control: wrong logits"

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """Answer the other label."""
        del model, folder
        return Controlled(workload, lambda: None, logit=-1.0)
