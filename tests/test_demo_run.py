"""The founding experiment on the real demo model, at two lengths, through the real command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from farm.cli.commands import run_app
from farm.records import ModelInfo
from farm.results import Results

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

METHODS = ["pytorch", "pytorch~twin", "torchscript", "onnxruntime", "quantized"]


@pytest.fixture(scope="module")
def results(demo_model: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    assert demo_model.name == "demo"
    folder = tmp_path_factory.mktemp("results")
    code = run_app(["run", "--lengths", "32,64", "--set", "budget_s=20", "--results", str(folder), "--quiet"])
    assert code == 0
    yield folder


def _rows(results: Path) -> list[dict[str, Any]]:
    frame: Any = pd.read_parquet(results / "measurements")
    return list(frame.to_dict("records"))


def test_every_method_and_the_twin_are_measured_at_both_lengths(results: Path) -> None:
    rows = _rows(results)
    assert [(row["length"], row["name"]) for row in rows] == [(n, name) for n in (32, 64) for name in METHODS]
    assert {row["status"] for row in rows} == {"ok"}


def test_the_fp32_methods_give_the_baselines_logits_and_accuracy(results: Path) -> None:
    for row in _rows(results):
        if row["precision"] == "fp32":
            assert row["max_abs_logit_diff"] <= 1e-3
            assert row["accuracy"] >= 0.86
            assert row["agreement"] >= 0.995


def test_quantization_is_held_to_accuracy_and_halves_the_size(results: Path) -> None:
    row = next(row for row in _rows(results) if row["name"] == "quantized")
    assert row["accuracy_n"] == 678
    assert row["gate"] in ("pass", "fail")
    assert row["artifact_bytes"] < 0.6 * 268e6


def test_attention_is_fused_in_all_six_layers_of_the_session_that_was_timed(results: Path) -> None:
    for row in _rows(results):
        if row["name"] == "onnxruntime":
            assert json.loads(row["proof"])["method"]["fused_nodes"]["Attention"] == 6


def test_each_cell_is_a_process_of_its_own_with_its_own_runtime_only(results: Path) -> None:
    rows = _rows(results)
    assert len({row["pid"] for row in rows}) == len(rows)
    imported = {row["name"]: json.loads(row["proof"])["imported_runtimes"] for row in rows}
    assert imported["onnxruntime"] == ["onnxruntime"]
    assert imported["torchscript"] == ["torch"]
    assert imported["pytorch"] == ["torch", "transformers"]


def test_the_table_has_four_methods_their_intervals_and_the_twin(results: Path) -> None:
    table = Results(results).table()
    assert all(name in table for name in METHODS if "~" not in name)
    assert "A/A twin" in table
    assert "For more certainty" in table
