"""The script that runs everything that needs a GPU: what it runs, what it says of a method, and without a GPU."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from measured import RUN, measured_row, run_record

from farm.machine import describe_machine
from farm.store import Store

FOLDER = Path(__file__).parent / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("gpu_matrix")


def test_without_a_gpu_it_says_what_it_takes_and_runs_nothing(
    script: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if describe_machine().gpus:
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr(script.subprocess, "run", lambda *_, **__: pytest.fail("something was run"))
    assert script.main([]) == 2
    assert "no CUDA device" in capsys.readouterr().out


def test_everything_is_run_in_order_and_the_matrix_may_have_failed_cells(script: ModuleType) -> None:
    parts = script.parts(script._parse([]))
    assert [part.name for part in parts] == ["tests", "selfcheck", "matrix"]
    assert any(argument.endswith("test_gpu_methods.py") for argument in parts[0].command)
    assert [script.Ran(parts[2], code, 1.0).failed for code in (0, 1, 2, 130)] == [False, False, True, True]
    assert [script.Ran(parts[1], code, 1.0).failed for code in (0, 1)] == [False, True]


def test_a_method_is_summed_up_in_one_line(script: ModuleType) -> None:
    row: dict[str, Any] = {"name": "fast", "worst": "ok", "speedup": 8.125, "drop_points": 0.1}
    assert script.method_line(row | {"on_device": 0.9, "of_limit": None}) == (
        "  fast: 8.12x, 0.10 points lost, 0.90 of the call on the GPU"
    )
    assert script.method_line({"name": "gone", "worst": "unsupported", "speedup": None}) == "  gone: unsupported"


def test_the_summary_is_of_the_newest_run(script: ModuleType, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write_run(run_record())
    rows = [measured_row("c", 0, name, ms, device_ns=[100_000] * 15) for name, ms in (("pytorch", 4.0), ("fast", 1.0))]
    store.publish_replica(RUN, "c", 0, rows)
    first, *lines = script.summarize(tmp_path, "gpu-full")
    assert first.startswith("gpu-full")
    assert lines[0].startswith("  fast: 4.00x")
    assert "0.10 of the call on the GPU" in lines[0]
