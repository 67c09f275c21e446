"""What starts from the exported graph (compilers, converters, quantizers) runs every family, and proves it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up import MODEL
from small_families import SETTINGS, assert_same, logits_of, prepared, small_classifier, some_inputs
from tiers import mostly_long

from farm.errors import MethodUnsupportedError
from farm.records import ModelInfo, Workload
from tasks import calibration, exported, inductor_int8
from tasks.calibration import calibration_source
from tasks.inductor_int8 import Pt2eInt8, linear_layers, separate_shared_weights
from tasks.method import BUILT_IN, find_method

LENGTH = 24
QUICKEST = "openvino-fp32-pruned"
"""Of the methods that start from the exported graph the one that is prepared fastest; others have the same start."""

SLOW = ("pytorch-fp32-aot-pruned", "pytorch-int8-pt2e", "pytorch-int8-pt2e-dynamic")
"""A C++ compiler's work for every family."""

TEXTS = ("the camera is good .", "not the battery , very bad", "sound is good , picture very bad .")

pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Leave PyTorch's threads as they were."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.real
@pytest.mark.parametrize("family", mostly_long(SETTINGS))
def test_a_converted_method_answers_what_the_baseline_answers(family: str, tmp_path: Path) -> None:
    model = small_classifier(tmp_path / "model", family)
    _assert_proven(QUICKEST, model, tmp_path)


@pytest.mark.real
@pytest.mark.long
@pytest.mark.parametrize("family", SETTINGS)
@pytest.mark.parametrize("method_id", SLOW)
def test_a_compiled_method_answers_what_the_baseline_answers(
    method_id: str, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "calibration_texts", lambda _source: TEXTS)
    model = small_classifier(tmp_path / "model", family)
    proof = _assert_proven(method_id, model, tmp_path)
    assert "pruned" not in method_id or proof["multiply_adds_with_weights"]


def _assert_proven(method_id: str, model: ModelInfo, folder: Path) -> Mapping[str, Any]:
    inputs = some_inputs(model, LENGTH)
    baseline = logits_of(prepared("pytorch-fp32", model, LENGTH, folder), inputs)
    quick = {"samples": 4} if calibration_source(find_method(method_id).Options, {}) else {}
    call = prepared(method_id, model, LENGTH, folder, **quick)
    assert_same(method_id, logits_of(call, inputs), baseline)
    return call.proof()


def test_pruning_is_refused_while_planning_where_the_head_reads_all_tokens(tmp_path: Path) -> None:
    mean = small_classifier(tmp_path / "mean", "modernbert", classifier_pooling="mean")
    first = small_classifier(tmp_path / "first", "modernbert")
    pruning = [name for name in BUILT_IN if find_method(name).prunes_last_layer and not name.startswith("amx-")]
    assert pruning
    for name in pruning:
        find_method(name).check_model(first)
        with pytest.raises(MethodUnsupportedError, match=f"{name} leaves out .* reads all tokens"):
            find_method(name).check_model(mean)


def test_a_weight_that_two_layers_read_is_copied_for_the_second() -> None:
    layer = torch.nn.Linear(4, 4)
    tokens = torch.ones(2, 4)
    module = torch.export.export(torch.nn.Sequential(layer, torch.nn.ReLU(), layer), (tokens,)).module()
    before = module(tokens)
    assert separate_shared_weights(module, linear_layers(module)[0]) == 1
    assert separate_shared_weights(module, linear_layers(module)[0]) == 0
    assert torch.equal(module(tokens), before)


@pytest.mark.parametrize("overflow", [True, False])
def test_linear_layers_of_inputs_alone_are_quantized_and_to_seven_bits_where_sums_of_bytes_may_overflow(
    overflow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting(torch.nn.Module):  # type: ignore[misc]
        """Multiplies and joins whole numbers beside a linear layer, which takes constants too."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)
            self.positions = torch.nn.Parameter(torch.randn(2, 4))

        def forward(self, tokens: torch.Tensor, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.linear(tokens) + self.linear(self.positions), torch.cat([numbers * (numbers + 1), numbers])

    inputs = {"tokens": torch.randn(2, 4), "numbers": torch.arange(3)}
    monkeypatch.setattr(inductor_int8, "byte_sums_may_overflow", lambda: overflow)
    monkeypatch.setattr(inductor_int8, "calibration_inputs", lambda *_: [inputs])
    monkeypatch.setattr(exported, "as_tensors", dict)
    method, workload = Pt2eInt8(), Workload("cpu", 2, 1, 4, {})
    with torch.no_grad():
        module = torch.export.export(Counting(), (), inputs).module()
        module, facts = method.rewrite(module, MODEL, workload)
    assert facts == {"linear_layers": 1, "quantized_layers": 1, "remarks": []}
    rounded = [node for node in module.graph.nodes if "quantize_per_tensor" in str(node.target)]
    assert {node.args[4] for node in rounded} == {127 if overflow else 255}
    monkeypatch.setattr(inductor_int8, "texts_sha256", lambda _source: "")
    assert method.depends_on(workload)["reduce_range"] is overflow
