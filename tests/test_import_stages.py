"""In which order a cohort's nursery imports runtimes and forks cells."""

from __future__ import annotations

from farm.nursery import import_stages
from farm.records import Cell, Device, Workload

FOUNDING = ("pytorch-fp32", "pytorch-int8-dynamic", "onnxruntime-fp32", "torchscript-fp32")


def _stages(*methods: str, device: Device = "cpu") -> list[tuple[tuple[str, ...], list[str]]]:
    cells = [Cell(id_, "candidate", id_, id_, "fp32", Workload(device, 1, 1, 8)) for id_ in methods]
    return [(stage.runtimes, [cell.method for cell in stage.cells]) for stage in import_stages(cells)]


def test_every_cell_is_forked_once_its_runtime_is_there_and_no_other() -> None:
    assert _stages(*FOUNDING) == [
        ((), ["onnxruntime-fp32"]),
        (("torch",), ["torchscript-fp32"]),
        (("torch", "transformers"), ["pytorch-fp32", "pytorch-int8-dynamic"]),
    ]


def test_controls_need_no_import() -> None:
    assert _stages("control-null", "control-work") == [((), ["control-null", "control-work"])]


def test_cells_of_a_gpu_import_their_own_runtime() -> None:
    (only,) = _stages("pytorch-fp32", "torchscript-fp32", device="cuda")
    assert only[0] == ()
    assert set(only[1]) == {"pytorch-fp32", "torchscript-fp32"}
