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
EARLIER = "20250101T000000Z-0000"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("gpu_matrix")


def test_without_a_gpu_it_says_what_it_takes_and_runs_nothing(
    script: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if describe_machine().gpus:
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr(script.subprocess, "Popen", lambda *_, **__: pytest.fail("something was run"))
    assert script.main([]) == 2
    assert "no CUDA device" in capsys.readouterr().out


def test_everything_is_run_in_order_and_the_matrix_may_have_failed_cells(script: ModuleType) -> None:
    parts = script.parts(script._parse([]))
    assert [part.name for part in parts] == ["tests", "matrix", "selfcheck"]
    assert any(argument.endswith("test_gpu_methods.py") for argument in parts[0].command)
    codes = (0, 1, 2, 130, script.TOO_LATE)
    assert [script.Ran(parts[1], code, 1.0).failed for code in codes] == [False, False, True, True, True]
    assert "cuda" in parts[2].command
    assert [script.Ran(parts[2], code, 1.0).failed for code in (0, 1)] == [False, True]


def test_a_method_is_summed_up_in_one_line(script: ModuleType) -> None:
    row: dict[str, Any] = {"name": "fast", "worst": "ok", "speedup": 8.125, "drop_points": 0.1}
    assert script.method_line(row | {"on_device": 0.9, "of_limit": None}) == (
        "  fast: 8.12x, 0.10 points lost, 0.90 of the call on the GPU"
    )
    assert script.method_line({"name": "gone", "worst": "unsupported", "speedup": None}) == "  gone: unsupported"


def test_the_summary_is_of_the_newest_run(script: ModuleType, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for run, created, fast_ms in ((EARLIER, 1, 2.0), (RUN, 2, 1.0)):
        store.write_run(run_record(run=run, created_unix_ns=created))
        pair = (("pytorch", 4.0), ("fast", fast_ms))
        rows = [measured_row("c", 0, name, ms, run=run, device_ns=[100_000] * 15) for name, ms in pair]
        store.publish_replica(run, "c", 0, rows)
    first, *lines = script.summarize(script.matrix_rows(tmp_path), "gpu-full")
    assert first.startswith("gpu-full")
    assert lines[0].startswith("  fast: 4.00x")
    assert "0.10 of the call on the GPU" in lines[0]


def test_of_a_run_that_was_not_even_begun_there_are_no_rows(script: ModuleType, tmp_path: Path) -> None:
    assert script.matrix_rows(tmp_path / "none") == []


def row(name: str, speedup: float | None, worst: str = "ok", drop: float | None = 0.0) -> dict[str, Any]:
    unknown = {"on_device": None, "of_limit": None}
    return {"name": name, "speedup": speedup, "worst": worst, "drop_points": drop, **unknown}


FOUNDERS = [row("torchscript-fp32", 1.2), row("onnxruntime-fp16", 1.4)]


def test_targets_are_met_or_not_and_said_to_be(script: ModuleType) -> None:
    lines = script.target_lines([row("fast", 9.0, drop=0.5), row("exact", 8.5, drop=0.1), *FOUNDERS])
    assert lines == [
        "founding row torchscript-fp32: faster than the baseline",
        "founding row onnxruntime-fp16: faster than the baseline",
        "target 8x at a drop of 0.2 points at most: met (exact 8.50x)",
    ]
    slow = script.target_lines([row("torchscript-fp32", 0.9), row("onnxruntime-fp16", None, "invalid")])
    assert [line.partition(": ")[2] for line in slow] == [
        "NOT faster than the baseline",
        "NOT ok",
        "NOT met (torchscript-fp32 0.90x)",
    ]


def test_a_founding_row_that_is_not_ok_or_not_there_fails_the_matrix(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def code(rows: list[dict[str, Any]]) -> int:
        monkeypatch.setattr(script, "matrix_rows", lambda _: rows)
        return int(script.main(["--only", "matrix"]))

    monkeypatch.setattr("gpu_cells.why_no_gpu", lambda: "")
    monkeypatch.setattr(script, "_run", lambda part, _: script.Ran(part, 1, 1.0))
    assert code(FOUNDERS) == 0
    assert code(FOUNDERS[:1]) == 1
    assert code([FOUNDERS[0], row("onnxruntime-fp16", 1.4, "invalid")]) == 1


def test_a_part_whose_time_is_over_is_interrupted(script: ModuleType) -> None:
    # A shell lets what it starts in the background ignore Ctrl-C, and the tests may be such a thing.
    program = "import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler); time.sleep(60)"
    patient = script.Part("matrix", [script.sys.executable, "-c", program])
    ran = script._run(patient, 1.0)
    assert ran.code == script.TOO_LATE
    assert "interrupted" in script._line(ran)
