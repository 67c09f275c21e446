"""Cells are forked from a process that has imported their runtime: alone, pinned, found dead when dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from made_up import GPU_SLOT, MODEL, SLOT

from farm.nursery import Nursery, ProcessDiedError, Resident, TooLateError
from farm.records import Cell, Slot, Workload
from farm.residents import Residents

CORES = sorted(os.sched_getaffinity(0))[:1]
WORKLOAD = Workload("cpu", 1, 1, 8)
ANSWER_S = 60
ROOT = Path(__file__).parents[1]


def _cell(method: str, **options: object) -> Cell:
    return Cell("cell", "candidate", method, method, "fp32", Workload("cpu", 1, 1, 8, options))


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    opened = Nursery(CORES, 1, "", tmp_path / "nursery.log")
    yield opened
    opened.close()


def _loaded(nursery: Nursery, tmp_path: Path, method: str, **options: object) -> Resident:
    resident = nursery.fork("cell", tmp_path / f"{method}.log")
    resident.call("import_runtime", method, MODEL, timeout_s=ANSWER_S)
    resident.call("load", _cell(method, **options), MODEL, "", [{}], timeout_s=ANSWER_S)
    return resident


def _wait_until(happened: Callable[[], bool]) -> bool:
    """Whether it happens within a few seconds."""
    until = time.monotonic() + 15
    while not happened() and time.monotonic() < until:
        time.sleep(0.02)
    return happened()


def _gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_an_ended_process_can_be_waited_for(nursery: Nursery, tmp_path: Path) -> None:
    resident = _loaded(nursery, tmp_path, "control-null")
    os.kill(resident.pid, signal.SIGSTOP)
    resident.kill()
    resident.wait_until_gone(15)
    assert not psutil.pid_exists(resident.pid)
    began = time.monotonic()
    Resident(os.getpid(), tmp_path, resident.line).wait_until_gone(0.05)
    assert time.monotonic() - began < 15


def test_an_ended_process_whose_heir_never_asks_for_it_is_gone_all_the_same(nursery: Nursery, tmp_path: Path) -> None:
    orphan = subprocess.Popen([sys.executable, "-c", ""])
    assert _wait_until(lambda: psutil.Process(orphan.pid).status() == psutil.STATUS_ZOMBIE)
    resident = nursery.fork("cell", tmp_path / "cell.log")
    began = time.monotonic()
    Resident(orphan.pid, tmp_path, resident.line).wait_until_gone(30)
    assert time.monotonic() - began < 15
    assert orphan.wait() == 0


@pytest.mark.parametrize(("slot", "waits"), [(SLOT, 0), (GPU_SLOT, 1)])
def test_on_a_gpu_nobody_comes_before_the_last_one_has_gone(
    slot: Slot, waits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(Resident, "kill", lambda _: None)
    monkeypatch.setattr(Resident, "wait_until_gone", lambda _, timeout_s: waited.append(timeout_s))
    residents = Residents(slot)
    residents._living["cell"] = Resident(0, Path("log"), None)  # type: ignore[arg-type]
    residents._living["other"] = Resident(0, Path("log"), None)  # type: ignore[arg-type]
    residents.kill("cell")
    assert waited == []
    residents.fork(SimpleNamespace(fork=lambda *_, **__: Resident(0, Path("log"), None)), "cell", "next")  # type: ignore[arg-type]
    assert len(waited) == waits
    residents.close()
    assert len(waited) == 3 * waits


def test_every_resident_is_a_process_of_its_own_on_the_slots_cores(nursery: Nursery, tmp_path: Path) -> None:
    residents = [nursery.fork("cell", tmp_path / f"{number}.log") for number in range(3)]
    pids = {resident.pid for resident in residents}
    assert len(pids | {os.getpid()}) == 4
    assert all(os.sched_getaffinity(pid) == set(CORES) for pid in pids)


def test_threads_and_devices_are_settled_before_anything_is_imported(nursery: Nursery, tmp_path: Path) -> None:
    resident = nursery.fork("cell", tmp_path / "a.log")
    environment = psutil.Process(resident.pid).environ()
    assert environment["OMP_NUM_THREADS"] == environment["OPENBLAS_NUM_THREADS"] == "1"
    assert environment["CUDA_VISIBLE_DEVICES"] == ""


def test_a_cell_puts_temporary_files_in_the_folder_it_was_given(nursery: Nursery, tmp_path: Path) -> None:
    resident = nursery.fork("cell", tmp_path / "a.log", temporary=tmp_path / "a")
    resident.call("import_runtime", "control-null", MODEL, timeout_s=ANSWER_S)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700


def test_what_one_resident_does_stays_in_it(nursery: Nursery, tmp_path: Path) -> None:
    crashing = _loaded(nursery, tmp_path, "control-crash", how="segfault")
    steady = _loaded(nursery, tmp_path, "control-null")
    with pytest.raises(ProcessDiedError):
        crashing.call("turn", timeout_s=ANSWER_S)
    assert steady.call("turn", timeout_s=ANSWER_S).latency_ns
    assert "Segmentation fault" in crashing.log.read_text()


def test_an_error_keeps_its_kind_and_its_traceback(nursery: Nursery, tmp_path: Path) -> None:
    resident = _loaded(nursery, tmp_path, "control-crash", how="raise")
    with pytest.raises(RuntimeError, match="raises on purpose"):
        resident.call("turn", timeout_s=ANSWER_S)
    assert "tasks/controls.py" in resident.log.read_text()


def test_a_resident_that_does_not_answer_is_too_late(nursery: Nursery, tmp_path: Path) -> None:
    resident = nursery.fork("cell", tmp_path / "slow.log")
    os.kill(resident.pid, signal.SIGSTOP)
    with pytest.raises(TooLateError):
        resident.call("peaks", timeout_s=0.2)
    os.kill(resident.pid, signal.SIGCONT)
    assert resident.answer(ANSWER_S)["peak_rss_bytes"]  # late, and not lost


def test_a_killed_resident_is_gone_even_if_it_was_stopped(nursery: Nursery, tmp_path: Path) -> None:
    resident = nursery.fork("cell", tmp_path / "stopped.log")
    os.kill(resident.pid, signal.SIGSTOP)
    resident.kill()
    assert _wait_until(lambda: _gone(resident.pid))


def test_all_residents_end_with_their_nursery(nursery: Nursery, tmp_path: Path) -> None:
    residents = [nursery.fork("cell", tmp_path / f"{number}.log") for number in range(2)]
    residents[0].call("peaks", timeout_s=ANSWER_S)  # by then it has asked to die with its parent
    os.kill(residents[0].pid, signal.SIGSTOP)
    nursery.close()
    assert _wait_until(lambda: all(_gone(resident.pid) for resident in residents))
    with pytest.raises(ProcessDiedError):
        nursery.fork("cell", tmp_path / "late.log")


def test_nothing_is_left_when_the_owner_is_killed(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, signal, sys, time\n"
        "from farm.nursery import Nursery\n"
        "nursery = Nursery([int(sys.argv[1])], 1, '', pathlib.Path(sys.argv[2]))\n"
        "cells = [nursery.fork('cell', pathlib.Path(sys.argv[2])) for _ in range(2)]\n"
        "cells[0].call('peaks', timeout_s=60)\n"  # by then it has asked to die with its parent
        "os.kill(cells[0].pid, signal.SIGSTOP)\n"
        "print(nursery._process.pid, *(cell.pid for cell in cells), flush=True)\n"
        "time.sleep(600)\n"
    )
    arguments = [sys.executable, "-c", program, str(CORES[0]), str(tmp_path / "log")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        owner.kill()
    assert len(pids) == 3
    assert _wait_until(lambda: all(_gone(pid) for pid in pids))


def test_an_import_is_made_once_and_shared_by_those_forked_later(nursery: Nursery, tmp_path: Path) -> None:
    before = nursery.fork("cell", tmp_path / "before.log")
    nursery.import_runtime("onnxruntime-fp32", MODEL, ANSWER_S)
    after = nursery.fork("cell", tmp_path / "after.log")

    def holds_onnxruntime(resident: Resident) -> bool:
        return any("onnxruntime" in mapped.path for mapped in psutil.Process(resident.pid).memory_maps())

    assert holds_onnxruntime(after)
    assert not holds_onnxruntime(before)


@pytest.mark.real
@pytest.mark.parametrize("method", ["pytorch-fp32", "onnxruntime-fp32"])
def test_a_parked_cell_uses_nothing_though_its_threads_were_spinning(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np
    from small_models import save_model

    from tasks.artifacts import prepare_artifact
    from tasks.method import find_method
    from tasks.models import resolve_model
    from tasks.progress import SilentProgress

    monkeypatch.setenv("FARM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")  # OpenMP's threads spin after every call, as ONNX Runtime's do
    model = resolve_model(str(save_model(tmp_path / "model")), SilentProgress())
    cores = sorted(os.sched_getaffinity(0))[:2]
    cell = Cell("cell", "candidate", method, method, "fp32", Workload("cpu", len(cores), 1, 12))
    found = find_method(method)
    folder = model.folder if found.depends_on(cell.workload) is None else prepare_artifact(found, model, cell.workload)
    inputs = [{name: np.ones((1, 12), np.int64) for name in model.input_names}]
    opened = Nursery(cores, len(cores), "", tmp_path / "nursery.log")
    try:
        resident = opened.fork("cell", tmp_path / "cell.log")
        resident.call("import_runtime", method, model, timeout_s=ANSWER_S)
        resident.call("load", cell, model, getattr(folder, "folder", folder), inputs, timeout_s=ANSWER_S)
        resident.call("warm_up", timeout_s=ANSWER_S)
        resident.ask("turn")
        os.kill(resident.pid, signal.SIGSTOP)  # in the middle of its work, all threads awake
        process = psutil.Process(resident.pid)
        assert _wait_until(lambda: process.status() == psutil.STATUS_STOPPED)
        before = process.cpu_times()
        time.sleep(0.5)
        assert process.cpu_times() == before
        os.kill(resident.pid, signal.SIGCONT)
        assert resident.answer(ANSWER_S).latency_ns
    finally:
        opened.close()


FORK_AFTER_A_PEAK = """
import os
from farm.actor import CellProcess
held = bytearray(b"x") * 400_000_000
del held
if os.fork() == 0:
    print(CellProcess([0]).peaks()["peak_rss_bytes"], flush=True)
else:
    os.wait()
"""


def test_the_peak_of_a_cell_is_its_own_alone(nursery: Nursery, tmp_path: Path) -> None:
    cell, other = (_loaded(nursery, tmp_path, "control-leak", bytes_per_call=80_000_000) for _ in range(2))
    if cell.call("peaks", timeout_s=ANSWER_S)["peak_rss_bytes"] is None:
        pytest.skip("this platform does not tell")
    cell.call("turn", timeout_s=ANSWER_S)
    assert cell.call("peaks", timeout_s=ANSWER_S)["peak_rss_bytes"] > 400_000_000
    assert other.call("peaks", timeout_s=ANSWER_S)["peak_rss_bytes"] < 200_000_000
    command = [sys.executable, "-c", FORK_AFTER_A_PEAK]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=ANSWER_S, cwd=ROOT)
    assert int(ran.stdout) < 200_000_000
