"""PyTorch eager on a GPU beyond FP32: TF32, FP16, and CUDA graphs captured by hand around it, pruned too."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from farm.records import Device, Machine, ModelInfo, Workload
from tasks.cuda_graphs import Captured, CapturedOptions
from tasks.gpu_settings import needs_capability, use_attention_backend, use_tf32
from tasks.method import Loaded
from tasks.pytorch import EagerCallable, PyTorchEager, TorchMethod, load_module, use_threads


class PyTorchTf32(PyTorchEager):
    """FP32 numbers, multiplied on the matrix units, which round them to ten bits."""

    id: ClassVar[str] = "pytorch-tf32"
    about: ClassVar[str] = "PyTorch eager, FP32 numbers with TF32 products, SDPA attention"
    precision: ClassVar[str] = "tf32"
    devices: ClassVar[tuple[Device, ...]] = ("cuda",)
    exact: ClassVar[bool] = False

    def check_supported(self, machine: Machine, device: Device) -> None:
        """TF32 came with Ampere."""
        super().check_supported(machine, device)
        needs_capability(self.id, machine, "tf32")

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """As FP32, with the setting."""
        use_tf32()
        return super().load(model, workload, folder)

    def proven(self, module: Any, model: ModelInfo, workload: Workload) -> EagerCallable:
        """Products must be rounded."""
        return EagerCallable(module, model, workload, expected_dtype=self.dtype, tf32=True)


class PyTorchFp16(PyTorchEager):
    """Weights and activations in FP16."""

    id: ClassVar[str] = "pytorch-fp16"
    about: ClassVar[str] = "PyTorch eager, FP16, SDPA attention"
    precision: ClassVar[str] = "fp16"
    devices: ClassVar[tuple[Device, ...]] = ("cuda",)
    exact: ClassVar[bool] = False
    dtype: ClassVar[str] = "float16"

    def check_supported(self, machine: Machine, device: Device) -> None:
        """FP16's matrix units came with Volta."""
        super().check_supported(machine, device)
        needs_capability(self.id, machine, "fp16")


class PyTorchFp16Graph(TorchMethod):
    """The eager FP16 model captured once in a CUDA graph: a call is two copies and one launch."""

    id: ClassVar[str] = "pytorch-fp16-cudagraph"
    about: ClassVar[str] = "PyTorch eager, FP16, captured by hand in a CUDA graph at the cell's shape"
    precision: ClassVar[str] = "fp16"
    devices: ClassVar[tuple[Device, ...]] = ("cuda",)
    exact: ClassVar[bool] = False
    dtype: ClassVar[str] = "float16"
    Options: ClassVar[type] = CapturedOptions

    def check_supported(self, machine: Machine, device: Device) -> None:
        """FP16's matrix units came with Volta."""
        super().check_supported(machine, device)
        needs_capability(self.id, machine, "fp16")

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """Load, warm up and capture; the graph is made for the shape and holds the model's memory."""
        del folder
        use_threads(workload)
        use_attention_backend(CapturedOptions(**workload.options).sdpa_backend)
        return Captured(self.module(model, workload), model, workload, self.dtype)

    def module(self, model: ModelInfo, workload: Workload) -> Any:
        """What is captured: called by input names, it returns logits."""
        import torch

        from tasks.exported import bare_module

        return bare_module(load_module(model).to(workload.device, getattr(torch, self.dtype))).eval()


class PyTorchFp16GraphPruned(PyTorchFp16Graph):
    """The same with the last layer computed for the first token alone."""

    id: ClassVar[str] = "pytorch-fp16-cudagraph-pruned"
    about: ClassVar[str] = "PyTorch, FP16, CUDA graph, last layer for the first token only (exact)"
    prunes_last_layer: ClassVar[bool] = True

    def module(self, model: ModelInfo, workload: Workload) -> Any:
        """The exported graph, pruned, run operator by operator while it is captured."""
        from tasks.exported import export_module

        return export_module(model, workload, pruned=True, dtype=self.dtype)


class PyTorchBf16Graph(PyTorchFp16Graph):
    """The eager BF16 model captured in a CUDA graph."""

    id: ClassVar[str] = "pytorch-bf16-cudagraph"
    about: ClassVar[str] = "PyTorch eager, BF16, captured by hand in a CUDA graph at the cell's shape"
    precision: ClassVar[str] = "bf16"
    dtype: ClassVar[str] = "bfloat16"

    def check_supported(self, machine: Machine, device: Device) -> None:
        """BF16's matrix units came with Ampere."""
        super().check_supported(machine, device)
        needs_capability(self.id, machine, "bf16")
