"""What starts from the exported graph (compilers, converters, quantizers) runs every family, and proves it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_families import SETTINGS, assert_same, logits_of, prepared, small_classifier, some_inputs
from tiers import mostly_long

from farm.errors import MethodUnsupportedError
from tasks.method import BUILT_IN, find_method

LENGTH = 24
METHOD = "openvino-fp32-pruned"
"""Of the methods that start from the exported graph the one that is prepared fastest; others have the same start."""

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
    inputs = some_inputs(model, LENGTH)
    baseline = logits_of(prepared("pytorch-fp32", model, LENGTH, tmp_path), inputs)
    call = prepared(METHOD, model, LENGTH, tmp_path)
    assert_same(METHOD, logits_of(call, inputs), baseline)
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
