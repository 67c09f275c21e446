"""What starts from the exported graph (compilers, converters, quantizers) runs every family, and proves it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_families import SETTINGS, assert_same, logits_of, prepared, small_classifier, some_inputs

from farm.errors import MethodUnsupportedError
from tasks import calibration
from tasks.method import BUILT_IN, find_method

LENGTH = 24
METHODS = ("openvino-fp32-pruned", "openvino-int8", "pytorch-fp32-aot-pruned", "pytorch-int8-pt2e")
TEXTS = ("the camera is good .", "not the battery , very bad", "sound is good , picture very bad .")
QUICK = {"samples": 4}


pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Leave PyTorch's threads as they were."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.real
@pytest.mark.parametrize("method_id", METHODS)
@pytest.mark.parametrize("family", SETTINGS)
def test_a_compiled_method_answers_what_the_baseline_answers(
    family: str, method_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "calibration_texts", lambda _source: TEXTS)
    model = small_classifier(tmp_path / "model", family)
    inputs = some_inputs(model, LENGTH)
    baseline = logits_of(prepared("pytorch-fp32", model, LENGTH, tmp_path), inputs)
    call = prepared(method_id, model, LENGTH, tmp_path, **(QUICK if "int8" in method_id else {}))
    assert_same(method_id, logits_of(call, inputs), baseline)
    call.proof()


def test_pruning_is_refused_while_planning_where_the_head_reads_all_tokens(tmp_path: Path) -> None:
    mean = small_classifier(tmp_path / "mean", "modernbert", classifier_pooling="mean")
    first = small_classifier(tmp_path / "first", "modernbert")
    pruning = [name for name in BUILT_IN if find_method(name).prunes_last_layer]
    assert pruning
    for name in pruning:
        find_method(name).check_model(first)
        with pytest.raises(MethodUnsupportedError, match=f"{name} leaves out .* reads all tokens"):
            find_method(name).check_model(mean)
