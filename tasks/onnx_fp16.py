"""ONNX Runtime on a GPU in FP16: the fused graph converted, captured, pruned, or handed to TensorRT."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from farm.errors import FarmError, MethodUnsupportedError, ProofFailedError
from farm.records import Device, Machine, ModelInfo, Workload
from tasks.gpu_settings import gpu_names
from tasks.method import library_versions
from tasks.onnx_cuda import TENSORRT, CudaSessionOptions, Placement, open_cuda_session
from tasks.onnx_graphs import (
    GRAPH,
    GraphFacts,
    describe_fusion,
    export_graph,
    export_pruned_graph,
    fuse_graph,
    load_facts,
)
from tasks.onnx_runtime import OnnxMethod, OnnxRuntimeFp32
from tasks.onnx_sessions import SessionCallable
from tasks.steps import step

TENSORRT_MAJOR = 10
"""ONNX Runtime's TensorRT provider loads libnvinfer.so.10, and no other (releases up to 1.31)."""

TENSORRT_PACKAGES = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")


class OnnxRuntimeFp16(OnnxRuntimeFp32):
    """The fused graph converted to FP16, as the founding experiment ran it on a GPU."""

    id: ClassVar[str] = "onnxruntime-fp16"
    about: ClassVar[str] = "ONNX Runtime on CUDA, FP16, transformer fusions applied, I/O binding"
    precision: ClassVar[str] = "fp16"
    devices: ClassVar[tuple[Device, ...]] = ("cuda",)
    exact: ClassVar[bool] = False
    weights: ClassVar[str] = "float16"

    def convert(self, optimizer: Any) -> None:
        """Convert weights and arithmetic to FP16; inputs stay integers and logits come back as FP32."""
        optimizer.convert_float_to_float16(keep_io_types=True)


class OnnxRuntimeFp16Pruned(OnnxRuntimeFp16):
    """The same with the last layer computed for the first token alone."""

    id: ClassVar[str] = "onnxruntime-fp16-pruned"
    about: ClassVar[str] = "ONNX Runtime on CUDA, FP16, fused, last layer for the first token only (exact)"
    any_shape: ClassVar[bool] = False
    prunes_last_layer: ClassVar[bool] = True

    def depends_on(self, workload: Workload) -> Mapping[str, Any]:
        """Pruning is found on a graph of fixed shape."""
        return {**super().depends_on(workload), "shape": [workload.batch_size, workload.length]}

    def build(self, model: ModelInfo, workload: Workload, scratch: Path, folder: Path) -> GraphFacts:
        """Export pruned, fuse, convert."""
        exported = scratch / "exported.onnx"
        with step("export"):
            layers, pruning = export_pruned_graph(self.id, model, workload, exported)
        with step("fuse"):
            optimizer = fuse_graph(model, exported, workload.device, self.attention)
        with step("convert"):
            self.convert(optimizer)
            optimizer.save_model_to_file(str(folder / GRAPH))
        return describe_fusion(model, layers, optimizer, pruning)


class OnnxRuntimeTensorRt(OnnxMethod):
    """The exported graph in FP16, compiled by TensorRT inside ONNX Runtime; its own fusions replace the optimizer's.

    The engine is a part of the artifact: a session that is made while others are measured must not build one.
    """

    id: ClassVar[str] = "onnxruntime-fp16-tensorrt"
    about: ClassVar[str] = "ONNX Runtime with TensorRT, FP16, static shape"
    prepares_alone: ClassVar[bool] = True
    precision: ClassVar[str] = "fp16"
    devices: ClassVar[tuple[Device, ...]] = ("cuda",)
    exact: ClassVar[bool] = False
    weights: ClassVar[str] = "float16"
    any_shape: ClassVar[bool] = False
    Options: ClassVar[type] = CudaSessionOptions

    def check_supported(self, machine: Machine, device: Device) -> None:
        """TensorRT's libraries of the major version that the provider was built for."""
        super().check_supported(machine, device)
        if find_spec("tensorrt_libs") is None:
            raise MethodUnsupportedError(
                f"{self.id} needs TensorRT {TENSORRT_MAJOR}, which is not installed: "
                "pip install 'inference-farm[tensorrt]'"
            )
        installed = library_versions(*TENSORRT_PACKAGES)
        majors = {version.partition(".")[0] for version in installed.values()}
        if majors and str(TENSORRT_MAJOR) not in majors:
            raise MethodUnsupportedError(
                f"{self.id}: ONNX Runtime loads TensorRT {TENSORRT_MAJOR}, but {', '.join(sorted(majors))} is installed"
            )

    def depends_on(self, workload: Workload) -> Mapping[str, Any]:
        """An engine serves one shape on one chip."""
        return {
            **super().depends_on(workload),
            **library_versions(*TENSORRT_PACKAGES),
            "shape": [workload.batch_size, workload.length],
            "gpus": gpu_names(),
            "engine": "prepared",
        }

    def prepare(self, model: ModelInfo, workload: Workload, folder: Path) -> None:
        """The graph, and the engine that a first session on it builds there."""
        super().prepare(model, workload, folder)
        with step("build"):
            session = self._session(replace(workload, options={}), folder)
            ones = np.ones((workload.batch_size, workload.length), np.int64)
            session(dict.fromkeys(load_facts(folder).inputs, ones))
        if not engines_in(folder):
            raise FarmError("TensorRT left no engine behind: the end of the process's own output says why")

    def build(self, model: ModelInfo, workload: Workload, scratch: Path, folder: Path) -> GraphFacts:
        """Export and convert; nothing is fused ahead of time."""
        del workload
        exported = scratch / "exported.onnx"
        with step("export"):
            layers = export_graph(model, exported)
        with step("convert"):
            convert_to_fp16(exported, folder / GRAPH)
        return GraphFacts(tuple(model.input_names), layers, labels=len(model.labels))

    def open(self, workload: Workload, folder: Path) -> SessionCallable:
        """A session whose every node is TensorRT's, on the engine that was prepared.

        Raises ProofFailedError where that did not fit and another was built.
        """
        prepared = engines_in(folder)
        session = self._session(workload, folder)
        if engines_in(folder) != prepared:
            raise ProofFailedError(
                "TensorRT built an engine anew while the cell loaded: the prepared one does not fit this GPU or driver"
            )
        return session

    def _session(self, workload: Workload, folder: Path) -> SessionCallable:
        load_tensorrt()
        settings = {"trt_engine_cache_enable": "True", "trt_engine_cache_path": str(folder)}
        return open_cuda_session(
            folder, workload, self.Options(**workload.options), self.weights, placement=Placement(TENSORRT, settings)
        )


def engines_in(folder: Path) -> dict[str, int]:
    """TensorRT's engines in an artifact's folder, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("*.engine"))}


def convert_to_fp16(source: Path, target: Path) -> None:
    """Convert a graph's weights and arithmetic to FP16; inputs stay integers, logits FP32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(str(source))
    onnx.save(convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=False), str(target))


def load_tensorrt() -> None:
    """Load TensorRT's libraries from the package that holds them, so that the provider finds them by name.

    All of them: building an engine opens others by name, one for each generation of chips.
    """
    spec = find_spec("tensorrt_libs")
    folders = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    paths = [path for folder in folders for path in sorted(folder.glob("*.so*"))]
    # Those that everything needs come first; one that lacks something itself is missed by whoever asks for it.
    for path in sorted(paths, key=lambda path: not path.name.startswith("libnvinfer.so")):
        with suppress(OSError):
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
