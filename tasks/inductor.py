"""PyTorch's compiler: torch.compile in the cell, or ahead of time by AOTInductor into a package that is only loaded."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from zipfile import ZipFile

from farm.errors import ProofFailedError
from farm.records import Device, Machine, ModelInfo, Workload
from tasks.instruction_sets import compiler_targets, needs_bf16
from tasks.method import Loaded, library_versions
from tasks.onednn import executed_kernels
from tasks.pytorch import EagerCallable, TorchCallable, TorchMethod, load_module, use_threads
from tasks.steps import step

PACKAGE = "model.pt2"
FACTS = "facts.json"
CACHE = "inductor-cache.bin"

PRODUCT_KERNELS = ("mkl_linear", "qlinear", "linear_pointwise", "addmm", "mm", "bmm", "linear", "baddbmm")
"""Operators that multiply matrices, as the profiler names them; attention has operators of its own."""


def import_compiler() -> None:
    """Import Inductor without the pool of compiling processes that it starts by itself: they would run beside calls."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    import torch._inductor.compile_fx
    import torch._inductor.package  # noqa: F401


def compiler_settings(freezing: bool, max_autotune: bool) -> dict[str, Any]:
    """Inductor's settings."""
    settings: dict[str, Any] = {"freezing": freezing}
    if max_autotune:
        settings |= {"max_autotune": True, "max_autotune_gemm_backends": "CPP,ATEN"}
    return settings


def profiled_operators(call: Callable[[], Any]) -> dict[str, int]:
    """Run `call` once under PyTorch's profiler; how often each operator ran."""
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    return {event.key: event.count for event in profile.key_averages()}


def matrix_operators(operators: Mapping[str, int]) -> dict[str, int]:
    """Those of the profiled operators that multiply matrices, attention included."""
    return {
        name: count
        for name, count in operators.items()
        if name.rpartition(":")[2].lstrip("_") in PRODUCT_KERNELS
        or "qlinear" in name
        or "mkl_linear" in name
        or "scaled_dot_product" in name
    }


class CompiledCallable(EagerCallable):
    """A module compiled in this process. After warm-up a recompilation is an error, not a slow sample."""

    def proof(self) -> Mapping[str, Any]:
        """Threads, dtypes, executed matrix products, graphs, graph breaks and recompilations so far."""
        import torch
        from torch._dynamo.utils import counters

        example = self.example(self._workload)
        compiled = int(counters["stats"]["unique_graphs"])
        breaks = dict(counters["graph_break"])
        operators, kernels = executed_kernels(lambda: profiled_operators(lambda: self(example)))
        evidence = {
            "torch_threads": torch.get_num_threads(),
            "parameter_dtypes": dict(Counter(str(p.dtype).removeprefix("torch.") for p in self.module.parameters())),
            "matrix_operators": matrix_operators(operators),
            "onednn_kernels": kernels,
            "compiled_graphs": compiled,
            "graph_breaks": sum(breaks.values()),
            "recompiles": int(counters["stats"]["unique_graphs"]) - compiled,
        }
        if torch.get_num_threads() != self._workload.threads:
            raise ProofFailedError(f"PyTorch uses {torch.get_num_threads()} threads, not {self._workload.threads}")
        if compiled == 0:
            raise ProofFailedError("nothing was compiled: the module ran eagerly")
        if evidence["recompiles"]:
            raise ProofFailedError("the module was compiled again for an input of the same shape")
        if set(evidence["parameter_dtypes"]) != {self._expected_dtype}:
            raise ProofFailedError(f"parameters are {evidence['parameter_dtypes']}, not all {self._expected_dtype}")
        torch._dynamo.config.error_on_recompile = True
        return evidence


@dataclass(frozen=True)
class CompileOptions:
    """Settings that a suite may give.

    `freezing`: weights become constants, packed for the CPU's kernels. `max_autotune`: time Inductor's own matrix
    kernels against the libraries' and take the faster one; minutes of preparing.
    """

    freezing: bool = False
    max_autotune: bool = False


class InductorMethod(TorchMethod):
    """What compiling in the cell and ahead of time share."""

    def depends_on(self, workload: Workload) -> Mapping[str, Any]:
        """Compiled code is made for a shape, a number of threads and the instruction sets of this CPU."""
        return {
            **library_versions("torch", "transformers"),
            "shape": [workload.batch_size, workload.length],
            "threads": workload.threads,
            "device": workload.device,
            "instruction_sets": compiler_targets(),
        }


class TorchCompileFp32(InductorMethod):
    """torch.compile at a static shape. What it compiled while preparing is loaded from Inductor's own cache."""

    id: ClassVar[str] = "pytorch-fp32-compile"
    about: ClassVar[str] = "torch.compile (Inductor), FP32, static shape"
    dtype: ClassVar[str] = "float32"
    Options: ClassVar[type] = CompileOptions

    def import_runtime(self, model: ModelInfo) -> None:
        """Import the model's class and the compiler."""
        super().import_runtime(model)
        import_compiler()

    def prepare(self, model: ModelInfo, workload: Workload, folder: Path) -> None:
        """Compile once and save what Inductor would otherwise do again in every cell."""
        import torch
        from torch._inductor.utils import fresh_cache

        torch._dynamo.reset()
        with fresh_cache():
            self._compiled(model, workload)
            saved = torch.compiler.save_cache_artifacts()
        if saved is not None:
            (folder / CACHE).write_bytes(saved[0])

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """Load the cache and the checkpoint, and compile: torch.compile does its work at the first call, made here."""
        import torch

        # A folder for each artifact: what other versions or a user left in Inductor's own folder must not be found.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / f"inference-farm-{folder.name}")
        cache = folder / CACHE
        if cache.exists():
            torch.compiler.load_cache_artifacts(cache.read_bytes())
        return self._compiled(model, workload)

    def _compiled(self, model: ModelInfo, workload: Workload) -> EagerCallable:
        import torch

        options = CompileOptions(**workload.options)
        use_threads(workload)
        module = load_module(model).to(getattr(torch, self.dtype))
        settings = compiler_settings(options.freezing, options.max_autotune)
        compiled = torch.compile(module, dynamic=False, options=settings)
        callable_ = CompiledCallable(compiled, model, workload, expected_dtype=self.dtype)
        callable_(callable_.example(workload))
        return callable_


class TorchCompileBf16(TorchCompileFp32):
    """torch.compile with weights and activations in BF16."""

    id: ClassVar[str] = "pytorch-bf16-compile"
    about: ClassVar[str] = "torch.compile (Inductor), BF16, static shape"
    precision: ClassVar[str] = "bf16"
    dtype: ClassVar[str] = "bfloat16"
    exact: ClassVar[bool] = False

    def check_supported(self, machine: Machine, device: Device) -> None:
        """On a CPU without BF16 instructions there is nothing to gain."""
        super().check_supported(machine, device)
        needs_bf16(self.id, machine)


class PackageCallable(TorchCallable):
    """A package of AOTInductor: a compiled library with the weights, called from PyTorch without the model's code."""

    def __init__(self, package: Any, model: ModelInfo, workload: Workload, facts: Mapping[str, Any]) -> None:
        super().__init__(package, model.input_names, workload.device)
        self._workload = workload
        self._facts = facts

    def run(self, tensors: Mapping[str, Any]) -> Any:
        """Call the package by input names; it returns bare logits."""
        return self.module(**tensors)

    def proof(self) -> Mapping[str, Any]:
        """Threads, the products that the package's own source calls, and the oneDNN kernels that ran.

        A package calls PyTorch's kernels past the dispatcher, so that neither a profiler nor a dispatch mode sees them.
        """
        _, kernels = executed_kernels(lambda: self(self.example(self._workload)))
        evidence = {"torch_threads": self._torch.get_num_threads(), "onednn_kernels": kernels, **self._facts}
        if self._torch.get_num_threads() != self._workload.threads:
            raise ProofFailedError(
                f"PyTorch uses {self._torch.get_num_threads()} threads, not {self._workload.threads}"
            )
        self.check(evidence)
        return evidence

    def check(self, evidence: Mapping[str, Any]) -> None:
        """Raise ProofFailedError where a product is not in FP32."""
        called = {**evidence["library_calls"], **evidence["generated_products"]}
        if not called:
            raise ProofFailedError("the package's source calls no matrix product")
        quantized = [name for name in (*called, *evidence["onednn_kernels"]) if "qlinear" in name or "s8" in name]
        if quantized:
            raise ProofFailedError(f"quantized products ran: {', '.join(quantized)}")


class AotFp32(InductorMethod):
    """AOTInductor: exported, compiled to a shared library with its weights, and loaded without compiling anything."""

    id: ClassVar[str] = "pytorch-fp32-aot"
    about: ClassVar[str] = "AOTInductor, FP32, static shape, frozen weights"
    runs_on: ClassVar[tuple[str, ...]] = ("torch",)
    Options: ClassVar[type] = CompileOptions
    proving: ClassVar[type[PackageCallable]] = PackageCallable

    def prepare(self, model: ModelInfo, workload: Workload, folder: Path) -> None:
        """Export, rewrite, and compile with the cell's number of threads."""
        import torch
        from torch._inductor import aoti_compile_and_package
        from torch._inductor.utils import fresh_cache

        from tasks.exported import example_inputs, export_again, export_module

        use_threads(workload)
        with torch.no_grad():
            with step("export"):
                module = export_module(model, workload, pruned=self.prunes_last_layer)
            with step("rewrite"):
                module, facts = self.rewrite(module, model, workload)
                (folder / FACTS).write_text(json.dumps(facts))
                program = export_again(module, example_inputs(model, workload))
            with step("compile"), fresh_cache():
                aoti_compile_and_package(
                    program, package_path=str(folder / PACKAGE), inductor_configs=self.settings(workload)
                )

    def rewrite(self, module: Any, model: ModelInfo, workload: Workload) -> tuple[Any, dict[str, Any]]:
        """What is compiled instead of the exported module, and facts about it for the proof; by itself, no change."""
        del model, workload
        return module, {}

    def settings(self, workload: Workload) -> dict[str, Any]:
        """Inductor's settings."""
        options = CompileOptions(**workload.options)
        return compiler_settings(options.freezing, options.max_autotune)

    def import_runtime(self, model: ModelInfo) -> None:
        """The package needs PyTorch and its loader alone."""
        del model
        import_compiler()

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """Open the package."""
        from torch._inductor import aoti_load_package

        use_threads(workload)
        package = aoti_load_package(str(folder / PACKAGE), run_single_threaded=True)
        facts = json.loads((folder / FACTS).read_text())
        return self.proving(package, model, workload, facts | generated_code(folder / PACKAGE))


class AotFp32Pruned(AotFp32):
    """The same with the last layer computed for the first token alone."""

    id: ClassVar[str] = "pytorch-fp32-aot-pruned"
    about: ClassVar[str] = "AOTInductor, FP32, last layer for the first token only (exact)"
    prunes_last_layer: ClassVar[bool] = True


def generated_code(package: Path) -> dict[str, Any]:
    """What the package's generated source says: matrix kernels that Inductor wrote itself, by name, and calls."""
    with ZipFile(package) as archive:
        sources = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".cpp")]
    text = "\n".join(sources)
    kernels = Counter(re.findall(r"cpp_(CppMicroGemm\w*?)_\d+", text))
    calls = Counter(re.findall(r"aoti_torch_cpu_(\w*(?:linear|mm|attention)\w*)\(", text))
    return {"generated_products": dict(kernels), "library_calls": dict(calls)}
