"""ONNX Runtime in int8: what its methods share, and dynamic quantization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from farm.records import ModelInfo, Workload
from tasks.instruction_sets import DOT_PRODUCTS, byte_sums_may_overflow, cpu_flags
from tasks.method import Arrays, Loaded
from tasks.onnx_graphs import (
    GRAPH,
    Attention,
    GraphFacts,
    describe_fusion,
    export_graph,
    export_pruned_graph,
    fuse_graph,
)
from tasks.onnx_probes import sums_saturate, write_saturation_probe
from tasks.onnx_runtime import OnnxMethod
from tasks.onnx_sessions import SessionCallable, SessionOptions
from tasks.steps import step

ByteType = Literal["int8", "uint8"]


@dataclass(frozen=True)
class DynamicInt8Options(SessionOptions):
    """Settings of dynamic quantization that a suite may give, beside those of the session.

    `weight_type`: int8, or uint8. Signed weights have the faster kernels on CPUs with dot-product instructions.
    `per_channel`: a scale for each output channel of a weight, or one for all.
    `reduce_range`: weights of seven bits instead of eight; null = only where sums of products would overflow.
    """

    weight_type: ByteType = "int8"
    per_channel: bool = True
    reduce_range: bool | None = None


class Int8Callable:
    """A session whose proof adds what can be known of its int8 kernels."""

    def __init__(self, call: SessionCallable, folder: Path, *, signed: bool, reduced: bool) -> None:
        self._call = call
        self._folder = folder
        self._weights = {"signed": signed, "reduced": reduced}

    def __call__(self, inputs: Arrays) -> Arrays:
        """Run one batch."""
        return self._call(inputs)

    def proof(self) -> Mapping[str, Any]:
        """The share of multiply-adds in int8, and what is known of the kernels: MLAS does not name the one it took."""
        return {
            **self._call.proof(),
            "weight_bits": 7 if self._weights["reduced"] else 8,
            "int8_kernels": "unknown: ONNX Runtime does not report them",
            "dot_product_flags_of_cpu": sorted(cpu_flags() & set(DOT_PRODUCTS)),
            "int8_sums_saturate": sums_saturate(self._folder, **self._weights),
        }


class OnnxInt8(OnnxMethod):
    """What int8 methods share: every product with weights must run in int8."""

    precision: ClassVar[str] = "int8"
    exact: ClassVar[bool] = False
    weights: ClassVar[str] = "int8"
    attention: ClassVar[Attention] = "separate"

    def depends_on(self, workload: Workload) -> Mapping[str, Any]:
        """Whether weights have seven bits may follow from the CPU."""
        return {**super().depends_on(workload), "reduce_range": self.reduced(workload)}

    def reduced(self, workload: Workload) -> bool:
        """Whether weights keep to seven bits: as asked, else where signed weights would overflow sums."""
        options = self.Options(**workload.options)
        if options.reduce_range is not None:
            return bool(options.reduce_range)
        return self.signed(workload) and byte_sums_may_overflow()

    def signed(self, workload: Workload) -> bool:
        """Whether weights are signed bytes."""
        return getattr(self.Options(**workload.options), "weight_type", "int8") == "int8"

    def build(self, model: ModelInfo, workload: Workload, scratch: Path, folder: Path) -> GraphFacts:
        """Export, fuse, quantize."""
        fused = scratch / "fused.onnx"
        facts = self.build_float(model, workload, scratch, fused)
        with step("quantize"):
            self.quantize(model, workload, fused, folder / GRAPH)
        write_saturation_probe(folder, signed=self.signed(workload), reduced=self.reduced(workload))
        return facts

    def build_float(self, model: ModelInfo, workload: Workload, scratch: Path, target: Path) -> GraphFacts:
        """Write the graph that is to be quantized."""
        exported = scratch / "exported.onnx"
        with step("export"):
            layers = export_graph(model, exported)
        with step("fuse"):
            optimizer = fuse_graph(model, exported, workload.device, self.attention)
            optimizer.save_model_to_file(str(target))
        return describe_fusion(model, layers, optimizer)

    def quantize(self, model: ModelInfo, workload: Workload, fused: Path, target: Path) -> None:
        """Write the quantized graph."""
        raise NotImplementedError

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """The session, with what can be known of its kernels."""
        del model
        return Int8Callable(
            self.open(workload, folder), folder, signed=self.signed(workload), reduced=self.reduced(workload)
        )


class OnnxInt8Dynamic(OnnxInt8):
    """Weights quantized ahead of time, each activation at run time by its own range."""

    id: ClassVar[str] = "onnxruntime-int8-dynamic"
    about: ClassVar[str] = "ONNX Runtime, fused, int8: activations quantized at run time"
    Options: ClassVar[type] = DynamicInt8Options

    def quantize(self, model: ModelInfo, workload: Workload, fused: Path, target: Path) -> None:
        """Quantize every product with weights. The embeddings stay FP32: they are looked up, not multiplied."""
        del model
        from onnx import TensorProto
        from onnxruntime.quantization import QuantType, quantize_dynamic

        options = self.Options(**workload.options)
        quantize_dynamic(
            str(fused),
            str(target),
            op_types_to_quantize=["MatMul", "Attention"],
            per_channel=options.per_channel,
            reduce_range=self.reduced(workload),
            weight_type=QuantType.QInt8 if self.signed(workload) else QuantType.QUInt8,
            # Shape inference does not know fused operators, so that the quantizer cannot see their type.
            extra_options={"DefaultTensorType": TensorProto.FLOAT},
        )


class OnnxInt8DynamicPruned(OnnxInt8Dynamic):
    """As dynamic int8, and the last layer computes the one position that the classifier reads."""

    id: ClassVar[str] = "onnxruntime-int8-dynamic-pruned"
    about: ClassVar[str] = "ONNX Runtime, static shape, dynamic int8, the last layer for the first token alone (exact)"
    any_shape: ClassVar[bool] = False
    prunes_last_layer: ClassVar[bool] = True

    def depends_on(self, workload: Workload) -> Mapping[str, Any]:
        """Pruning is found on a graph of fixed shape."""
        return {**super().depends_on(workload), "shape": [workload.batch_size, workload.length]}

    def build_float(self, model: ModelInfo, workload: Workload, scratch: Path, target: Path) -> GraphFacts:
        """The pruned graph, fused. Raises MethodUnsupportedError where there is nothing to leave out."""
        exported = scratch / "exported.onnx"
        with step("export"):
            layers, pruning = export_pruned_graph(self.id, model, workload, exported)
        with step("fuse"):
            optimizer = fuse_graph(model, exported, workload.device, self.attention)
            optimizer.save_model_to_file(str(target))
        return describe_fusion(model, layers, optimizer, pruning)
