"""TorchScript: the eager module traced at its shape, frozen, and run by PyTorch's graph executor."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from farm.errors import ProofFailedError
from farm.records import Device, Machine, ModelInfo, Workload
from tasks import gpu_kernels
from tasks.gpu_settings import needs_capability
from tasks.method import Loaded, library_versions
from tasks.pytorch import (
    MATRIX_PRODUCTS,
    TorchCallable,
    TorchMethod,
    attention_remarks,
    load_module,
    use_threads,
)
from tasks.steps import step

PROGRAM = "traced.pt"

MATRIX_RANK = 2

DTYPES = {"fp32": "float32", "fp16": "float16"}
"""PyTorch's name of what a method's precision stores."""


class ScriptCallable(TorchCallable):
    """A frozen TorchScript program; its proof is the graph that the executor runs."""

    def __init__(self, program: Any, model: ModelInfo, workload: Workload, precision: str) -> None:
        super().__init__(program, model.input_names, workload.device)
        self._precision = precision
        self._model = model
        self._workload = workload

    def run(self, tensors: Mapping[str, Any]) -> Any:
        """Call the program with positional tensors, in the order it was traced."""
        return self.module(*(tensors[name] for name in self._model.input_names))

    def proof(self) -> Mapping[str, Any]:
        """Matrix products of the frozen graph, of blocks nested in it too, and the dtypes of their weights."""
        named = [(node.kind().rpartition("::")[2], node) for node in _nodes(self.module.graph)]
        nodes = Counter(kind for kind, _ in named)
        multiplying = [each for each in named if each[0] in MATRIX_PRODUCTS or "scaled_dot_product" in each[0]]
        products = Counter(kind for kind, _ in multiplying)
        weights = Counter(str(each.dtype).removeprefix("torch.") for each in _weights(node for _, node in multiplying))
        parameters = sum(1 for _ in self.module.parameters())
        evidence = {
            "torch_threads": self._torch.get_num_threads(),
            "graph_nodes": sum(nodes.values()),
            "graph_matrix_products": dict(products),
            "weight_dtypes": dict(weights),
            "unfrozen_parameters": parameters,
            "remarks": attention_remarks(self._model, as_asked=any("scaled_dot_product" in kind for kind in products)),
        }
        if parameters:
            raise ProofFailedError(f"the program is not frozen: {parameters} parameters are still attributes")
        if not products:
            raise ProofFailedError(f"the graph holds no matrix product, only {sorted(nodes)}")
        if set(weights) != {DTYPES[self._precision]}:
            raise ProofFailedError(f"the products' weights are {dict(weights)}, not all {DTYPES[self._precision]}")
        if self._torch.get_num_threads() != self._workload.threads:
            raise ProofFailedError(
                f"PyTorch uses {self._torch.get_num_threads()} threads, not {self._workload.threads}"
            )
        return evidence

    def prove_kernels(self) -> Mapping[str, Any]:
        """On a GPU, the kernels of a call."""
        if self._workload.device == "cpu":
            return {}
        ran = gpu_kernels.executed_kernels(lambda: self(self.example(self._workload)))
        gpu_kernels.check_products(ran, (self._precision,))
        return ran.evidence()


def _nodes(block: Any) -> Iterator[Any]:
    """The nodes of a graph, and of the blocks inside it."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _weights(nodes: Iterable[Any]) -> Iterator[Any]:
    """The constant matrices that these nodes take: what freezing made of the products' weights."""
    for source in (value.node() for node in nodes for value in node.inputs()):
        if source.kind() == "prim::Constant" and source.hasAttribute("value") and source.kindOf("value") == "t":
            tensor = source.t("value")
            if tensor.dim() >= MATRIX_RANK:
                yield tensor


class TorchScript(TorchMethod):
    """Trace and freeze; the trace holds the shape, so each shape has an artifact of its own."""

    id: ClassVar[str] = "torchscript-fp32"
    about: ClassVar[str] = "TorchScript, FP32: traced at the cell's shape and frozen"
    devices: ClassVar[tuple[Device, ...]] = ("cpu", "cuda")
    runs_on: ClassVar[tuple[str, ...]] = ("torch",)
    dtype: ClassVar[str] = "float32"

    def depends_on(self, workload: Workload) -> Mapping[str, Any]:
        """A trace fixes shape and device, and is read by the same PyTorch that wrote it."""
        return {
            **library_versions("torch", "transformers"),
            "shape": [workload.batch_size, workload.length],
            "device": workload.device,
            "dtype": self.dtype,
        }

    def prepare(self, model: ModelInfo, workload: Workload, folder: Path) -> None:
        """Trace, freeze and save."""
        import torch

        use_threads(workload)
        with step("load model"):
            module = load_module(model).to(workload.device, getattr(torch, self.dtype))
        shape = (workload.batch_size, workload.length)
        example = tuple(torch.ones(shape, dtype=torch.long, device=workload.device) for _ in model.input_names)

        class Positional(torch.nn.Module):
            """Names its inputs and returns bare logits: a trace cannot carry transformers' output class."""

            def __init__(self) -> None:
                super().__init__()
                self.inner = module

            def forward(self, *tensors: Any) -> Any:
                return self.inner(**dict(zip(model.input_names, tensors, strict=True))).logits

        with torch.inference_mode(), warnings.catch_warnings():
            # Tracing warns that shapes become constants, which is what an artifact per shape is for.
            warnings.simplefilter("ignore")
            with step("trace"):
                traced = torch.jit.trace(Positional().eval(), example, check_trace=False)
            with step("freeze"):
                torch.jit.save(torch.jit.freeze(traced), str(folder / PROGRAM))

    def import_runtime(self, model: ModelInfo) -> None:
        """The program needs PyTorch alone."""
        del model
        import torch  # noqa: F401

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """Load the frozen program; its executor optimizes it during the first calls of the warm-up."""
        import torch

        use_threads(workload)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.jit.load(str(folder / PROGRAM), map_location=workload.device).eval()
        return ScriptCallable(program, model, workload, self.precision)


class TorchScriptFp16(TorchScript):
    """The same with weights and activations in FP16."""

    id: ClassVar[str] = "torchscript-fp16"
    about: ClassVar[str] = "TorchScript, FP16: traced at the cell's shape and frozen"
    precision: ClassVar[str] = "fp16"
    devices: ClassVar[tuple[Device, ...]] = ("cuda",)
    exact: ClassVar[bool] = False
    dtype: ClassVar[str] = "float16"

    def check_supported(self, machine: Machine, device: Device) -> None:
        """FP16's matrix units came with Volta."""
        super().check_supported(machine, device)
        needs_capability(self.id, machine, "fp16")
