"""A CUDA graph captured by hand: all kernels of a call, launched by the host at once.

At batch size 1 a GPU finishes most kernels before the host has launched the next one. A captured graph replays them
from the device's own queue, with the same kernels at the same addresses: inputs are copied to where the capture found
them, and logits are read from where it left them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from farm.errors import ProofFailedError
from farm.records import ModelInfo, Workload
from tasks import gpu_kernels
from tasks.gpu_settings import attention_backends
from tasks.half import watching
from tasks.method import Arrays
from tasks.pytorch import TorchCallable, executed_products

WARM_UPS = 3
"""Calls before the capture: libraries choose kernels, allocate workspaces and load code at the first ones, none of
which may happen while a graph is recorded (PyTorch's notes on CUDA graphs ask for the same number)."""

PRODUCTS = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}


@dataclass(frozen=True)
class CapturedOptions:
    """Settings that a suite may give.

    `sdpa_backend`: the one kernel family that PyTorch's attention may use. A captured graph holds the mask, which
    `flash` takes none of.
    """

    sdpa_backend: Literal["auto", "flash", "efficient", "math", "cudnn"] = "auto"


class Captured(TorchCallable):
    """A module that is called by input names and returns logits, replayed from one graph."""

    def __init__(self, module: Any, model: ModelInfo, workload: Workload, dtype: str, *, opaque: bool = False) -> None:
        """Warm up and capture at the workload's shape. `opaque`: a compiled package, in which nothing can be seen."""
        super().__init__(module, model.input_names, workload.device)
        self._workload = workload
        self._dtype = dtype
        self._opaque = opaque
        self._graph: Any = None
        self._logits: Any = None
        self(self.example(workload) if workload.length == 1 else self._padded_example())

    def run(self, tensors: Mapping[str, Any]) -> Any:
        """Replay the graph on the tensors it was captured with, which hold this call's inputs now."""
        if self._graph is None:
            self._capture(tensors)
        self._graph.replay()
        return self._logits

    def proof(self) -> Mapping[str, Any]:
        """That there is a graph, and the products of the module it was captured from."""
        evidence = {
            **attention_backends(),
            "torch_threads": self._torch.get_num_threads(),
            "captured_graphs": int(self._graph is not None),
            "matrix_products": {} if self._opaque else self._products(self.example(self._workload)),
        }
        wrong = [name for name in evidence["matrix_products"] if not name.endswith(f":{self._dtype}")]
        if wrong:
            raise ProofFailedError(f"matrix products were captured as {sorted(wrong)}, not in {self._dtype}")
        return evidence

    def prove_kernels(self) -> Mapping[str, Any]:
        """That a call launches a graph, and the kernels in it."""
        ran = gpu_kernels.executed_kernels(lambda: self(self.example(self._workload)))
        gpu_kernels.check_captured(ran)
        gpu_kernels.check_products(ran, (PRODUCTS[self._dtype],))
        return ran.evidence()

    def find_overflow(self, inputs: Arrays) -> str | None:
        """The first submodule whose result is not finite; a replayed graph shows none, so the module runs again."""
        if self._opaque:
            return None
        with watching(self.module) as seen, self._torch.inference_mode():
            self.module(**self._ends.receive(inputs))
        return next(iter(seen), None)

    def _capture(self, tensors: Mapping[str, Any]) -> None:
        torch = self._torch
        side, current = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                self.module(**tensors)
        current.wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._logits = self.module(**tensors)

    def _padded_example(self) -> Arrays:
        """The last token masked: models look for padding and leave the mask out where there is none, but a graph must
        hold the kernels that take it, so these must be the ones that are warmed up."""
        example = self.example(self._workload)
        if "attention_mask" in example:
            example["attention_mask"][:, -1] = 0
        return example

    def _products(self, example: Arrays) -> dict[str, int]:
        with self._torch.inference_mode():
            tensors = self._ends.receive(example)
            return dict(Counter(executed_products(lambda: self.module(**tensors))))
