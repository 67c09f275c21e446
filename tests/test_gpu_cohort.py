"""A cohort on a GPU whose driver is made up: what is read around real turns of real processes, and what they see."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_nvml import Board, FakeNvml
from made_up import GPU_SLOT, MODEL

from farm import cohort
from farm.cohort import CohortProcess
from farm.gpu_cohort import GpuSide
from farm.gpu_guards import GpuWatch
from farm.gpus import GpuMeter
from farm.records import Cell, WarmUp, Workload
from farm.suite import Limits
from tasks.artifacts import Artifact

CELLS = [
    Cell(name, role, name, "control-work", "fp32", Workload("cuda", 1, 1, 8, {"units": 20}))  # type: ignore[arg-type]
    for name, role in (("first", "baseline"), ("second", "candidate"))
]
INPUTS = [{"input_ids": np.ones((1, 8), np.int64)}]


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def process(board: Board, monkeypatch: pytest.MonkeyPatch) -> Iterator[CohortProcess]:
    """A cohort in this very process, whose cells are processes of their own."""
    monkeypatch.setattr(cohort, "die_with_parent", lambda: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-of-the-slot,GPU-of-another")
    monkeypatch.setattr(
        cohort, "GpuSide", lambda slot: GpuSide(slot, lambda _: GpuWatch(GpuMeter(board.uuid, FakeNvml(board))))
    )
    cores = tuple(sorted(os.sched_getaffinity(0)))[:1]
    made = CohortProcess(replace(GPU_SLOT, cores=cores, gpu_uuid=board.uuid), Limits(), 3)
    try:
        yield made
    finally:
        made.close()


def load(process: CohortProcess, cell: Cell, board: Board, folder: Path, listed: int) -> WarmUp:
    """Load a cell, which the driver lists under a number of its own and gives 700 bytes."""
    artifact = Artifact("none", str(folder), 0, 0.0, cached=True)
    original = process._gpu._watch.memory_used_bytes  # type: ignore[union-attr]
    used = iter((board.used_bytes, board.used_bytes + 700))
    process._gpu._watch.memory_used_bytes = lambda: next(used)  # type: ignore[union-attr,method-assign]
    board.processes = [*board.processes, listed]
    ready = process.load(cell, MODEL, artifact, INPUTS)
    process._gpu._watch.memory_used_bytes = original  # type: ignore[union-attr,method-assign]
    assert isinstance(ready, WarmUp), ready
    return ready


def test_rounds_on_a_gpu_carry_its_readings_and_their_reasons(
    process: CohortProcess, board: Board, tmp_path: Path
) -> None:
    assert process.boot(CELLS, MODEL) == {}
    ready = [load(process, cell, board, tmp_path, 4711 + number) for number, cell in enumerate(CELLS)]
    assert [each.vram_bytes for each in ready] == [700, 700]
    assert {each.proof["visible_gpus"] for each in ready} == {"GPU-of-the-slot"}
    done, failures = process.round(0, [cell.cell for cell in CELLS])
    assert not failures
    for turn in done.turns.values():
        assert (turn.disturbance["gpu_foreign"], turn.disturbance["gpu_sm_mhz"]) == (0, 1980)
        assert turn.disturbance["gpu_throttle"] == ()
        assert not [reason for reason in turn.taint_reasons if reason.startswith("gpu")]
        assert "steal_ratio" in turn.disturbance
    board.processes = [*board.processes, 99]
    board.sm_mhz = 345
    done, _ = process.round(1, [cell.cell for cell in CELLS])
    assert {"gpu-clock", "gpu-foreign"} <= set(done.taint_reasons)
    peaks, proofs = process.finish()
    assert set(peaks) == set(proofs) == {"first", "second"}
    assert all(peak["peak_rss_bytes"] and peak["allocated_vram_bytes"] is None for peak in peaks.values())
