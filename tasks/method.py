"""What a method is: prepare, load, call, proof; and the registry that finds one by its id."""

from __future__ import annotations

import difflib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from farm.errors import MethodUnsupportedError, RequestError
from farm.records import Device, Machine, ModelInfo, Workload
from tasks.options import NoOptions, of_other_devices

Arrays = dict[str, np.ndarray]

ENTRY_POINT_GROUP = "inference_farm.methods"


class Loaded(Protocol):
    """A model ready to be called in this process."""

    def __call__(self, inputs: Arrays) -> Arrays:
        """Run one batch: token ids `[batch, length]` int64 in, `logits` `[batch, labels]` float32 on the host out."""

    def proof(self) -> Mapping[str, Any]:
        """Return evidence of what runs. Raises ProofFailedError where it contradicts what the method promises.

        `remarks`, if there, is a list of sentences without full stops that the table prints: what this method does
        without for this model. `precision_shares`, if there, has the shares of the precisions that products of a kind
        (`linear`, `attention`) were seen to run in, where they are not all in that of `precision_of`.
        """


class DeviceClock(Protocol):
    """Times calls by a device's own clock, from a call's first copy to the device to its last one back."""

    def collect(self) -> int:
        """Nanoseconds of all calls since it was last asked."""


def device_clock(loaded: Loaded) -> DeviceClock | None:
    """The clock of the device that a loaded model runs on, which it has as `device_clock`; None on a CPU."""
    return getattr(loaded, "device_clock", None)


def late_proof(loaded: Loaded) -> Mapping[str, Any]:
    """Evidence that cannot be had without leaving traces in the process, such as a profiler's: for after the last call.

    A loaded model that has some returns it from `prove_kernels()`, which raises ProofFailedError as `proof` does.
    """
    ask = getattr(loaded, "prove_kernels", None)
    return {} if ask is None else ask()


def allocated_bytes(loaded: Loaded | None) -> int | None:
    """The most memory on a GPU that a loaded model's framework has given out; None where it does not tell."""
    ask = getattr(loaded, "allocated_bytes", None)
    return None if ask is None else ask()


class Method(ABC):
    """One way of running the model. Instances hold no state; a subclass imports its runtime inside its methods."""

    id: ClassVar[str]
    about: ClassVar[str]
    precision: ClassVar[str] = "fp32"
    devices: ClassVar[tuple[Device, ...]] = ("cpu",)
    requires: ClassVar[tuple[str, ...]] = ()
    """Modules that must be importable, for preparing or for running."""
    runs_on: ClassVar[tuple[str, ...] | None] = None
    """Modules that a cell imports, and no other runtime with them; None where they are those of `requires`."""
    forks_after_import: ClassVar[bool] = False
    """True where cells may be forked from a process that has run `import_runtime`: it starts no thread and touches no
    device. Imports that take seconds are then made once for all cells that share them."""
    prepares_alone: ClassVar[bool] = False
    """True where preparing for a GPU times kernels there to choose among them: nothing else may run meanwhile."""
    exact: ClassVar[bool] = True
    """True where logits must equal the baseline's within rounding; false for reduced precision."""
    runs_model: ClassVar[bool] = True
    """False where a call does not compute the model, so that it has no operations to count."""
    product_precisions: ClassVar[Mapping[str, str]] = {}
    """Precision of the `linear` and `attention` products where `precision_of` would guess wrong."""
    prunes_last_layer: ClassVar[bool] = False
    """True where the last layer is computed for the first token alone (`tasks.first_token`), which is less work."""
    reads_checkpoint: ClassVar[bool] = False
    """True where loading what was prepared reads the model's weights too: they are part of its size."""
    any_shape: ClassVar[bool] = False
    """True where one loaded artifact takes batches of every size and length, so that evaluating needs no padding."""
    Options: ClassVar[type] = NoOptions
    """A frozen dataclass of the settings that a suite may give; validated before anything runs."""

    def check_supported(self, machine: Machine, device: Device) -> None:
        """Raise MethodUnsupportedError, naming what is missing, where this method cannot run."""
        if device not in self.devices:
            raise MethodUnsupportedError(f"{self.id} runs on {' and '.join(self.devices)} only, not on {device}")
        for module in self.requires:
            if find_spec(module) is None:
                raise MethodUnsupportedError(f"{self.id} needs the package '{module}', which is not installed")
        missing = sorted(self.instruction_sets() - set(machine.instruction_sets))
        if device == "cpu" and missing:
            raise MethodUnsupportedError(
                f"{self.id} needs the instruction sets {', '.join(missing)}; this CPU lacks them"
            )

    def check_model(self, model: ModelInfo) -> None:
        """Raise MethodUnsupportedError, with the reason, where the model's configuration rules this method out.

        Called when planning, before anything is prepared, and for the demo perhaps before it is built: look at
        `model`, not at its files.
        """
        if self.prunes_last_layer and model.pooling != "first":
            raise MethodUnsupportedError(
                f"{self.id} leaves out what a model's head does not read, but that of {model.name} reads all tokens"
            )

    def check_options(self, machine: Machine, device: Device, options: Mapping[str, Any]) -> None:
        """Raise MethodUnsupportedError where an option asks for what this machine or device does not have."""
        del machine
        for name, other in of_other_devices(self.Options, options, device).items():
            raise MethodUnsupportedError(f"{self.id}: {name} is an option on {other} alone")

    def instruction_sets(self) -> set[str]:
        """CPU flags (as /proc/cpuinfo spells them) without which the method is pointless here."""
        return set()

    def precision_of(self, product: str, workload: Workload) -> str:
        """Return the precision of products with weights (`linear`) or of those between activations (`attention`).

        Asked in the cell, where the CPU may decide. Quantizing to int8 is taken to leave attention in fp32, for none of
        its operands is a weight. A proof that knows better says so in `precision_shares`.
        """
        del workload
        usual = "fp32" if product == "attention" and self.precision == "int8" else self.precision
        return self.product_precisions.get(product, usual)

    def takes_any_shape(self, workload: Workload) -> bool:
        """Whether what is loaded for this workload takes batches of every size and length."""
        del workload
        return self.any_shape

    def computes_all(self, workload: Workload, padded: bool) -> bool:
        """Whether a call computes the model on all of the workload's tokens; not where it cuts the padding off them."""
        return self.runs_model and not (padded and workload.options.get("length_bucket"))

    def depends_on(self, workload: Workload) -> Mapping[str, Any] | None:
        """Return everything besides the model that the artifact depends on, or None where nothing is prepared.

        The artifact is cached under a hash of this: name library versions, options and, only where the artifact
        really differs by them, shape, threads and instruction sets.
        """
        del workload
        return None

    def prepare(self, model: ModelInfo, workload: Workload, folder: Path) -> None:
        """Write the artifact's files into the empty `folder`. Runs in a process of its own, never in a cell."""
        raise NotImplementedError(f"{self.id} declares an artifact but does not prepare one")

    @abstractmethod
    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """Load the artifact in `folder` (the model's own folder where nothing is prepared), ready to be called."""

    def runtimes(self) -> tuple[str, ...]:
        """The modules that a cell of this method imports, in the order it does."""
        return self.requires if self.runs_on is None else self.runs_on

    def import_runtime(self, model: ModelInfo) -> None:
        """Import all that loading this model needs, before anything is timed."""
        del model
        for module in self.runtimes():
            importlib.import_module(module)


def library_versions(*distributions: str) -> dict[str, str]:
    """Installed versions by distribution name, without importing anything; `onnxruntime` is found under both names."""
    found = {}
    for name in distributions:
        for candidate in (name, f"{name}-gpu"):
            with suppress(PackageNotFoundError):
                found[name] = version(candidate)
                break
    return found


BUILT_IN: Mapping[str, str] = {
    "pytorch-fp32": "tasks.pytorch:PyTorchEager",
    "pytorch-bf16": "tasks.pytorch:PyTorchBf16",
    "pytorch-tf32": "tasks.pytorch_cuda:PyTorchTf32",
    "pytorch-fp16": "tasks.pytorch_cuda:PyTorchFp16",
    "pytorch-fp16-cudagraph": "tasks.pytorch_cuda:PyTorchFp16Graph",
    "pytorch-fp16-cudagraph-pruned": "tasks.pytorch_cuda:PyTorchFp16GraphPruned",
    "pytorch-bf16-cudagraph": "tasks.pytorch_cuda:PyTorchBf16Graph",
    "pytorch-fp16-compile": "tasks.inductor_cuda:CompileFp16",
    "pytorch-fp16-compile-reduce-overhead": "tasks.inductor_cuda:CompileFp16ReduceOverhead",
    "pytorch-fp16-compile-max-autotune": "tasks.inductor_cuda:CompileFp16MaxAutotune",
    "pytorch-bf16-compile-cuda": "tasks.inductor_cuda:CompileBf16",
    "pytorch-bf16-compile-reduce-overhead": "tasks.inductor_cuda:CompileBf16ReduceOverhead",
    "pytorch-bf16-compile-max-autotune": "tasks.inductor_cuda:CompileBf16MaxAutotune",
    "pytorch-fp16-aot": "tasks.inductor_cuda:AotFp16",
    "pytorch-fp16-aot-pruned": "tasks.inductor_cuda:AotFp16Pruned",
    "pytorch-fp16-aot-cudagraph": "tasks.inductor_cuda:AotFp16Graph",
    "pytorch-fp16-aot-cudagraph-pruned": "tasks.inductor_cuda:AotFp16GraphPruned",
    "pytorch-int8-dynamic-compile": "tasks.torchao_cuda:Int8Dynamic",
    "pytorch-fp8-dynamic-compile": "tasks.torchao_cuda:Fp8Dynamic",
    "pytorch-int8-dynamic": "tasks.pytorch_int8:PyTorchInt8Dynamic",
    "pytorch-fp32-compile": "tasks.torch_compile:TorchCompileFp32",
    "pytorch-bf16-compile": "tasks.torch_compile:TorchCompileBf16",
    "pytorch-fp32-aot": "tasks.inductor:AotFp32",
    "pytorch-fp32-aot-pruned": "tasks.inductor:AotFp32Pruned",
    "pytorch-int8-pt2e": "tasks.inductor_int8:Pt2eInt8",
    "pytorch-int8-pt2e-dynamic": "tasks.inductor_int8:Pt2eInt8Dynamic",
    "pytorch-int8-pt2e-pruned": "tasks.inductor_int8:Pt2eInt8Pruned",
    "torchscript-fp32": "tasks.torchscript:TorchScript",
    "torchscript-fp16": "tasks.torchscript:TorchScriptFp16",
    "onnxruntime-fp32-plain": "tasks.onnx_runtime:OnnxRuntimePlain",
    "onnxruntime-fp32": "tasks.onnx_runtime:OnnxRuntimeFp32",
    "onnxruntime-fp16": "tasks.onnx_fp16:OnnxRuntimeFp16",
    "onnxruntime-fp16-pruned": "tasks.onnx_fp16:OnnxRuntimeFp16Pruned",
    "onnxruntime-fp16-tensorrt": "tasks.onnx_fp16:OnnxRuntimeTensorRt",
    "tensorrt-fp16": "tasks.tensorrt:TensorRtFp16",
    "tensorrt-fp16-pruned": "tasks.tensorrt:TensorRtFp16Pruned",
    "onnxruntime-bf16": "tasks.onnx_runtime:OnnxRuntimeBf16",
    "onnxruntime-int8-dynamic": "tasks.onnx_int8:OnnxInt8Dynamic",
    "onnxruntime-int8-dynamic-pruned": "tasks.onnx_int8:OnnxInt8DynamicPruned",
    "onnxruntime-int8-static": "tasks.onnx_int8_static:OnnxInt8Static",
    "openvino-fp32": "tasks.openvino:OpenVinoFp32",
    "openvino-fp32-pruned": "tasks.openvino:OpenVinoFp32Pruned",
    "openvino-bf16": "tasks.openvino:OpenVinoBf16",
    "openvino-bf16-pruned": "tasks.openvino:OpenVinoBf16Pruned",
    "openvino-int8": "tasks.openvino:OpenVinoInt8",
    "openvino-int8-pruned": "tasks.openvino:OpenVinoInt8Pruned",
    "amx-int8": "tasks.amx:AmxInt8",
    "amx-int8-pruned": "tasks.amx:AmxInt8Pruned",
    "control-null": "tasks.controls:Null",
    "control-work": "tasks.controls:FixedWork",
    "control-gpu-work": "tasks.controls:FixedGpuWork",
    "control-crash": "tasks.controls:Crash",
    "control-broken-import": "tasks.controls:BrokenImport",
    "control-crashing-import": "tasks.controls:CrashingImport",
    "control-hang": "tasks.controls:Hang",
    "control-leak": "tasks.controls:Leak",
    "control-wrong": "tasks.controls:Wrong",
}

ALIASES: Mapping[str, Mapping[Device, str]] = {
    "pytorch": {"cpu": "pytorch-fp32", "cuda": "pytorch-fp32"},
    "torchscript": {"cpu": "torchscript-fp32", "cuda": "torchscript-fp32"},
    "onnxruntime": {"cpu": "onnxruntime-fp32", "cuda": "onnxruntime-fp16"},
    "quantized": {"cpu": "pytorch-int8-dynamic", "cuda": "pytorch-int8-dynamic"},
}
"""The founding experiment's names. On a GPU its ONNX Runtime row was FP16."""


@cache
def _third_party() -> Mapping[str, Any]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def known_methods() -> list[str]:
    """Ids of all methods, built-in and added by entry points, sorted; controls last."""
    ids = {*BUILT_IN, *_third_party()}
    return sorted(ids, key=lambda name: (name.startswith("control-"), name))


def resolve_alias(name: str, device: Device) -> str:
    """The method id that `name` (an alias or an id) means on `device`."""
    return ALIASES[name][device] if name in ALIASES else name


def is_known(name: str) -> bool:
    """Whether `name` is a method id or an alias."""
    return name in ALIASES or name in BUILT_IN or name in _third_party()


def explain_unknown(name: str) -> str:
    """One sentence for a name that is no method, with the nearest ones that are."""
    near = difflib.get_close_matches(name, [*ALIASES, *known_methods()], n=1, cutoff=0.4)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"unknown method '{name}'.{hint} (farm methods lists all)"


@cache
def find_method(method_id: str) -> Method:
    """Return the method with this id. Raises RequestError for an unknown id or a broken third-party method."""
    if method_id in BUILT_IN:
        module_name, class_name = BUILT_IN[method_id].split(":")
        return getattr(importlib.import_module(module_name), class_name)()
    point = _third_party().get(method_id)
    if point is None:
        raise RequestError(explain_unknown(method_id))
    try:
        method = point.load()()
    except Exception as error:
        raise RequestError(f"method '{method_id}' ({point.value}) cannot be imported: {error}") from error
    if not isinstance(method, Method):
        raise RequestError(f"method '{method_id}' ({point.value}) is not a subclass of tasks.method.Method")
    return method
