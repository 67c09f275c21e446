"""Kernels of our own for CPUs with AMX: one C++ library computes the whole encoder, int8 with BF16 attention."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from farm.errors import MethodUnsupportedError, ProofFailedError
from farm.records import Device, Machine, ModelInfo, Workload
from tasks.compilers import compiler_version, needs_compiler
from tasks.deployed.native_encoder import LIBRARY, SETTINGS, WEIGHTS, NativeEncoder
from tasks.method import Arrays, Loaded, Method, library_versions
from tasks.models import read_architecture
from tasks.native.building import INSTRUCTION_SETS, compile_library, sources_sha256, tile_products
from tasks.native.weights import FAMILIES, PANEL, pack
from tasks.operations import count_work
from tasks.steps import step

SOURCE = "encoder.cpp"


class EncoderCallable:
    """The compiled library, called with named NumPy arrays; its proof is its account of what it multiplied."""

    def __init__(self, folder: Path, model: ModelInfo, workload: Workload, *, pruned: bool) -> None:
        self._folder, self._model, self._workload, self._pruned = folder, model, workload, pruned
        self._encoder = NativeEncoder(folder, workload.threads, pruned=pruned)

    def __call__(self, inputs: Arrays) -> Arrays:
        """Run one batch on the caller's arrays, without copying them."""
        return {"logits": self._encoder({name: inputs[name] for name in self._model.input_names})}

    def proof(self) -> Mapping[str, Any]:
        """Threads, multiply-adds by the instruction that made them, and how often it stands in the library.

        Raises ProofFailedError where the multiply-adds are not those of this model at this shape: the last layer is not
        pruned, say.
        """
        shape = self._workload.batch_size, self._workload.length
        self({name: np.ones(shape, np.int64) for name in self._model.input_names})
        int8, bf16, threads = self._encoder.account()
        made, held = {"tdpbssd": int8, "tdpbf16ps": bf16}, tile_products(self._folder / LIBRARY)
        evidence = {"openmp_threads": threads, "multiply_adds": made, "instructions_in_library": held}
        if threads != self._workload.threads:
            raise ProofFailedError(f"the kernels ran on {threads} threads, not {self._workload.threads}")
        for name, expected in self._expected_work().items():
            if not held[name]:
                raise ProofFailedError(f"the library does not hold the instruction {name}")
            if made[name] not in expected:
                raise ProofFailedError(
                    f"{made[name]} multiply-adds by {name}; this model takes {expected.start}"
                    f"{' with the last layer for the first token alone' if self._pruned else ''}"
                )
        return evidence

    def _expected_work(self) -> dict[str, range]:
        """Multiply-adds by instruction: those of the model, and of up to 15 rows more where few rows fill no tile."""
        architecture = read_architecture(self._model)
        if architecture is None:
            raise ProofFailedError("the model's configuration does not say how many products it takes")
        batch, length = self._workload.batch_size, -(-self._workload.length // PANEL) * PANEL
        work = count_work(architecture, batch, length, pruned=self._pruned)
        hidden, labels = architecture.hidden, architecture.labels
        linear, attention = work.linear // 2 - batch * hidden * labels, work.attention // 2
        # The head's rows are few always; those of a layer where it is pruned.
        spare = hidden**2 + (2 * hidden**2 + architecture.feed_forward) * self._pruned
        between = 2 * batch * length * hidden * self._pruned
        return {
            "tdpbssd": range(linear, linear + 15 * spare + 1),
            "tdpbf16ps": range(attention, attention + 15 * between + 1),
        }


class AmxInt8(Method):
    """The whole encoder in kernels of our own, for one CPU's matrix units."""

    id: ClassVar[str] = "amx-int8"
    about: ClassVar[str] = "Kernels of the farm's own for AMX: int8 quantized row by row in every call, BF16 attention"
    precision: ClassVar[str] = "int8"
    product_precisions: ClassVar[Mapping[str, str]] = {"attention": "bf16"}
    exact: ClassVar[bool] = False
    requires: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    runs_on: ClassVar[tuple[str, ...]] = ()
    any_shape: ClassVar[bool] = True

    def instruction_sets(self) -> set[str]:
        """AMX, and the vector instructions of every CPU that has it."""
        return set(INSTRUCTION_SETS)

    def check_supported(self, machine: Machine, device: Device) -> None:
        """The kernels are compiled where they run."""
        super().check_supported(machine, device)
        needs_compiler(self.id)

    def check_model(self, model: ModelInfo) -> None:
        """The kernels know one kind of layer."""
        super().check_model(model)
        if model.family not in FAMILIES:
            raise MethodUnsupportedError(f"{self.id} computes {', '.join(sorted(FAMILIES))}, not {model.family}")

    def depends_on(self, workload: Workload) -> Mapping[str, Any]:
        """The sources and their compiler; one artifact serves every shape and number of threads."""
        del workload
        versions = library_versions("torch", "transformers")
        return {**versions, "compiler": compiler_version(), "sources_sha256": sources_sha256()}

    def prepare(self, model: ModelInfo, workload: Workload, folder: Path) -> None:
        """Quantize and lay out the weights, and compile the kernels."""
        from tasks.pytorch import load_module

        del workload
        with step("load model"):
            module = load_module(model)
        with step("quantize"):
            packed = pack(module, model)
            (folder / WEIGHTS).write_bytes(packed.data)
            (folder / SETTINGS).write_text(
                json.dumps({"sizes": packed.sizes, "offsets": packed.offsets, "limits": packed.limits})
            )
        with step("compile"):
            compile_library(SOURCE, folder / LIBRARY)

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """Read the weights into huge pages and open the library."""
        return EncoderCallable(folder, model, workload, pruned=self.prunes_last_layer)


class AmxInt8Pruned(AmxInt8):
    """The same with the last layer computed for the first token alone."""

    id: ClassVar[str] = "amx-int8-pruned"
    about: ClassVar[str] = "Kernels of the farm's own for AMX, int8, last layer for the first token only"
    prunes_last_layer: ClassVar[bool] = True
