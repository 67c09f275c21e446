"""Every method runs every family of encoders, with any number of labels and positions, or says why it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from small_families import SETTINGS, assert_same, logits_of, prepared, small_classifier, some_inputs
from tiers import mostly_long

from farm.quality import PARITY_LIMIT
from farm.records import ModelInfo
from tasks.inputs import build_inputs
from tasks.method import Loaded

BASELINE = "pytorch-fp32"
EXACT = ("torchscript-fp32", "onnxruntime-fp32")
OTHERS = (*EXACT, "pytorch-int8-dynamic", "pytorch-bf16")
WITHOUT_SDPA = ("mpnet", "deberta-v2")
FUSED_BY_ONNX_RUNTIME = {"albert": 1, "mpnet": 0, "deberta-v2": 0, "modernbert": 0}
"""In how many of two layers; in both of the other families."""

pytestmark = pytest.mark.usefixtures("empty_cache")

Load = Callable[[str, ModelInfo, int], Loaded]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Prepare and load a method for two rows of a length."""
    import torch

    threads = torch.get_num_threads()
    yield partial(prepared, folder=tmp_path)
    torch.set_num_threads(threads)


def _remarks(call: Loaded) -> list[str]:
    return list(call.proof().get("remarks", []))


@pytest.mark.parametrize("family", SETTINGS)
def test_a_family_is_described_by_its_configuration(family: str, tmp_path: Path) -> None:
    model = small_classifier(tmp_path, family, labels=7, positions=130)
    assert (model.family, model.max_length, len(model.labels)) == (family, 130, 7)
    assert model.pooling == "first"
    with_types = family in ("bert", "electra", "albert")
    assert model.input_names == ("input_ids", "attention_mask", "token_type_ids")[: 2 + with_types]


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_text_fills_a_family_up_to_its_last_position(family: str, tmp_path: Path, load: Load) -> None:
    model = small_classifier(tmp_path / "model", family, positions=130)
    (inputs,) = build_inputs(model, ["the camera is very good ."], 130, 2, kind="full", count=1)
    assert inputs["attention_mask"].all()
    assert np.isfinite(logits_of(load(BASELINE, model, 130), inputs)).all()


def test_modernbert_says_what_its_head_reads(tmp_path: Path) -> None:
    assert small_classifier(tmp_path, "modernbert", classifier_pooling="mean").pooling == "mean"


@pytest.mark.real
@pytest.mark.parametrize("method_id", OTHERS)
@pytest.mark.parametrize("family", mostly_long(SETTINGS))
def test_a_method_answers_what_the_baseline_answers(family: str, method_id: str, tmp_path: Path, load: Load) -> None:
    # Longer than the examples that exporters are given, and than ModernBERT's window.
    model, length = small_classifier(tmp_path / "model", family), 24
    inputs = some_inputs(model, length)
    call = load(method_id, model, length)
    assert_same(method_id, logits_of(call, inputs), logits_of(load(BASELINE, model, length), inputs))
    call.proof()


@pytest.mark.real
@pytest.mark.parametrize("family", mostly_long(SETTINGS))
def test_padding_changes_no_familys_answer(family: str, tmp_path: Path, load: Load) -> None:
    model = small_classifier(tmp_path / "model", family)
    inputs = some_inputs(model, 24)
    trimmed = {name: array[1:, : inputs["attention_mask"][1].sum()] for name, array in inputs.items()}
    call = load(BASELINE, model, 24)
    np.testing.assert_allclose(logits_of(call, inputs)[1], logits_of(call, trimmed)[0], atol=PARITY_LIMIT)


@pytest.mark.real
@pytest.mark.parametrize("method_id", OTHERS)
@pytest.mark.parametrize("labels", [1, 7])
def test_one_label_and_many_come_back_as_columns(labels: int, method_id: str, tmp_path: Path, load: Load) -> None:
    model = small_classifier(tmp_path / "model", "bert", labels=labels)
    inputs = some_inputs(model, 12)
    answered = logits_of(load(method_id, model, 12), inputs)
    assert answered.shape == (2, labels)
    assert_same(method_id, answered, logits_of(load(BASELINE, model, 12), inputs))


@pytest.mark.real
@pytest.mark.parametrize("method_id", EXACT)
@pytest.mark.parametrize("positions", [130, 2048])
@pytest.mark.parametrize("family", mostly_long(["bert", "xlm-roberta", "deberta-v2", "modernbert"], ["xlm-roberta"]))
def test_all_of_a_models_positions_can_be_used(
    family: str, positions: int, method_id: str, tmp_path: Path, load: Load
) -> None:
    model = small_classifier(tmp_path / "model", family, positions=positions)
    inputs = some_inputs(model, positions)
    call = load(method_id, model, positions)
    assert_same(method_id, logits_of(call, inputs), logits_of(load(BASELINE, model, positions), inputs))


@pytest.mark.real
@pytest.mark.parametrize("family", mostly_long(SETTINGS))
def test_a_family_without_fused_attention_is_remarked_on(family: str, tmp_path: Path, load: Load) -> None:
    model = small_classifier(tmp_path / "model", family)
    missing = [f"attention runs as separate operators, as transformers has no SDPA attention for {family} models"]
    expected = missing if family in WITHOUT_SDPA else []
    for method_id in (BASELINE, "torchscript-fp32", "pytorch-int8-dynamic"):
        assert _remarks(load(method_id, model, 12)) == expected


@pytest.mark.real
@pytest.mark.parametrize("family", mostly_long(SETTINGS))
def test_onnx_runtime_says_where_it_did_not_fuse_attention(family: str, tmp_path: Path, load: Load) -> None:
    call = load("onnxruntime-fp32", small_classifier(tmp_path / "model", family), 12)
    fused = FUSED_BY_ONNX_RUNTIME.get(family, 2)
    remarks = _remarks(call)
    assert len(remarks) == (fused != 2)
    assert all(remark.startswith(f"attention is fused in {fused} of 2 layers") for remark in remarks)
