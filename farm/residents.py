"""The processes that live on a cohort's slot, by name: started, parked and continued by signal, ended, explained."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

from farm.errors import FarmError, MethodUnsupportedError, ProofFailedError
from farm.gpus import identify
from farm.nursery import Kind, Nursery, ProcessDiedError, Resident, TooLateError
from farm.plan import MEMORY_SHARE
from farm.records import Failure, Slot, Status, Workload
from farm.scratch import Scratch

GPU_END_S = 10.0
"""A driver takes a second or two to give back the tens of gigabytes of a process that was ended."""

TAIL_BYTES = 2_000
"""The end of a dead process's own output that is kept with its row."""


class Residents:
    """All of them end with this process, or when `close` is called."""

    def __init__(self, slot: Slot, memory_bytes: int | None = None) -> None:
        """`memory_bytes` limits what each cell on a CPU allocates; None is most of the slot's memory."""
        self._slot = slot
        self._memory_bytes = memory_bytes or int(slot.memory_bytes * MEMORY_SHARE)
        self._scratch = Scratch()
        self._living: dict[str, Resident] = {}
        self._nurseries: dict[str, Nursery] = {}
        self._going: list[Resident] = []

    def __getitem__(self, name: str) -> Resident:
        """The process of this name. Raises ProcessDiedError where there is none any more."""
        if name not in self._living:
            raise ProcessDiedError
        return self._living[name]

    def pids(self) -> Mapping[str, int]:
        """Process ids of the living, by name."""
        return {name: resident.pid for name, resident in self._living.items()}

    def open_nursery(self, name: str, workload: Workload) -> Nursery:
        """Start a nursery whose children have the workload's threads and see its device alone."""
        cores = self._slot.cores[: workload.threads] if workload.device == "cpu" else self._slot.cores
        # Ray tells this process, which holds the node's GPUs, which those are; its children hold none themselves.
        gpus = identify(os.environ.get("CUDA_VISIBLE_DEVICES", ""), self._slot.gpu_index) if self._slot.gpu else ""
        # CUDA's driver reserves address space far beyond what it uses.
        limit = self._memory_bytes if workload.device == "cpu" else None
        self._nurseries[name] = Nursery(cores, workload.threads, gpus, self._log(f"nursery-{name}"), limit)
        return self._nurseries[name]

    def fork(self, nursery: Nursery, kind: Kind, name: str) -> Resident:
        """Fork a process and keep it under this name, on a GPU when those that were ended have given their memory back.

        In a container, moreover, a process is told from others by when it comes. A cell has a folder of its own for
        temporary files.
        """
        self._wait_for_going()
        temporary = self._temporary(name) if kind == "cell" else None
        self._living[name] = nursery.fork(kind, self._log(name), temporary=temporary)
        return self._living[name]

    def launch(self, kind: Kind, name: str, workload: Workload) -> Resident:
        """Start a process that shares nothing with the others."""
        return self.fork(self.open_nursery(name, workload), kind, name)

    def park(self, name: str) -> None:
        """Stop the process: it uses nothing until it is woken."""
        os.kill(self[name].pid, signal.SIGSTOP)

    def wake(self, name: str) -> None:
        """Continue a parked process."""
        os.kill(self[name].pid, signal.SIGCONT)

    def kill(self, name: str) -> None:
        """End a process, parked or not, and the nursery that was opened for it alone; its temporary files go too."""
        if (resident := self._living.pop(name, None)) is not None:
            resident.kill()
            if self._slot.gpu:
                self._going.append(resident)
        if (nursery := self._nurseries.pop(name, None)) is not None:
            nursery.close()
        shutil.rmtree(self._temporary(name), ignore_errors=True)

    def kill_all(self) -> None:
        """End every process and every nursery."""
        for name in [*self._living, *self._nurseries]:
            self.kill(name)

    def close(self) -> None:
        """End every process and remove their logs and temporary files."""
        self.kill_all()
        self._wait_for_going()
        self._scratch.remove()

    def explain(self, name: str, error: Exception, when_late: str) -> Failure:
        """The status, reason and last output of a process that raised this; `when_late` says what a limit meant."""
        status: Status = "failed"
        match error:
            case TooLateError():
                reason = when_late
            case ProcessDiedError() | ProcessLookupError():
                reason = "the process died"
            case MemoryError():
                reason = f"out of memory, of which it may use {self._memory_bytes / 1e9:.1f} GB"
            case ProofFailedError():
                status, reason = "invalid", str(error)
            case MethodUnsupportedError():
                status, reason = "unsupported", str(error)
            case ImportError():  # a package that is there, as planning saw, but broken here
                status, reason = "unsupported", f"a library cannot be imported: {type(error).__name__}: {error}"
            case FarmError():
                reason = str(error)
            case _:
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return Failure(status, reason, self._tail(name))

    def _wait_for_going(self) -> None:
        while self._going:
            self._going.pop().wait_until_gone(GPU_END_S)

    def _log(self, name: str) -> Path:
        return self._scratch.folder / f"{name}.log"

    def _temporary(self, name: str) -> Path:
        return self._scratch.folder / name

    def _tail(self, name: str) -> str:
        try:
            return self._log(name).read_bytes()[-TAIL_BYTES:].decode(errors="replace")
        except OSError:
            return ""
