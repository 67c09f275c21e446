"""Fresh processes in a fraction of the time: a runtime is imported once a replica, and each cell is forked from there.

Importing PyTorch and transformers takes four to nine seconds of CPU time; in three cells of a cohort, on two cores,
that was half of a replica's set-up. A cell forked from a process that has imported but never computed shares those
pages and nothing that it writes. It is a process of its own with nothing else in it: no thread of Ray's either.

The nursery is executed anew for every replica, so that replicas differ in the layout of their memory as any fresh
processes do. Cells are single-threaded until their own runtime starts its threads: the nursery runs no operator.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import Any, Literal

from farm.actor import (
    CellProcess,
    SentinelProcess,
    WorkshopProcess,
    cell_environment,
    die_with_parent,
    pin,
    put_temporary_files_in,
    send_output_to,
)
from farm.errors import FarmError
from farm.records import Cell, ModelInfo
from tasks.method import Method, find_method

Kind = Literal["cell", "workshop", "sentinel"]
KINDS = {"cell": CellProcess, "workshop": WorkshopProcess, "sentinel": SentinelProcess}

END_POLL_S = 0.02

START_S = 60
"""A bare Python process that has not answered after a minute will not."""


class ProcessDiedError(Exception):
    """The process at the other end of the line is gone."""


class TooLateError(Exception):
    """The process did not answer within its limit."""


@dataclass
class Resident:
    """A process that was forked here: its pid, its own log, and the line to it. One message is in flight at a time."""

    pid: int
    log: Path
    line: Connection

    def ask(self, name: str, *arguments: Any) -> None:
        """Call a method of the process without waiting for its answer. Raises ProcessDiedError."""
        _send(self.line, (name, arguments))

    def answer(self, timeout_s: float) -> Any:
        """Wait for the answer to what was asked.

        Raises what the method raised, TooLateError after `timeout_s` seconds, ProcessDiedError if it is gone.
        """
        return _answer(self.line, timeout_s)

    def call(self, name: str, *arguments: Any, timeout_s: float) -> Any:
        """Call a method of the process and wait for its answer; raises what `answer` raises."""
        self.ask(name, *arguments)
        return self.answer(timeout_s)

    def kill(self) -> None:
        """End the process, stopped or not."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.line.close()

    def wait_until_gone(self, timeout_s: float) -> None:
        """Return when the kernel has taken the ended process apart, its memory on a GPU included, or it is too late."""
        until = time.monotonic() + timeout_s
        with suppress(ProcessLookupError):
            while time.monotonic() < until:
                os.kill(self.pid, 0)
                if _is_taken_apart(self.pid):
                    return
                time.sleep(END_POLL_S)


def _is_taken_apart(pid: int) -> bool:
    """Whether nothing is left of an ended process but its entry, which whoever inherited it may never remove."""
    import psutil  # not for every cell that is forked from here

    try:
        process = psutil.Process(pid)
        return process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
    except psutil.Error:
        return True


class Nursery:
    """The parent of a replica's processes, itself a child of whoever made this object.

    It ends when `close` is called or this process is gone, and everything it forked ends with it.
    """

    def __init__(
        self, cores: Sequence[int], threads: int, gpus: str, log: Path, memory_bytes: int | None = None
    ) -> None:
        """Start it on these cores; its cells have `threads` threads, see `gpus`, and may allocate `memory_bytes`."""
        here, there = socket.socketpair()
        settings = json.dumps([list(cores), str(log), memory_bytes])
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "farm.nursery", str(there.fileno()), settings],
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C in the terminal is the driver's to handle
                env=os.environ | cell_environment(threads, gpus) | {"PYTHONPATH": _search_path()},
            )
        self._line = Connection(here.detach())

    def import_runtime(self, method_id: str, model: ModelInfo, timeout_s: float) -> None:
        """Import what cells of this method need, for all that are forked later; raises what `fork` raises."""
        _send(self._line, ("import", method_id, model))
        _answer(self._line, timeout_s)

    def fork(self, kind: Kind, log: Path, timeout_s: float = START_S, *, temporary: Path | None = None) -> Resident:
        """Fork a process; its output goes to `log`, and its temporary files to a folder that may not exist yet.

        Raises ProcessDiedError or TooLateError.
        """
        here, there = socket.socketpair()
        try:
            with there:
                _send(self._line, ("fork", kind, str(log), temporary))
                send_handle(self._line, there.fileno(), self._process.pid)
            pid = _answer(self._line, timeout_s)
        except BaseException:
            here.close()
            raise
        return Resident(pid, log, Connection(here.detach()))

    def close(self) -> None:
        """End the nursery and, through the kernel, everything it forked."""
        self._line.close()
        self._process.kill()
        self._process.wait()


@dataclass(frozen=True, slots=True)
class ImportStage:
    """Cells that are forked together, after the nursery has imported what `method` needs (None: nothing)."""

    method: Method | None
    cells: list[Cell]

    @property
    def runtimes(self) -> tuple[str, ...]:
        """What the nursery has imported by then."""
        return self.method.runtimes() if self.method else ()


def import_stages(cells: Sequence[Cell]) -> list[ImportStage]:
    """In which order a nursery imports and forks.

    Stages grow: what one imported, all later ones need too. Cells that fit no such chain come first, from a nursery
    that has imported nothing; so do those of a GPU, for a library may ask for devices while it is imported, and a
    process that has spoken to CUDA's driver must not be forked.
    """
    stages = [ImportStage(None, [])]
    for cell in sorted(cells, key=lambda cell: len(find_method(cell.method).runtimes())):
        method = find_method(cell.method)
        imported, needed = set(stages[-1].runtimes), set(method.runtimes())
        forks = method.forks_after_import and cell.workload.device == "cpu"
        if not (forks and imported <= needed):
            stages[0].cells.append(cell)
        elif imported == needed:
            stages[-1].cells.append(cell)
        else:
            stages.append(ImportStage(method, [cell]))
    return stages


def _search_path() -> str:
    """The nursery must find this package, not a module of the same name in somebody's current folder."""
    return os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), *sys.path]))


def _send(line: Connection, message: tuple[Any, ...]) -> None:
    try:
        line.send(message)
    except OSError:
        raise ProcessDiedError from None


def _answer(line: Connection, timeout_s: float) -> Any:
    try:
        if not line.poll(timeout_s):
            raise TooLateError
        kind, value = line.recv()
    except (EOFError, OSError):
        raise ProcessDiedError from None
    if kind == "raised":
        raise value
    return value


def _serve(line: Connection, cores: Sequence[int], memory_bytes: int | None) -> None:
    """The nursery's own loop. Everything it does is asked for by its parent; it ends when the parent is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries children that nobody waits for
    gc.disable()
    while True:
        try:
            message = line.recv()
        except EOFError:
            return
        if message[0] == "import":
            _reply(line, _import, message[1:])
            # A collection in a child would write to every page that it shares with the others.
            gc.freeze()
            continue
        _, kind, log, temporary = message
        handle = recv_handle(line)
        pid = os.fork()
        if pid == 0:
            line.close()
            if kind == "cell" and memory_bytes is not None:
                resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
            if temporary is not None:
                put_temporary_files_in(temporary)
            _live(Connection(handle), KINDS[kind], cores, log)
        os.close(handle)
        line.send(("done", pid))


def _live(line: Connection, kind: type, cores: Sequence[int], log: str) -> None:
    """The life of a forked process: answer one message after another until the line is cut."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    die_with_parent()
    send_output_to(log)
    faulthandler.enable()  # a crash in native code leaves its last words in the log
    resident = kind(cores)
    while True:
        try:
            name, arguments = line.recv()
        except EOFError:
            os._exit(0)
        _reply(line, getattr(resident, name), arguments)


def _import(method_id: str, model: ModelInfo) -> None:
    find_method(method_id).import_runtime(model)


def _reply(line: Connection, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
    """Do the work and send its result, or what it raised; the traceback goes to this process's own log."""
    answer: tuple[str, Any]
    try:
        answer = ("done", work(*arguments))
    except Exception as error:
        traceback.print_exc()
        answer = ("raised", error)
    try:
        line.send(answer)
    except OSError:
        os._exit(0)
    except Exception as error:  # whatever cannot be pickled still has a name and a message
        unsent = answer[1]
        line.send(("raised", FarmError(f"{type(unsent).__name__}: {unsent} ({error})")))


def _main(descriptor: str, settings: str) -> None:
    cores, log, memory_bytes = json.loads(settings)
    pin(cores)
    send_output_to(log)
    _serve(Connection(int(descriptor)), cores, memory_bytes)


if __name__ == "__main__":
    _main(*sys.argv[1:])
