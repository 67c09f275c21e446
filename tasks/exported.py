"""The model as an exported graph of one shape: what ahead-of-time compilers, quantizers and converters start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from farm.errors import MethodUnsupportedError
from farm.records import ModelInfo, Workload
from tasks.first_token import keep_first_token
from tasks.method import Arrays
from tasks.pytorch import load_module


def example_inputs(model: ModelInfo, workload: Workload) -> dict[str, Any]:
    """Tensors of the workload's shape, by the model's input names: every position a token."""
    import torch

    shape = (workload.batch_size, workload.length)
    return {name: torch.ones(shape, dtype=torch.long, device=workload.device) for name in model.input_names}


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
    with torch.no_grad():
        program = torch.export.export(bare, (), example_inputs(model, workload), strict=False)
    module = program.module()
    if pruned and keep_first_token(module) == 0:
        raise MethodUnsupportedError(
            f"the head of {model.family} models such as {model.name} reads more than the first token, so that nothing "
            "of its last layer can be left out"
        )
    return module


def export_again(module: Any, example: Mapping[str, Any]) -> Any:
    """The ExportedProgram of a module that was exported and then rewritten."""
    import torch

    with torch.no_grad():
        return torch.export.export(module, (), dict(example), strict=False)


def bare_module(module: Any) -> Any:
    """The model with bare logits in FP32 as its result: compilers and converters cannot carry an output class."""
    import torch

    class Bare(torch.nn.Module):
        """Takes the model's inputs by name."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, **tensors: Any) -> Any:
            return self.inner(**tensors).logits.float()

    return Bare()
