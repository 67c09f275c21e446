"""OpenVINO: the model converted once, optionally quantized by NNCF, and compiled for this CPU at the cell's shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from farm.errors import MethodUnsupportedError, ProofFailedError
from farm.records import Device, Machine, ModelInfo, Workload
from tasks.calibration import CalibrationOptions, calibration_inputs, texts_sha256
from tasks.instruction_sets import BF16_X86, byte_sums_may_overflow, cpu_flags, needs_bf16_x86
from tasks.method import Arrays, Loaded, Method, library_versions
from tasks.models import read_architecture
from tasks.openvino_proof import (
    attention_work,
    check_precisions,
    check_pruning,
    executed_nodes,
    linear_work,
    shares,
)
from tasks.options import loading
from tasks.steps import step

IR = "model.xml"


class CompiledCallable:
    """A compiled model called with named NumPy arrays; its proof is the model that the runtime executes."""

    def __init__(self, compiled: Any, model: ModelInfo, workload: Workload, method: OpenVinoFp32) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._model = model
        self._workload = workload
        self._method = method

    def __call__(self, inputs: Arrays) -> Arrays:
        """Run one batch on the caller's arrays, without copying them."""
        result = self._request.infer({name: inputs[name] for name in self._model.input_names}, share_inputs=True)
        return {"logits": np.array(result[0])}

    def proof(self) -> Mapping[str, Any]:
        """Executed products by precision and kernel, what attention ran in, and the settings of the compiled model.

        Raises ProofFailedError where a product with weights ran in another precision, FP32 attention did, the model
        has other threads or another hint than it was given, or a pruned one computes what is never read.
        """
        nodes = executed_nodes(self._compiled.get_runtime_model())
        work, attention = linear_work(nodes), shares(attention_work(nodes))
        evidence = {
            "inference_threads": self._compiled.get_property("INFERENCE_NUM_THREADS"),
            "streams": int(self._compiled.get_property("NUM_STREAMS")),
            "precision_hint": self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name(),
            "multiply_adds_with_weights": sum(work.values()),
            "product_shares": shares(work),
            "precision_shares": {"attention": attention} if attention else {},
            "kernels": dict(Counter(node.kernel for node in nodes if node.kind in ("FullyConnected", "MatMul"))),
            "fused_subgraphs": dict(Counter(node.precision for node in nodes if node.kind == "Subgraph")),
            "dynamic_nodes": sum(node.written is None for node in nodes),
            "remarks": self._method.remarks(self._workload, attention),
        }
        self._check_settings(evidence)
        check_precisions(self._method.precision, evidence["product_shares"], attention)
        if self._method.prunes_last_layer:
            check_pruning(work, read_architecture(self._model), (self._workload.batch_size, self._workload.length))
        return evidence

    def _check_settings(self, evidence: Mapping[str, Any]) -> None:
        threads, hint = evidence["inference_threads"], evidence["precision_hint"]
        if threads != self._workload.threads:
            raise ProofFailedError(f"OpenVINO uses {threads} threads, not {self._workload.threads}")
        if hint != self._method.activations(self._workload):
            raise ProofFailedError(
                f"OpenVINO computes what is not quantized in {hint}, not in {self._method.activations(self._workload)}"
            )


@dataclass(frozen=True)
class OpenVinoOptions:
    """Settings that a suite may give. `hyper_threading`: use both threads of a core where the slot has them."""

    hyper_threading: bool = loading(True)


class OpenVinoFp32(Method):
    """FP32 at a static shape, with the latency hint."""

    id: ClassVar[str] = "openvino-fp32"
    about: ClassVar[str] = "OpenVINO, FP32, static shape, latency hint"
    requires: ClassVar[tuple[str, ...]] = ("openvino", "torch", "transformers")
    runs_on: ClassVar[tuple[str, ...]] = ("openvino",)
    Options: ClassVar[type] = OpenVinoOptions

    def depends_on(self, workload: Workload) -> Mapping[str, Any]:
        """The converted model has open axes: one for all shapes, which differ in how it is compiled."""
        del workload
        return library_versions("openvino", "torch", "transformers")

    def prepare(self, model: ModelInfo, workload: Workload, folder: Path) -> None:
        """Export, convert, quantize where the method does, and save."""
        import openvino

        from tasks.exported import export_open_again, export_open_module

        with step("export"):
            program = export_open_again(export_open_module(model, pruned=self.prunes_last_layer), model)
        with step("convert"):
            converted = openvino.convert_model(program)
        with step("quantize"):
            quantized = self.quantize(converted, model, workload)
        with step("save"):
            openvino.save_model(quantized, folder / IR, compress_to_fp16=False)

    def quantize(self, converted: Any, model: ModelInfo, workload: Workload) -> Any:
        """Change the converted model's precision; FP32 needs none."""
        del model, workload
        return converted

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """Read the model, fix its shape and compile it: memory is planned, kernels are picked, weights packed here."""
        import openvino

        core = openvino.Core()
        read = core.read_model(folder / IR)
        read.reshape({name: [workload.batch_size, workload.length] for name in model.input_names})
        compiled = core.compile_model(read, "CPU", device_settings(self, workload))
        return CompiledCallable(compiled, model, workload, self)

    def activations(self, workload: Workload) -> str:
        """What is not quantized runs in this precision; without a hint OpenVINO would choose BF16 where it can."""
        del workload
        return "f32"

    def remarks(self, workload: Workload, attention: Mapping[str, float]) -> list[str]:
        """What to say of a model whose products between activations ran so, by precision."""
        del workload, attention
        return []


class OpenVinoFp32Pruned(OpenVinoFp32):
    """FP32 with the last layer computed for the first token alone."""

    id: ClassVar[str] = "openvino-fp32-pruned"
    about: ClassVar[str] = "OpenVINO, FP32, last layer for the first token only (exact)"
    prunes_last_layer: ClassVar[bool] = True


class OpenVinoBf16(OpenVinoFp32):
    """The FP32 model run in BF16, on a CPU that has it."""

    id: ClassVar[str] = "openvino-bf16"
    about: ClassVar[str] = "OpenVINO, BF16, static shape, latency hint"
    precision: ClassVar[str] = "bf16"
    exact: ClassVar[bool] = False

    def check_supported(self, machine: Machine, device: Device) -> None:
        """Without BF16 instructions that it knows OpenVINO would run FP32 under this name."""
        super().check_supported(machine, device)
        needs_bf16_x86(self.id, machine, "OpenVINO")

    def activations(self, workload: Workload) -> str:
        """BF16."""
        del workload
        return "bf16"


class OpenVinoBf16Pruned(OpenVinoBf16):
    """BF16 with the last layer computed for the first token alone."""

    id: ClassVar[str] = "openvino-bf16-pruned"
    about: ClassVar[str] = "OpenVINO, BF16, last layer for the first token only (exact)"
    prunes_last_layer: ClassVar[bool] = True


@dataclass(frozen=True)
class QuantizationOptions(CalibrationOptions):
    """Settings of NNCF that a suite may give.

    `activations`: what stays unquantized runs in f32, bf16, or what this CPU does faster (auto). `preset`: mixed has
    asymmetric activations, performance symmetric ones. `attention`: quantize the products of attention too.
    `smooth_quant`: move outliers of activations into weights first (Xiao et al., SmoothQuant, 2023).
    """

    activations: Literal["auto", "f32", "bf16"] = loading("auto")
    preset: Literal["mixed", "performance"] = "mixed"
    attention: bool = True
    smooth_quant: bool = True
    hyper_threading: bool = loading(True)


class OpenVinoInt8(OpenVinoFp32):
    """Post-training quantization by NNCF: weights and activations int8, the rest FP32 or BF16."""

    id: ClassVar[str] = "openvino-int8"
    about: ClassVar[str] = "OpenVINO, int8 by NNCF post-training quantization, static shape"
    precision: ClassVar[str] = "int8"
    exact: ClassVar[bool] = False
    requires: ClassVar[tuple[str, ...]] = ("openvino", "nncf", "torch", "transformers")
    Options: ClassVar[type] = QuantizationOptions

    def check_supported(self, machine: Machine, device: Device) -> None:
        """Quantized kernels need AVX2 at least, or Arm's dot products; older CPUs have none that gain anything."""
        super().check_supported(machine, device)
        if not {"avx2", "asimddp"} & set(machine.instruction_sets):
            raise MethodUnsupportedError(f"{self.id} needs AVX2 or Arm's dot product instructions; this CPU lacks them")

    def check_options(self, machine: Machine, device: Device, options: Mapping[str, Any]) -> None:
        """BF16 activations need a CPU that OpenVINO computes in BF16 on; it would run FP32 instead."""
        super().check_options(machine, device, options)
        if QuantizationOptions(**options).activations == "bf16":
            needs_bf16_x86(f"{self.id} with activations: bf16", machine, "OpenVINO")

    def depends_on(self, workload: Workload) -> Mapping[str, Any]:
        """Ranges of activations come from the calibration texts, weights' range from this CPU."""
        options = QuantizationOptions(**workload.options)
        return {
            **super().depends_on(workload),
            **library_versions("nncf"),
            "calibration_sha256": texts_sha256(options.calibration),
            "half_range": byte_sums_may_overflow(),
        }

    def quantize(self, converted: Any, model: ModelInfo, workload: Workload) -> Any:
        """Quantize as NNCF does for transformers."""
        import nncf
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, AdvancedSmoothQuantParameters

        options = QuantizationOptions(**workload.options)
        inputs = calibration_inputs(model, options)
        alphas = AdvancedSmoothQuantParameters() if options.smooth_quant else AdvancedSmoothQuantParameters(-1, -1)
        ignored = None if options.attention else nncf.IgnoredScope(names=attention_products(converted))
        return nncf.quantize(
            converted,
            nncf.Dataset(inputs),
            preset=nncf.QuantizationPreset(options.preset),
            subset_size=len(inputs),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=ignored,
            advanced_parameters=AdvancedQuantizationParameters(smooth_quant_alphas=alphas, overflow_fix=overflow_fix()),
        )

    def remarks(self, workload: Workload, attention: Mapping[str, float]) -> list[str]:
        """Whether attention is quantized is the runtime's decision in the end."""
        asked = QuantizationOptions(**workload.options).attention
        return ["attention was to be quantized and is not"] if asked and attention and "int8" not in attention else []

    def activations(self, workload: Workload) -> str:
        """What the options say; by themselves BF16 where OpenVINO computes in it on this CPU."""
        asked = str(QuantizationOptions(**workload.options).activations)
        if asked != "auto":
            return asked
        return "bf16" if BF16_X86 & cpu_flags() else "f32"


class OpenVinoInt8Pruned(OpenVinoInt8):
    """int8 by NNCF with the last layer computed for the first token alone."""

    id: ClassVar[str] = "openvino-int8-pruned"
    about: ClassVar[str] = "OpenVINO, int8 by NNCF, last layer for the first token only (exact before quantization)"
    prunes_last_layer: ClassVar[bool] = True


def overflow_fix() -> Any:
    """Half the range of weights where sums of bytes may overflow on this CPU.

    NNCF does not ask the CPU, and its default halves the weights of first convolutions alone: none of an encoder's.
    """
    from nncf.quantization.advanced_parameters import OverflowFix

    return OverflowFix.ENABLE if byte_sums_may_overflow() else OverflowFix.DISABLE


def device_settings(method: OpenVinoFp32, workload: Workload) -> dict[str, Any]:
    """The properties that a method's model is compiled with."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": workload.threads,
        "INFERENCE_PRECISION_HINT": method.activations(workload),
        # The cell is pinned already, to cores that OpenVINO's own choice could miss.
        "ENABLE_CPU_PINNING": False,
        "ENABLE_HYPER_THREADING": method.Options(**workload.options).hyper_threading,
    }


def attention_products(converted: Any) -> list[str]:
    """Names of the operators that multiply activations with activations."""
    names = []
    for node in converted.get_ordered_ops():
        products = node.get_type_name() == "MatMul" and not _reads_constant(node.input_value(1).get_node())
        if products or node.get_type_name() == "ScaledDotProductAttention":
            names.append(node.get_friendly_name())
    return names


def _reads_constant(node: Any) -> bool:
    """Whether a value is a weight: a constant, perhaps converted or transposed on its way."""
    while node.get_type_name() in ("Convert", "Transpose", "Multiply", "Reshape"):
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")
