"""ONNX Runtime in floating point: the exported graph as it is, or fused ahead of time, run by a session alone."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from farm.errors import MethodUnsupportedError
from farm.records import Device, Machine, ModelInfo, Workload
from tasks.cuda_ends import cuda_runtime
from tasks.cuda_versions import needs_driver, needs_matching_cuda, onnxruntime_cuda
from tasks.method import Loaded, Method, library_versions
from tasks.onnx_cuda import CudaSessionOptions, load_cuda_libraries, needs_bindings, open_cuda_session
from tasks.onnx_graphs import (
    FACTS_VERSION,
    GRAPH,
    OPSET,
    Attention,
    GraphFacts,
    describe_fusion,
    export_graph,
    fuse_graph,
)
from tasks.onnx_probes import RoundingChecked, write_rounding_probe
from tasks.onnx_sessions import PROVIDERS, SessionCallable, SessionOptions, open_session
from tasks.steps import step

FAST_MATH = "mlas.enable_gemm_fastmath_arm64_bfloat16"
"""The session entry that lets MLAS round the operands of FP32 products to bfloat16; kernels exist on arm64 Linux."""


class OnnxMethod(Method):
    """What all methods on ONNX Runtime share: a graph is built once, and a session alone runs it."""

    requires: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx", "torch", "transformers")
    runs_on: ClassVar[tuple[str, ...]] = ("onnxruntime",)
    any_shape: ClassVar[bool] = True
    Options: ClassVar[type] = SessionOptions
    weights: ClassVar[str] = "float32"
    """The arithmetic that every product with weights must run in."""

    def check_supported(self, machine: Machine, device: Device) -> None:
        """On a GPU the installed build must hold the CUDA provider: a silent fallback to the CPU is never accepted."""
        super().check_supported(machine, device)
        try:
            import onnxruntime
        except ImportError as error:
            raise MethodUnsupportedError(
                f"{self.id} needs the package 'onnxruntime', which is installed but cannot be imported: {error}"
            ) from error

        provider = PROVIDERS[device]
        if provider not in onnxruntime.get_available_providers():
            raise MethodUnsupportedError(
                f"{self.id} needs ONNX Runtime's {provider}; the installed build offers "
                f"{', '.join(onnxruntime.get_available_providers())}. Install onnxruntime-gpu."
            )
        if device == "cuda":
            needs_driver(self.id, machine, "onnxruntime-gpu", onnxruntime_cuda())
            needs_matching_cuda(self.id)
            needs_bindings(self.id)

    def depends_on(self, workload: Workload) -> Mapping[str, Any]:
        """The graph has free batch and sequence axes, so that one artifact serves all shapes and sessions' settings."""
        return {
            **library_versions("onnx", "onnxruntime", "torch", "transformers"),
            "opset": OPSET,
            "facts": FACTS_VERSION,
            "device": workload.device,
        }

    def prepare(self, model: ModelInfo, workload: Workload, folder: Path) -> None:
        """Build the graph, its intermediate steps in a scratch folder."""
        with TemporaryDirectory(dir=folder) as scratch:
            self.build(model, workload, Path(scratch), folder).save(folder)

    @abstractmethod
    def build(self, model: ModelInfo, workload: Workload, scratch: Path, folder: Path) -> GraphFacts:
        """Write the graph into `folder`, and return what was found on the way."""

    def entries(self) -> Mapping[str, str]:
        """Configuration entries of the session beyond those of its options."""
        return {}

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """Make the session with the cell's threads."""
        del model
        return self.open(workload, folder)

    def takes_any_shape(self, workload: Workload) -> bool:
        """On a GPU a session has fixed places for inputs of one shape."""
        return self.any_shape and workload.device == "cpu"

    def import_runtime(self, model: ModelInfo) -> None:
        """On a GPU, CUDA's bindings and libraries too."""
        super().import_runtime(model)
        if os.environ.get("CUDA_VISIBLE_DEVICES"):
            cuda_runtime()
            load_cuda_libraries()

    def open(self, workload: Workload, folder: Path) -> SessionCallable:
        """The session as a callable that proves what it ran."""
        if workload.device == "cuda":
            return open_cuda_session(folder, workload, self.Options(**workload.options), self.weights)
        return open_session(folder, workload, self.Options(**workload.options), self.weights, self.entries())


class OnnxRuntimePlain(OnnxMethod):
    """The graph as it was exported; whatever is fused, ONNX Runtime fuses while it loads."""

    id: ClassVar[str] = "onnxruntime-fp32-plain"
    about: ClassVar[str] = "ONNX Runtime, FP32, the exported graph with the session's own optimizations only"

    def build(self, model: ModelInfo, workload: Workload, scratch: Path, folder: Path) -> GraphFacts:
        """Export, and nothing else."""
        del workload, scratch
        layers = export_graph(model, folder / GRAPH)
        return GraphFacts(tuple(model.input_names), layers, labels=len(model.labels))


class OnnxRuntimeFp32(OnnxMethod):
    """FP32 graph with the transformer fusions applied ahead of time."""

    id: ClassVar[str] = "onnxruntime-fp32"
    about: ClassVar[str] = "ONNX Runtime, FP32, transformer fusions applied"
    devices: ClassVar[tuple[Device, ...]] = ("cpu", "cuda")
    attention: ClassVar[Attention] = "merged"
    Options: ClassVar[type] = CudaSessionOptions

    def build(self, model: ModelInfo, workload: Workload, scratch: Path, folder: Path) -> GraphFacts:
        """Export through TorchScript with eager attention, the only pattern the optimizer fuses, then fuse."""
        exported = scratch / "exported.onnx"
        with step("export"):
            layers = export_graph(model, exported)
        with step("fuse"):
            optimizer = fuse_graph(model, exported, workload.device, self.attention)
        with step("convert"):
            self.convert(optimizer)
            optimizer.save_model_to_file(str(folder / GRAPH))
        return describe_fusion(model, layers, optimizer)

    def convert(self, optimizer: Any) -> None:
        """Change the fused graph's precision in place; FP32 needs none."""


class OnnxRuntimeBf16(OnnxRuntimeFp32):
    """The FP32 graph with products in bfloat16, as MLAS offers on arm64: weights are rounded while they are packed."""

    id: ClassVar[str] = "onnxruntime-bf16"
    about: ClassVar[str] = "ONNX Runtime, products in bfloat16 (arm64 fast math), transformer fusions applied"
    precision: ClassVar[str] = "bf16"
    devices: ClassVar[tuple[Device, ...]] = ("cpu",)
    exact: ClassVar[bool] = False
    attention: ClassVar[Attention] = "separate"
    """Fast math is in the kernel of matrix products alone: merged attention would keep its projections in FP32."""

    def check_supported(self, machine: Machine, device: Device) -> None:
        """arm64 Linux with the bf16 instructions; no other CPU has such kernels in ONNX Runtime."""
        super().check_supported(machine, device)
        flags = set(machine.instruction_sets)
        if not machine.system.startswith("Linux") or not {"asimd", "bf16"} <= flags:
            raise MethodUnsupportedError(
                f"{self.id} needs Linux on an arm64 CPU with bf16 instructions: ONNX Runtime's CPU provider multiplies "
                "in bfloat16 there alone (fast math of MLAS), and has no such kernels for other CPUs"
            )

    def build(self, model: ModelInfo, workload: Workload, scratch: Path, folder: Path) -> GraphFacts:
        """The fused graph, and a small product that tells whether operands are rounded."""
        write_rounding_probe(folder)
        return super().build(model, workload, scratch, folder)

    def entries(self) -> Mapping[str, str]:
        """Turn fast math on."""
        return {FAST_MATH: "1"}

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """The session, with a proof that its products are rounded."""
        del model
        return RoundingChecked(self.open(workload, folder), folder, self.entries())
