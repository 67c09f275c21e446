"""Leaving out what the head does not read changes no logit, for every family, and is noticed where it is nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_families import SETTINGS, small_classifier, some_inputs
from test_families import WITHOUT_SDPA
from torch.utils.flop_counter import FlopCounterMode

from farm.records import ModelInfo, Workload
from tasks.exported import export_module, export_open_again, export_open_module
from tasks.first_token import keep_first_token
from tasks.pytorch import load_module

LENGTH = 24
TOLERANCE = 1e-5

LEAST_SAVED = 2 * 2 * (LENGTH - 1) * (32 * 32 + 2 * 32 * 48)
"""Two operations for each of two sequences, all tokens but one, and each weight of the last layer's projection and its
feed-forward network."""

pytestmark = pytest.mark.usefixtures("empty_cache")

FAST = ("distilbert", "deberta-v2")
CASES = [
    pytest.param(family, attention, id=f"{family}-{attention}", marks=[] if family in FAST else [pytest.mark.real])
    for family in SETTINGS
    for attention in ("sdpa", "eager")
    if not (attention == "sdpa" and family in WITHOUT_SDPA)
]


class Bare(torch.nn.Module):
    """A model whose result is its logits."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.inner = module

    def forward(self, **tensors: torch.Tensor) -> Any:
        return self.inner(**tensors).logits


def _tensors(model: ModelInfo) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in some_inputs(model, LENGTH).items()}


def _exported(model: ModelInfo, attention: str) -> Any:
    bare = Bare(load_module(model, attention)).eval()
    with torch.no_grad():
        return torch.export.export(bare, (), _tensors(model), strict=False).module()


def _answer(module: Any, tensors: dict[str, torch.Tensor]) -> np.ndarray:
    with torch.no_grad():
        return module(**tensors).numpy()


def _operations(module: Any, tensors: dict[str, torch.Tensor]) -> int:
    """Multiplications and additions in the matrix products that a call executes."""
    with FlopCounterMode(display=False) as counter:
        _answer(module, tensors)
    return int(counter.get_total_flops())


@pytest.mark.parametrize(("family", "attention"), CASES)
def test_the_last_layer_shrinks_and_no_logit_changes(family: str, attention: str, tmp_path: Path) -> None:
    model = small_classifier(tmp_path, family)
    module, tensors = _exported(model, attention), _tensors(model)
    before, whole = _answer(module, tensors), _operations(module, tensors)
    assert keep_first_token(module) > 0
    np.testing.assert_allclose(_answer(module, tensors), before, atol=TOLERANCE, rtol=0)
    assert whole - _operations(module, tensors) >= LEAST_SAVED


@pytest.mark.parametrize(
    "family", [pytest.param(family, marks=[] if family in FAST else [pytest.mark.real]) for family in SETTINGS]
)
def test_with_open_axes_the_last_layer_shrinks_as_much_and_every_shape_is_taken(family: str, tmp_path: Path) -> None:
    model = small_classifier(tmp_path, family)
    whole = Bare(load_module(model)).eval()
    fixed = export_module(model, Workload("cpu", 2, 2, LENGTH, {}), pruned=True)
    opened = export_open_module(model, pruned=True)
    assert _operations(opened, _tensors(model)) == _operations(fixed, _tensors(model))
    again = export_open_again(opened, model).module()
    for batch, length in ((1, 3), (1, LENGTH), (3, model.max_length)):
        tensors = {name: torch.from_numpy(array) for name, array in some_inputs(model, length, batch).items()}
        for module in (opened, again):
            np.testing.assert_allclose(_answer(module, tensors), _answer(whole, tensors), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("attention", ["sdpa", pytest.param("eager", marks=pytest.mark.real)])
def test_a_model_that_reads_the_mean_is_left_alone(attention: str, tmp_path: Path) -> None:
    model = small_classifier(tmp_path, "modernbert", classifier_pooling="mean")
    module, tensors = _exported(model, attention), _tensors(model)
    before, whole = _answer(module, tensors), _operations(module, tensors)
    assert keep_first_token(module) == 0
    np.testing.assert_array_equal(_answer(module, tensors), before)
    assert _operations(module, tensors) == whole


class Small(torch.nn.Module):
    """Reads the first of six positions of a sum that something else may read too."""

    def __init__(self, reader: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.reader = reader
        self.project = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.reader(self.project(x))


def _written_to_in_place(x: torch.Tensor) -> torch.Tensor:
    view = x.transpose(1, 2)
    x += 1
    return x[:, 0] + view.sum(-1)


READERS: Mapping[str, tuple[Callable[[torch.Tensor], torch.Tensor], bool]] = {
    "first": (lambda x: x[:, 0], True),
    "in place, seen by nobody else": (lambda x: x.add_(1)[:, 0], True),
    "pieces": (lambda x: x.chunk(2, -1)[0][:, 0] + x.chunk(2, -1)[1][:, 0], True),
    "joined": (lambda x: torch.cat([x, -x], dim=-1)[:, 0], True),
    "joined along the positions": (lambda x: torch.cat([x, -x], dim=1)[:, 0], False),
    "gathered": (lambda x: x.gather(-1, (x > 0).long())[:, 0], True),
    "flattened": (lambda x: x.flatten(1)[:, 0], False),
    "first and last": (lambda x: x[:, 0] + x[:, -1], False),
    "second": (lambda x: x[:, 1], False),
    "sorted": (lambda x: x.sort(dim=1).values[:, 0], False),
    "in place, seen through a view": (_written_to_in_place, False),
}


@pytest.mark.parametrize("name", READERS)
def test_only_what_nobody_reads_is_left_out(name: str) -> None:
    torch.manual_seed(0)
    reader, shrinks = READERS[name]
    x = torch.randn(2, 6, 4)
    with torch.no_grad():
        module = torch.export.export(Small(reader), (x,), strict=False).module()
        before = module(x)
        assert (keep_first_token(module) > 0) == shrinks
        torch.testing.assert_close(module(x), before, atol=1e-6, rtol=0)
