"""PyTorch's compiler on a GPU: torch.compile in its three modes, and AOTInductor, also captured in a CUDA graph."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from farm.errors import ProofFailedError
from farm.records import Device, Machine, ModelInfo, Workload
from tasks import gpu_kernels
from tasks.cuda_graphs import PRODUCTS, Captured
from tasks.cuda_toolkit import needs_c_compiler, needs_cuda_headers, use_cuda_headers
from tasks.gpu_settings import attention_backends, gpu_names, needs_capability
from tasks.inductor import FACTS, PACKAGE, AotFp32
from tasks.method import Loaded
from tasks.options import NoOptions
from tasks.pytorch import EagerCallable, TorchCallable, load_module, use_threads
from tasks.steps import step
from tasks.torch_compile import TorchCompileFp32

Mode = Literal["default", "reduce-overhead", "max-autotune"]

COMPILING_CALLS = 3
"""A compiled model's first call compiles, the second warms up for a CUDA graph, the third records it."""


COMPILERS = "4"
"""Processes that compile kernels for one artifact: several artifacts are made at once, and each would take every core.
"""


def limit_compilers() -> None:
    """Let Inductor start so many and no more. Called before it is imported."""
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", COMPILERS)


def mode_settings(mode: Mode) -> dict[str, Any]:
    """Inductor's settings of a mode of torch.compile (torch._inductor.list_mode_options names the same)."""
    if mode == "default":
        return {}
    captured = {"triton.cudagraphs": True}
    return captured if mode == "reduce-overhead" else captured | autotune_settings()


def autotune_settings() -> dict[str, Any]:
    """Time Inductor's own matrix kernels against cuBLAS's at the shape, and take the faster one."""
    return {"max_autotune": True, "max_autotune_gemm_backends": "ATEN,TRITON", "coordinate_descent_tuning": True}


class GpuCompiled(EagerCallable):
    """A module compiled in this process for a GPU. After warm-up a recompilation is an error, not a slow sample."""

    def __init__(
        self,
        module: Any,
        model: ModelInfo,
        workload: Workload,
        dtype: str,
        *,
        captured: bool,
        products: tuple[str, ...],
    ) -> None:
        super().__init__(module, model, workload, expected_dtype=dtype)
        self._captured = captured
        self._products = products

    def proof(self) -> Mapping[str, Any]:
        """Graphs, graph breaks and recompilations."""
        import torch
        from torch._dynamo.utils import counters

        compiled = int(counters["stats"]["unique_graphs"])
        self(self.example(self._workload))
        evidence = {
            **attention_backends(),
            "torch_threads": torch.get_num_threads(),
            "compiled_graphs": compiled,
            "graph_breaks": sum(counters["graph_break"].values()),
            "recompiles": int(counters["stats"]["unique_graphs"]) - compiled,
            "cudagraph_skips": int(counters["inductor"]["cudagraph_skips"]),
        }
        if compiled == 0:
            raise ProofFailedError("nothing was compiled: the module ran eagerly")
        if evidence["recompiles"]:
            raise ProofFailedError("the module was compiled again for an input of the same shape")
        torch._dynamo.config.error_on_recompile = True
        return evidence

    def prove_kernels(self) -> Mapping[str, Any]:
        """The kernels of a call, and that they were launched by a graph where the mode captures one."""
        ran = gpu_kernels.executed_kernels(lambda: self(self.example(self._workload)))
        if self._captured:
            gpu_kernels.check_captured(ran)
        gpu_kernels.check_products(ran, self._products)
        return ran.evidence()


class CompileOnGpu(TorchCompileFp32):
    """torch.compile at a static shape in one of its modes; CUDA graphs are its own."""

    devices: ClassVar[tuple[Device, ...]] = ("cuda",)
    requires: ClassVar[tuple[str, ...]] = ("torch", "transformers", "triton")
    runs_on: ClassVar[tuple[str, ...] | None] = ("torch", "transformers")
    exact: ClassVar[bool] = False
    mode: ClassVar[Mode] = "default"

    Options: ClassVar[type] = NoOptions
    """The modes are methods of their own."""

    def check_supported(self, machine: Machine, device: Device) -> None:
        """The precision's matrix units, and Triton, which writes the kernels."""
        super(TorchCompileFp32, self).check_supported(machine, device)
        needs_capability(self.id, machine, self.precision)
        needs_c_compiler(self.id)

    def depends_on(self, workload: Workload) -> Mapping[str, Any]:
        """Kernels are compiled, and chosen by their times, for a chip."""
        return {**super().depends_on(workload), "gpus": gpu_names(), "mode": self.mode}

    def prepare(self, model: ModelInfo, workload: Workload, folder: Path) -> None:
        """Compile once and save what Inductor would otherwise do again; with few compilers where others compile too."""
        if not self.prepares_alone:
            limit_compilers()
        super().prepare(model, workload, folder)

    def _compiled(self, model: ModelInfo, workload: Workload) -> GpuCompiled:
        import torch

        use_threads(workload)
        with step("load model"):
            module = self.converted(load_module(model).to(workload.device, getattr(torch, self.dtype)))
        compiled = torch.compile(module, dynamic=False, options=mode_settings(self.mode))
        captured = self.mode != "default"
        loaded = GpuCompiled(compiled, model, workload, self.dtype, captured=captured, products=self.product_kernels())
        with step("compile"):
            for _ in range(COMPILING_CALLS):
                loaded(loaded.example(workload))
        return loaded

    def converted(self, module: Any) -> Any:
        """What is compiled instead of the module; by itself, the module."""
        return module

    def product_kernels(self) -> tuple[str, ...]:
        """The arithmetic in which products may run."""
        return (self.precision,)


class CompileFp16(CompileOnGpu):
    """FP16, kernels fused and launched one by one."""

    id: ClassVar[str] = "pytorch-fp16-compile"
    about: ClassVar[str] = "torch.compile, FP16, static shape"
    precision: ClassVar[str] = "fp16"
    dtype: ClassVar[str] = "float16"


class CompileFp16ReduceOverhead(CompileFp16):
    """FP16, captured."""

    id: ClassVar[str] = "pytorch-fp16-compile-reduce-overhead"
    about: ClassVar[str] = "torch.compile, FP16, mode reduce-overhead: with CUDA graphs"
    mode: ClassVar[Mode] = "reduce-overhead"


class CompileFp16MaxAutotune(CompileFp16):
    """FP16, captured, products tuned."""

    id: ClassVar[str] = "pytorch-fp16-compile-max-autotune"
    about: ClassVar[str] = "torch.compile, FP16, mode max-autotune: with CUDA graphs, products tuned at the shape"
    mode: ClassVar[Mode] = "max-autotune"
    prepares_alone: ClassVar[bool] = True


class CompileBf16(CompileOnGpu):
    """BF16, kernels fused and launched one by one."""

    id: ClassVar[str] = "pytorch-bf16-compile-cuda"
    about: ClassVar[str] = "torch.compile on CUDA, BF16, static shape"
    precision: ClassVar[str] = "bf16"
    dtype: ClassVar[str] = "bfloat16"


class CompileBf16ReduceOverhead(CompileBf16):
    """BF16, captured."""

    id: ClassVar[str] = "pytorch-bf16-compile-reduce-overhead"
    about: ClassVar[str] = "torch.compile, BF16, mode reduce-overhead: with CUDA graphs"
    mode: ClassVar[Mode] = "reduce-overhead"


class CompileBf16MaxAutotune(CompileBf16):
    """BF16, captured, products tuned."""

    id: ClassVar[str] = "pytorch-bf16-compile-max-autotune"
    about: ClassVar[str] = "torch.compile, BF16, mode max-autotune: with CUDA graphs, products tuned at the shape"
    mode: ClassVar[Mode] = "max-autotune"
    prepares_alone: ClassVar[bool] = True


@dataclass(frozen=True)
class AotOptions:
    """Settings that a suite may give. `max_autotune`: time Inductor's own matrix kernels against cuBLAS's."""

    max_autotune: bool = False


class GpuPackage(TorchCallable):
    """A package of AOTInductor on a GPU, called by input names."""

    def __init__(self, package: Any, model: ModelInfo, workload: Workload, dtype: str) -> None:
        super().__init__(package, model.input_names, workload.device)
        self._workload = workload
        self._dtype = dtype

    def run(self, tensors: Mapping[str, Any]) -> Any:
        """It returns bare logits."""
        return self.module(**tensors)

    def proof(self) -> Mapping[str, Any]:
        """What can be told before timing: nothing inside a package can be seen but its kernels."""
        return {"torch_threads": self._torch.get_num_threads()}

    def prove_kernels(self) -> Mapping[str, Any]:
        """The kernels of a call."""
        ran = gpu_kernels.executed_kernels(lambda: self(self.example(self._workload)))
        gpu_kernels.check_products(ran, (PRODUCTS[self._dtype],))
        return ran.evidence()


class AotFp16(AotFp32):
    """Exported and compiled for the GPU ahead of time; the cell loads a library and compiles nothing."""

    id: ClassVar[str] = "pytorch-fp16-aot"
    about: ClassVar[str] = "AOTInductor, FP16, static shape"
    precision: ClassVar[str] = "fp16"
    devices: ClassVar[tuple[Device, ...]] = ("cuda",)
    requires: ClassVar[tuple[str, ...]] = ("torch", "transformers", "triton")
    exact: ClassVar[bool] = False
    dtype: ClassVar[str] = "float16"
    captured: ClassVar[bool] = False
    Options: ClassVar[type] = AotOptions

    def check_supported(self, machine: Machine, device: Device) -> None:
        """FP16's matrix units came with Volta; Triton and AOTInductor need compilers, and the latter CUDA's headers."""
        super().check_supported(machine, device)
        needs_capability(self.id, machine, self.precision)
        needs_c_compiler(self.id)
        needs_cuda_headers(self.id)

    def depends_on(self, workload: Workload) -> Mapping[str, Any]:
        """Kernels are compiled for a chip."""
        return {**super().depends_on(workload), "gpus": gpu_names()}

    def prepare(self, model: ModelInfo, workload: Workload, folder: Path) -> None:
        """Export in FP16 on the GPU, prune where the method does, compile."""
        limit_compilers()
        use_cuda_headers()
        import torch
        from torch._inductor import aoti_compile_and_package
        from torch._inductor.utils import fresh_cache

        from tasks.exported import example_inputs, export_again, export_module

        use_threads(workload)
        settings = autotune_settings() if self.Options(**workload.options).max_autotune else {}
        with torch.no_grad():
            with step("export"):
                module = export_module(model, workload, pruned=self.prunes_last_layer, dtype=self.dtype)
                program = export_again(module, example_inputs(model, workload))
            with step("compile"), fresh_cache():
                aoti_compile_and_package(program, package_path=str(folder / PACKAGE), inductor_configs=settings)
        (folder / FACTS).write_text(json.dumps({"settings": settings}))

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """Open the package; capture it where the method does."""
        from torch._inductor import aoti_load_package

        use_threads(workload)
        # Single-threaded, it holds no locks of its own that a capture would stumble over.
        package = aoti_load_package(str(folder / PACKAGE), run_single_threaded=True)
        if self.captured:
            return Captured(package, model, workload, self.dtype, opaque=True)
        return GpuPackage(package, model, workload, self.dtype)


class AotFp16Pruned(AotFp16):
    """The same with the last layer computed for the first token alone."""

    id: ClassVar[str] = "pytorch-fp16-aot-pruned"
    about: ClassVar[str] = "AOTInductor, FP16, last layer for the first token only (exact)"
    prunes_last_layer: ClassVar[bool] = True


class AotFp16Graph(AotFp16):
    """Compiled kernels, launched at once."""

    id: ClassVar[str] = "pytorch-fp16-aot-cudagraph"
    about: ClassVar[str] = "AOTInductor, FP16, captured by hand in a CUDA graph"
    captured: ClassVar[bool] = True


class AotFp16GraphPruned(AotFp16Graph):
    """Fewer operations, fused kernels, one launch."""

    id: ClassVar[str] = "pytorch-fp16-aot-cudagraph-pruned"
    about: ClassVar[str] = "AOTInductor, FP16, CUDA graph, last layer for the first token only (exact)"
    prunes_last_layer: ClassVar[bool] = True
