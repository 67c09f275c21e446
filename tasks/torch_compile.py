"""torch.compile: what it compiled while preparing is packed, and unpacked in the cell, where nothing is compiled."""

from __future__ import annotations

import os
import shutil
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, ClassVar

from farm.errors import ProofFailedError
from farm.records import Device, Machine, ModelInfo, Workload
from tasks.compilers import needs_compiler
from tasks.cpu_products import account_of, check_types, kernels
from tasks.inductor import CompileOptions, InductorMethod, import_compiler
from tasks.instruction_sets import needs_bf16
from tasks.method import Loaded
from tasks.pytorch import EagerCallable, load_module, use_threads
from tasks.steps import step

CACHE = "inductor-cache.zip"

PRODUCT_KERNELS = ("mkl_linear", "qlinear", "linear_pointwise", "addmm", "mm", "bmm", "linear", "baddbmm")
"""Operators that multiply matrices, as the profiler names them; attention has operators of its own."""


FIRST_CALL = "torch.compile works at the first call, which is counted as loading; the one told as first is the second"


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


def compiled_graphs() -> int:
    """Graphs that were compiled in this process so far."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


class CompiledCallable(EagerCallable):
    """A module compiled in this process. After its proof a recompilation is an error, not a slow sample."""

    def __init__(self, module: Any, model: ModelInfo, workload: Workload, expected_dtype: str) -> None:
        super().__init__(module, model, workload, expected_dtype)
        self._graphs_before = compiled_graphs()

    def proof(self) -> Mapping[str, Any]:
        """Threads, types of weights and products, graphs, graph breaks and recompilations over all calls so far."""
        import torch
        from torch._dynamo.utils import counters

        _, ran = account_of(lambda: self(self.example(self._workload)))
        evidence = {
            "torch_threads": torch.get_num_threads(),
            "parameter_dtypes": dict(Counter(str(p.dtype).removeprefix("torch.") for p in self.module.parameters())),
            "product_kernels": kernels(ran),
            "compiled_graphs": compiled_graphs() - self._graphs_before,
            "graph_breaks": sum(counters["graph_break"].values()),
            "remarks": [FIRST_CALL],
        }
        self.check(evidence)
        check_types(ran, self._expected_dtype)
        torch._dynamo.config.error_on_recompile = True
        return evidence

    def check(self, evidence: Mapping[str, Any]) -> None:
        """Raise ProofFailedError where the evidence contradicts the method."""
        threads, graphs, dtypes = (evidence[each] for each in ("torch_threads", "compiled_graphs", "parameter_dtypes"))
        if threads != self._workload.threads:
            raise ProofFailedError(f"PyTorch uses {threads} threads, not {self._workload.threads}")
        if graphs == 0:
            raise ProofFailedError("nothing was compiled: the module ran eagerly")
        if graphs > 1:
            raise ProofFailedError(
                f"{graphs} graphs were compiled instead of one, by {evidence['graph_breaks']} graph breaks or "
                "recompilations for inputs of the same shape"
            )
        if set(dtypes) != {self._expected_dtype}:
            raise ProofFailedError(f"parameters are {dtypes}, not all {self._expected_dtype}")

    def prove_kernels(self) -> Mapping[str, Any]:
        """The operators of a call, by PyTorch's profiler, whose memory must not count as the method's."""
        ran = matrix_operators(profiled_operators(lambda: self(self.example(self._workload))))
        if not ran:
            raise ProofFailedError("the compiled module runs no matrix product")
        return {"matrix_operators": ran}


class TorchCompileFp32(InductorMethod):
    """torch.compile at a static shape. Preparing compiles; a cell traces the module and finds all of it compiled."""

    id: ClassVar[str] = "pytorch-fp32-compile"
    about: ClassVar[str] = "torch.compile (Inductor), FP32, static shape"
    reads_checkpoint: ClassVar[bool] = True
    dtype: ClassVar[str] = "float32"
    Options: ClassVar[type] = CompileOptions

    def check_supported(self, machine: Machine, device: Device) -> None:
        """Inductor writes C++."""
        super().check_supported(machine, device)
        needs_compiler(self.id)

    def import_runtime(self, model: ModelInfo) -> None:
        """Import the model's class and the compiler."""
        super().import_runtime(model)
        import_compiler()

    def prepare(self, model: ModelInfo, workload: Workload, folder: Path) -> None:
        """Compile into an empty cache and pack it, compiled libraries included."""
        from torch._inductor.utils import fresh_cache

        _forget_tried_instructions()
        with fresh_cache():
            self._compiled(model, workload)
            with step("save"):
                shutil.make_archive(str(folder / Path(CACHE).stem), "zip", os.environ["TORCHINDUCTOR_CACHE_DIR"])

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """Load the checkpoint, and compile from a copy of the cache that is this process's own.

        torch.compile does its work at the first call, made here.
        """
        # What other versions or a user left in Inductor's usual folder must not be found.
        cache = mkdtemp(prefix="farm-inductor-")
        shutil.unpack_archive(folder / CACHE, cache)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        os.environ["TRITON_CACHE_DIR"] = str(Path(cache) / "triton")
        loaded = self._compiled(model, workload)
        weakref.finalize(loaded, shutil.rmtree, cache, ignore_errors=True)
        return loaded

    def _compiled(self, model: ModelInfo, workload: Workload) -> Any:
        import torch

        freezing = CompileOptions(**workload.options).freezing
        use_threads(workload)
        torch._dynamo.reset()  # a workshop may have compiled the same model at another length
        with step("load model"):
            module = load_module(model).to(getattr(torch, self.dtype))
        with step("compile"):
            # Precompiled headers lie in a folder that all processes share, and are looked for even in the cell.
            settings = {"freezing": freezing, "cpp_cache_precompile_headers": False}
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


def _forget_tried_instructions() -> None:
    """Inductor tries once in a process for which instructions the compiler can build, by libraries in its cache.

    Each artifact needs them in its own, or its cells would try again.
    """
    from torch._inductor import cpu_vec_isa

    for instructions in cpu_vec_isa.supported_vec_isa_list:
        # What it found of BF16 and FP16 is in the flags with which it tries the rest.
        for found in [name for name in vars(instructions) if name.startswith("_is_")]:
            delattr(instructions, found)
    kinds = [each for each in vars(cpu_vec_isa).values() if isinstance(each, type)]
    for holder in (cpu_vec_isa, *kinds):
        for remembered in vars(holder).values():
            if hasattr(remembered, "cache_clear"):
                remembered.cache_clear()
