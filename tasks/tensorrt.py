"""TensorRT itself: an engine built from the exported graph in FP16, run on one stream, captured or not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from farm.errors import FarmError, MethodUnsupportedError, ProofFailedError
from farm.records import Device, Machine, ModelInfo, Workload
from tasks.cuda_ends import DeviceEnds, checked, cuda_runtime
from tasks.gpu_settings import gpu_names, needs_capability
from tasks.method import Arrays, Loaded, Method, library_versions
from tasks.onnx_cuda import needs_bindings
from tasks.onnx_fp16 import TENSORRT_PACKAGES, convert_to_fp16
from tasks.onnx_graphs import export_graph, export_pruned_graph
from tasks.steps import step

ENGINE = "engine.plan"
FACTS = "engine.json"

FACTS_VERSION = 2
"""Of what is kept beside an engine."""


class EngineCallable:
    """An execution context on fixed buffers; its kernels are captured in one CUDA graph, copies stay outside."""

    def __init__(self, engine: Any, ends: DeviceEnds, runtime: Any, facts: Mapping[str, Any]) -> None:
        self._engine = engine
        self._context = engine.create_execution_context()
        self._ends = ends
        self._runtime = runtime
        self._facts = facts
        self._graph: Any = None
        self._graph_nodes: int | None = None
        self.device_clock = ends.clock
        # The graph's axes are free, also where its engine takes one size only: addresses come after sizes.
        for name in ends.addresses:
            _accepted(self._context.set_input_shape(name, ends.shape), f"inputs of {ends.shape} as {name}")
        for name, address in {**ends.addresses, "logits": ends.logits_address}.items():
            _accepted(self._context.set_tensor_address(name, address), f"the place of {name}")

    def __call__(self, inputs: Arrays) -> Arrays:
        """Run one batch of the engine's shape."""
        self._ends.receive(inputs)
        if self._graph is None:
            self._execute()
        else:
            checked(self._runtime.cudaGraphLaunch(self._graph, self._ends.stream))
        return {"logits": self._ends.send()}

    def capture(self, inputs: Arrays) -> None:
        """Capture what a call executes, after one call that is not: the first one allocates."""
        self(inputs)
        relaxed = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed
        checked(self._runtime.cudaStreamBeginCapture(self._ends.stream, relaxed))
        self._execute()
        graph = checked(self._runtime.cudaStreamEndCapture(self._ends.stream))
        self._graph_nodes = int(checked(self._runtime.cudaGraphGetNodes(graph, 0))[-1])
        self._graph = checked(self._runtime.cudaGraphInstantiate(graph, 0))

    def proof(self) -> Mapping[str, Any]:
        """The arithmetic of the network's products, which the engine must keep; its layers; its graph.

        The inspector cannot prove it: where the engine is one fused layer, that tells the type of its logits alone.
        """
        products = self._facts["product_types"]
        formats = Counter(self._facts["layer_types"])
        evidence = {
            "network_products": products,
            "engine_layers": len(self._facts["layers"]),
            "output_types_of_layers": dict(formats),
            "layers": self._facts["layers"],
            "graph_nodes": self._graph_nodes,
            "captured_graphs": int(self._graph is not None),
            "remarks": [] if products else ["TensorRT names no products in its network: their arithmetic is unknown"],
        }
        if set(products) - {"HALF"}:
            raise ProofFailedError(f"the engine's products are not all in FP16: {products}")
        return evidence

    def _execute(self) -> None:
        _accepted(self._context.execute_async_v3(self._ends.stream_address), "to run the engine")


def _accepted(answer: bool, what: str) -> None:
    """TensorRT returns whether it took what it was given, and prints why not."""
    if not answer:
        raise FarmError(f"TensorRT refuses {what}: the end of the cell's own output says why")


class TensorRtFp16(Method):
    """Built ahead of time for the shape and the chip; the cell deserializes it."""

    id: ClassVar[str] = "tensorrt-fp16"
    about: ClassVar[str] = "TensorRT, FP16, static shape, captured in a CUDA graph"
    precision: ClassVar[str] = "fp16"
    devices: ClassVar[tuple[Device, ...]] = ("cuda",)
    requires: ClassVar[tuple[str, ...]] = ("tensorrt", "onnx", "onnxruntime", "torch", "transformers")
    runs_on: ClassVar[tuple[str, ...]] = ("tensorrt",)
    prepares_alone: ClassVar[bool] = True
    exact: ClassVar[bool] = False

    def check_supported(self, machine: Machine, device: Device) -> None:
        """TensorRT has an extra of its own, as it is large and not everybody may use it."""
        if device in self.devices and find_spec("tensorrt") is None:
            raise MethodUnsupportedError(
                f"{self.id} needs TensorRT, which is not installed: pip install 'inference-farm[tensorrt]'"
            )
        super().check_supported(machine, device)
        needs_bindings(self.id)
        needs_capability(self.id, machine, "fp16")

    def depends_on(self, workload: Workload) -> Mapping[str, Any]:
        """An engine serves one shape on one chip."""
        return {
            **library_versions(*TENSORRT_PACKAGES),
            **library_versions("onnx", "onnxruntime", "torch", "transformers"),
            "shape": [workload.batch_size, workload.length],
            "gpus": gpu_names(),
            "facts": FACTS_VERSION,
        }

    def prepare(self, model: ModelInfo, workload: Workload, folder: Path) -> None:
        """Export, convert to FP16 and build."""
        with TemporaryDirectory(dir=folder) as scratch:
            exported, half = Path(scratch) / "exported.onnx", Path(scratch) / "fp16.onnx"
            with step("export"):
                self.export(model, workload, exported)
            with step("convert"):
                convert_to_fp16(exported, half)
            with step("build"):
                plan, facts = build_engine(half, model, workload)
        (folder / ENGINE).write_bytes(plan)
        (folder / FACTS).write_text(json.dumps({**facts, "labels": len(model.labels)}))

    def export(self, model: ModelInfo, workload: Workload, target: Path) -> None:
        """Write the graph that the engine is built from."""
        del workload
        export_graph(model, target)

    def import_runtime(self, model: ModelInfo) -> None:
        """TensorRT and CUDA's bindings."""
        super().import_runtime(model)
        cuda_runtime()

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """Deserialize the engine, bind its buffers and capture."""
        import numpy as np
        import tensorrt

        facts = json.loads((folder / FACTS).read_text())
        logger = tensorrt.Logger(tensorrt.Logger.WARNING)
        engine = tensorrt.Runtime(logger).deserialize_cuda_engine((folder / ENGINE).read_bytes())
        if engine is None:
            raise FarmError("TensorRT cannot read the engine: the end of the cell's own output says why")
        runtime = cuda_runtime()
        shape = (workload.batch_size, workload.length)
        ends = DeviceEnds(model.input_names, shape, facts["labels"], runtime)
        loaded = EngineCallable(engine, ends, runtime, facts)
        loaded.capture({name: np.ones(shape, np.int64) for name in model.input_names})
        return loaded


class TensorRtFp16Pruned(TensorRtFp16):
    """The same with the last layer computed for the first token alone."""

    id: ClassVar[str] = "tensorrt-fp16-pruned"
    about: ClassVar[str] = "TensorRT, FP16, CUDA graph, last layer for the first token only (exact)"
    prunes_last_layer: ClassVar[bool] = True

    def export(self, model: ModelInfo, workload: Workload, target: Path) -> None:
        """The pruned graph. Raises MethodUnsupportedError where there is nothing to leave out."""
        export_pruned_graph(self.id, model, workload, target)


def build_engine(graph: Path, model: ModelInfo, workload: Workload) -> tuple[bytes, dict[str, Any]]:
    """Build an engine from an ONNX file for the workload's shape; the engine, and facts about its layers.

    The graph's own types are kept (a strongly typed network): FP16 is then what was asked for, and what runs.
    """
    import tensorrt

    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    builder = tensorrt.Builder(logger)
    strong = getattr(tensorrt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # later versions know no other
    network = builder.create_network(0 if strong is None else 1 << int(strong))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        reasons = "; ".join(str(parser.get_error(number).desc()) for number in range(parser.num_errors))
        raise FarmError(f"TensorRT cannot read the exported graph: {reasons}")
    settings = builder.create_builder_config()
    settings.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED
    profile = builder.create_optimization_profile()
    shape = (workload.batch_size, workload.length)
    for name in model.input_names:
        profile.set_shape(name, shape, shape, shape)
    settings.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, settings)
    if plan is None:
        raise FarmError("TensorRT could not build an engine: the end of the process's own output says why")
    serialized = bytes(plan)
    engine = tensorrt.Runtime(logger).deserialize_cuda_engine(serialized)
    layers = layer_facts(engine.create_engine_inspector(), tensorrt.LayerInformationFormat.JSON)
    return serialized, {**layers, "product_types": product_types(network, tensorrt.LayerType.MATRIX_MULTIPLY)}


def product_types(network: Any, product: Any) -> dict[str, int]:
    """The types of what a network's layers of the kind `product` multiply; a strongly typed one is built as it says."""
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    return dict(Counter(str(layer.get_input(0).dtype.name) for layer in layers if layer.type == product))


def layer_facts(inspector: Any, as_json: Any) -> dict[str, Any]:
    """Names of an engine's layers and the types they write, as its inspector tells them."""
    told = json.loads(inspector.get_engine_information(as_json))
    layers = told.get("Layers", [])
    described = [layer for layer in layers if isinstance(layer, dict)]
    types = [str(out.get("Format/Datatype", "")) for layer in described for out in layer.get("Outputs", [])]
    names = [layer.get("Name", "") if isinstance(layer, dict) else str(layer) for layer in layers]
    return {"layers": names, "layer_types": types}
