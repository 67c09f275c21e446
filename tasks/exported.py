"""The model as an exported graph, of one shape or of all: what compilers, quantizers and converters start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import Parameter, Signature
from typing import Any

import numpy as np

from farm.errors import MethodUnsupportedError
from farm.records import ModelInfo, Workload
from tasks.first_token import keep_first_token
from tasks.method import Arrays
from tasks.pytorch import load_module

OPEN_SHAPE = (2, 61)
"""Batch size and length of the example that a graph with open axes is exported with: at 1 an axis would be taken for a
constant, and no size of a model is as odd as the other, which tells the axes apart."""


def example_inputs(model: ModelInfo, workload: Workload) -> dict[str, Any]:
    """Tensors of the workload's shape, by the model's input names: every position a token."""
    return _ones(model, (workload.batch_size, workload.length), workload.device)


def as_tensors(arrays: Arrays) -> dict[str, Any]:
    """The same arrays as PyTorch's tensors, without copying."""
    import torch

    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def export_module(
    model: ModelInfo, workload: Workload, *, pruned: bool = False, attention: str = "sdpa", dtype: str = "float32"
) -> Any:
    """Export the model at the workload's shape: a `torch.fx.GraphModule` called by input names, returning logits.

    `pruned` leaves out what no output depends on: in the last layer, all positions but the first. Raises
    MethodUnsupportedError where the model reads more than that.
    """
    import torch

    bare = bare_module(load_module(model, attention).to(workload.device, getattr(torch, dtype))).eval()
    return _exported(bare, model, example_inputs(model, workload), pruned, None)


def export_open_module(model: ModelInfo, *, pruned: bool = False) -> Any:
    """As `export_module`, on the CPU in FP32, with open axes: one module for all batch sizes and lengths."""
    bare = bare_module(load_module(model), model.input_names).eval()
    return _exported(bare, model, _open_example(model), pruned, _open_axes(model))


def export_again(module: Any, example: Mapping[str, Any]) -> Any:
    """The ExportedProgram, at the example's shape, of a module that was exported and then rewritten."""
    import torch

    with torch.no_grad():
        return torch.export.export(module, (), dict(example), strict=False)


def export_open_again(module: Any, model: ModelInfo) -> Any:
    """As `export_again`, of a module with open axes, which stay open."""
    import torch

    with torch.no_grad():
        return torch.export.export(module, (), _open_example(model), dynamic_shapes=_open_axes(model), strict=False)


def bare_module(module: Any, names: Sequence[str] | None = None) -> Any:
    """The model with bare logits in FP32 as its result: compilers and converters cannot carry an output class.

    With `names`, its inputs are parameters of these names, which exporting with open axes asks for.
    """
    import torch

    class Bare(torch.nn.Module):
        """Takes the model's inputs by name."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, **tensors: Any) -> Any:
            return self.inner(**tensors).logits.float()

    if names is not None:
        parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *names)]
        Bare.forward.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return Bare()


def _exported(bare: Any, model: ModelInfo, example: Mapping[str, Any], pruned: bool, axes: Any) -> Any:
    import torch

    with torch.no_grad():
        program = torch.export.export(bare, (), dict(example), dynamic_shapes=axes, strict=False)
    module = program.module()
    if pruned and keep_first_token(module) == 0:
        raise MethodUnsupportedError(
            f"the head of {model.family} models such as {model.name} reads more than the first token, so that nothing "
            "of its last layer can be left out"
        )
    return module


def _ones(model: ModelInfo, shape: tuple[int, int], device: str = "cpu") -> dict[str, Any]:
    import torch

    return {name: torch.ones(shape, dtype=torch.long, device=device) for name in model.input_names}


def _open_example(model: ModelInfo) -> dict[str, Any]:
    batch, length = OPEN_SHAPE
    return _ones(model, (batch, min(length, model.max_length)))


def _open_axes(model: ModelInfo) -> dict[str, Any]:
    from torch.export import Dim

    return {name: {0: Dim.DYNAMIC, 1: Dim.DYNAMIC} for name in model.input_names}
