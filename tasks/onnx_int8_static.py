"""ONNX Runtime in static int8: activations quantized by ranges that calibration has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from farm.records import ModelInfo, Workload
from tasks.calibration import CalibrationOptions, calibration_inputs, texts_sha256
from tasks.method import Arrays
from tasks.onnx_int8 import ByteType, OnnxInt8
from tasks.onnx_sessions import SessionOptions


@dataclass(frozen=True)
class StaticInt8Options(SessionOptions, CalibrationOptions):
    """Settings of static quantization that a suite may give, beside those of the session and of calibration.

    `activation_type`: uint8 with a zero point, or int8 around zero (on x86 ONNX Runtime runs that as uint8 too).
    `per_channel`: a scale for each output channel of a weight, or one for all.
    `reduce_range`: weights of seven bits instead of eight; null = only where sums of products would overflow.
    """

    activation_type: ByteType = "uint8"
    per_channel: bool = True
    reduce_range: bool | None = None


class OnnxInt8Static(OnnxInt8):
    """Weights and activations quantized ahead of time, the latter by the least and largest value in calibration."""

    id: ClassVar[str] = "onnxruntime-int8-static"
    about: ClassVar[str] = "ONNX Runtime, fused, int8: activations quantized by calibrated ranges (QDQ)"
    Options: ClassVar[type] = StaticInt8Options

    def depends_on(self, workload: Workload) -> Mapping[str, Any]:
        """Ranges are those of the calibration texts."""
        return {
            **super().depends_on(workload),
            "calibration_sha256": texts_sha256(self.Options(**workload.options).calibration),
        }

    def quantize(self, model: ModelInfo, workload: Workload, fused: Path, target: Path) -> None:
        """Quantize what products with weights read. What they write stays FP32: rounding it to bytes as well cost
        agreement and made nothing faster, as the next operator (a norm, an activation) computes in FP32 anyway."""
        import onnx
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        options = self.Options(**workload.options)
        routed = fused.with_name("routed.onnx")
        graph, products = _route_products(onnx.load(str(fused)))
        onnx.save(graph, str(routed))
        activation = QuantType.QUInt8 if options.activation_type == "uint8" else QuantType.QInt8
        quantize_static(
            str(routed),
            str(target),
            _Reader(calibration_inputs(model, options)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=products,
            per_channel=options.per_channel,
            reduce_range=self.reduced(workload),
            activation_type=activation,
            weight_type=QuantType.QInt8,
            extra_options={
                "ActivationSymmetric": options.activation_type == "int8",
                "OpTypesToExcludeOutputQuantization": ["MatMul"],
            },
        )


class _Reader:
    """Calibration inputs as ONNX Runtime asks for them: one by one, then None."""

    def __init__(self, inputs: Sequence[Arrays]) -> None:
        self._inputs = iter(inputs)

    def get_next(self) -> Arrays | None:
        return next(self._inputs, None)


def _route_products(model: Any) -> tuple[Any, list[str]]:
    """Give products with weights an input of their own; return the graph with shapes inferred, and their names.

    The quantizer quantizes a value for all its readers. Most are read by the residual connection too, which would
    then pass through bytes: it keeps the value itself, while products read a copy (which the session drops).
    """
    from onnx import helper
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

    wrapped = ONNXModel(model)
    wrapped.replace_gemm_with_matmul()
    graph = wrapped.model.graph
    constants = {each.name for each in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in constants]
    copies: dict[str, Any] = {}
    for number, node in enumerate(products):
        read = node.input[0]
        copies.setdefault(read, helper.make_node("Identity", [read], [f"{read}_copy"], name=f"copy_{number}"))
        node.name = node.name or f"product_{number}"
        node.input[0] = copies[read].output[0]
    wrapped.add_nodes(list(copies.values()))
    wrapped.topological_sort()
    # Calibration sees only values of known type; ONNX's own shape inference does not know fused operators.
    return SymbolicShapeInference.infer_shapes(wrapped.model, auto_merge=True), [node.name for node in products]
