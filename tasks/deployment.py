"""How each method is run without the farm: which program loads its artifact, with which settings and packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farm.records import Workload
from tasks.amx import AmxInt8
from tasks.inductor import AotFp32
from tasks.method import Method, library_versions
from tasks.onnx_runtime import OnnxMethod
from tasks.onnx_sessions import PROVIDERS, SessionOptions
from tasks.openvino import OpenVinoFp32, device_settings
from tasks.pytorch import EagerOptions, PyTorchEager
from tasks.pytorch_int8 import PyTorchInt8Dynamic
from tasks.torchscript import TorchScript

PROGRAMS = Path(__file__).parent / "deployed"

CONFIGURATION = ("config.json",)
"""What transformers needs of the model to build a module whose weights the artifact holds."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """The program in `deployed/` that loads an artifact, what it is told, and what it imports.

    `model_files` of the model's folder go beside the artifact's own.
    """

    program: str
    packages: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    model_files: tuple[str, ...] = ()


def deployment_of(method: Method, workload: Workload) -> Deployment | None:
    """How to run the method's artifacts by themselves; None where no program of ours does, as on a GPU."""
    if workload.device != "cpu":
        return None
    runs = next((runs for kind, runs in _BY_KIND if isinstance(method, kind)), None)
    return runs(method, workload) if runs is not None else None


def requirements(deployment: Deployment) -> list[str]:
    """Pinned packages, as they are installed here."""
    versions = library_versions(*deployment.packages, "numpy", "tokenizers")
    # What a version names after its plus is a build of PyTorch's own index, which is not everybody's.
    return [f"{name}=={version.partition('+')[0]}" for name, version in versions.items()]


def _onnx(method: Any, workload: Workload) -> Deployment:
    options: SessionOptions = method.Options(**workload.options)
    entries = {"session.intra_op.allow_spinning": "1" if options.spinning else "0", **method.entries()}
    if options.dynamic_block_base:
        entries["session.dynamic_block_base"] = str(options.dynamic_block_base)
    settings = {"arena": options.arena, "entries": entries, "providers": [PROVIDERS["cpu"]]}
    return Deployment("onnx_session.py", ("onnxruntime",), settings)


def _openvino(method: Any, workload: Workload) -> Deployment:
    return Deployment("openvino_model.py", ("openvino",), {"properties": device_settings(method, workload)})


def _package(method: Any, workload: Workload) -> Deployment:
    del method, workload
    return Deployment("torch_package.py", ("torch",))


def _script(method: Any, workload: Workload) -> Deployment:
    del method, workload
    return Deployment("torch_script.py", ("torch",))


def _int8(method: Any, workload: Workload) -> Deployment:
    del method, workload
    return Deployment("torch_int8.py", ("torch", "transformers"), model_files=CONFIGURATION)


def _eager(method: Any, workload: Workload) -> Deployment | None:
    options = EagerOptions(**workload.options)
    if options.length_bucket is not None:
        return None
    settings = {"dtype": method.dtype, "attention": options.attention}
    return Deployment("torch_eager.py", ("torch", "transformers", "safetensors"), settings)


def _native(method: Any, workload: Workload) -> Deployment:
    del workload
    return Deployment("native_encoder.py", (), {"pruned": method.prunes_last_layer})


_BY_KIND: tuple[tuple[type[Method], Callable[[Any, Workload], Deployment | None]], ...] = (
    (AmxInt8, _native),
    (OnnxMethod, _onnx),
    (OpenVinoFp32, _openvino),
    (AotFp32, _package),
    (TorchScript, _script),
    (PyTorchInt8Dynamic, _int8),
    (PyTorchEager, _eager),
)
