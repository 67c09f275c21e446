"""PyTorch's compiler ahead of time: AOTInductor makes a package that cells only load."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from zipfile import ZipFile

from farm.errors import ProofFailedError
from farm.records import Device, Machine, ModelInfo, Workload
from tasks.compilers import compiler_version, needs_compiler
from tasks.cpu_products import Product, account_of, check_pruned, check_types, kernels
from tasks.instruction_sets import compiler_targets
from tasks.method import Loaded, library_versions
from tasks.operations import Architecture, architecture_of
from tasks.pytorch import TorchCallable, TorchMethod, use_threads
from tasks.steps import step

PACKAGE = "model.pt2"
FACTS = "facts.json"

REDUCED = {"int8", "uint8", "bfloat16", "float16"}
"""Types of constants that an FP32 model does not have."""


def import_compiler() -> None:
    """Import Inductor without the pool of compiling processes that it starts by itself: they would run beside calls."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    import torch._inductor.compile_fx
    import torch._inductor.package  # noqa: F401


@dataclass(frozen=True)
class CompileOptions:
    """Settings that a suite may give. `freezing`: weights become constants, packed for the CPU's kernels."""

    freezing: bool = False


class InductorMethod(TorchMethod):
    """What compiling for a cell and ahead of time share."""

    def depends_on(self, workload: Workload) -> Mapping[str, Any]:
        """Compiled code is made by a compiler for a shape, a number of threads and this CPU's instruction sets."""
        return {
            **library_versions("torch", "transformers"),
            "compiler": compiler_version(),
            "shape": [workload.batch_size, workload.length],
            "threads": workload.threads,
            "device": workload.device,
            "instruction_sets": compiler_targets(),
        }


class PackageCallable(TorchCallable):
    """A package of AOTInductor: a compiled library with the weights, called from PyTorch without the model's code."""

    def __init__(
        self, package: Any, model: ModelInfo, workload: Workload, facts: Mapping[str, Any], *, pruned: bool
    ) -> None:
        super().__init__(package, model.input_names, workload.device)
        self._model = model
        self._workload = workload
        self._facts = facts
        self._pruned = pruned

    def run(self, tensors: Mapping[str, Any]) -> Any:
        """Call the package by input names; it returns bare logits."""
        return self.module(**tensors)

    def proof(self) -> Mapping[str, Any]:
        """Threads, what the package's own source says, the products that ran and, if promised, that some were spared.

        A package calls PyTorch's kernels past the dispatcher, so that neither a profiler nor a dispatch mode sees them.
        """
        _, ran = account_of(lambda: self(self.example(self._workload)))
        evidence = {"torch_threads": self._torch.get_num_threads(), "product_kernels": kernels(ran), **self._facts}
        if self._torch.get_num_threads() != self._workload.threads:
            raise ProofFailedError(
                f"PyTorch uses {self._torch.get_num_threads()} threads, not {self._workload.threads}"
            )
        self.check(evidence, ran)
        if self._pruned:
            sizes = _architecture(self._model)
            found = check_pruned(ran, sizes, self._workload.batch_size, self._workload.length)
            remarks = [*evidence.get("remarks", []), *found.get("remarks", [])]
            evidence |= {**found, "remarks": remarks}
        return evidence

    def check(self, evidence: Mapping[str, Any], ran: Sequence[Product]) -> None:
        """Raise ProofFailedError where a product or a weight is not in FP32."""
        called = evidence["library_calls"]
        if not called:
            raise ProofFailedError("the package's source calls no matrix product")
        reduced = sorted({name for name in called if "qlinear" in name} | REDUCED & set(evidence["constant_dtypes"]))
        if reduced:
            raise ProofFailedError(f"the package holds weights or products in reduced precision: {', '.join(reduced)}")
        check_types(ran, "float32")


class AotFp32(InductorMethod):
    """AOTInductor: exported, compiled to a shared library with its weights, and loaded without compiling anything."""

    id: ClassVar[str] = "pytorch-fp32-aot"
    about: ClassVar[str] = "AOTInductor, FP32, static shape"
    runs_on: ClassVar[tuple[str, ...]] = ("torch",)
    Options: ClassVar[type] = CompileOptions
    proving: ClassVar[type[PackageCallable]] = PackageCallable

    def check_supported(self, machine: Machine, device: Device) -> None:
        """Packages are compiled from C++."""
        super().check_supported(machine, device)
        needs_compiler(self.id)

    def prepare(self, model: ModelInfo, workload: Workload, folder: Path) -> None:
        """Export, rewrite, and compile with the cell's number of threads."""
        import torch
        from torch._inductor import aoti_compile_and_package
        from torch._inductor.utils import fresh_cache

        from tasks.exported import example_inputs, export_again

        use_threads(workload)
        with torch.no_grad():
            with step("export"):
                module = self.export(model, workload)
            with step("rewrite"):
                module, facts = self.rewrite(module, model, workload)
                (folder / FACTS).write_text(json.dumps(facts))
                program = export_again(module, example_inputs(model, workload))
            with step("compile"), fresh_cache():
                aoti_compile_and_package(
                    program, package_path=str(folder / PACKAGE), inductor_configs=self.settings(workload)
                )

    def export(self, model: ModelInfo, workload: Workload) -> Any:
        """The module to rewrite, at the cell's shape or with open axes: what it becomes is exported again."""
        from tasks.exported import export_module

        return export_module(model, workload, pruned=self.prunes_last_layer)

    def rewrite(self, module: Any, model: ModelInfo, workload: Workload) -> tuple[Any, dict[str, Any]]:
        """What is compiled instead of the exported module, and facts about it for the proof; by itself, no change."""
        del model, workload
        return module, {}

    def settings(self, workload: Workload) -> dict[str, Any]:
        """Inductor's settings."""
        return {"freezing": CompileOptions(**workload.options).freezing}

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
        facts |= generated_code(folder / PACKAGE)
        return self.proving(package, model, workload, facts, pruned=self.prunes_last_layer)


class AotFp32Pruned(AotFp32):
    """The same with the last layer computed for the first token alone."""

    id: ClassVar[str] = "pytorch-fp32-aot-pruned"
    about: ClassVar[str] = "AOTInductor, FP32, last layer for the first token only (exact)"
    prunes_last_layer: ClassVar[bool] = True


def generated_code(package: Path) -> dict[str, Any]:
    """What the package's generated source says: its calls of matrix products, and its constants' types."""
    with ZipFile(package) as archive:
        sources = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".cpp")]
    text = "\n".join(sources)
    calls = Counter(re.findall(r"aoti_torch_cpu_(\w*(?:linear|mm|attention)\w*)\(", text))
    constants = Counter(re.findall(r"constants_info_\[\d+\]\.dtype = [^;]*cached_torch_dtype_(\w+)", text))
    return {"library_calls": dict(calls), "constant_dtypes": dict(constants)}


def _architecture(model: ModelInfo) -> Architecture | None:
    config = json.loads((Path(model.folder) / "config.json").read_text())
    return architecture_of(config, len(model.labels))
