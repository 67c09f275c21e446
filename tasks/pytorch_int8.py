"""PyTorch dynamic int8 quantization: weights int8 ahead of time, activations at run time."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from farm.errors import MethodUnsupportedError, ProofFailedError
from farm.records import ModelInfo, Workload
from tasks.instruction_sets import is_x86
from tasks.method import Loaded, library_versions
from tasks.pytorch import EagerCallable, TorchMethod, load_module, use_threads
from tasks.steps import step

WEIGHTS = "quantized.pt"


class Int8Callable(EagerCallable):
    """A quantized module whose proof adds the engine and the share of quantized weights."""

    def proof(self) -> Mapping[str, Any]:
        """As for eager, with the quantization engine; raises ProofFailedError where a linear layer stayed FP32."""
        evidence = dict(super().proof())
        kinds: Mapping[str, int] = evidence["linear_layers"]
        layers = sum(kinds.values())
        quantized = sum(count for kind, count in kinds.items() if kind.startswith("torch.ao.nn.quantized."))
        ran = sum(count for name, count in evidence["matrix_products"].items() if name.startswith("linear_dyn"))
        # A layer may run more often than once: ALBERT's do, and DeBERTa's projections of relative positions.
        if quantized < layers or ran < layers:
            raise ProofFailedError(f"{min(quantized, ran)} of {layers} linear layers ran quantized")
        evidence["engine"] = self._torch.backends.quantized.engine
        return evidence


class PyTorchInt8Dynamic(TorchMethod):
    """Dynamic quantization of every linear layer, as the founding experiment did it."""

    id: ClassVar[str] = "pytorch-int8-dynamic"
    about: ClassVar[str] = "PyTorch eager, linear layers dynamically quantized to int8"
    precision: ClassVar[str] = "int8"
    any_shape: ClassVar[bool] = True
    exact: ClassVar[bool] = False

    def instruction_sets(self) -> set[str]:
        """On x86 the engine is FBGEMM, which begins with AVX2."""
        return {"avx2"} if is_x86() else set()

    def depends_on(self, workload: Workload) -> Mapping[str, Any]:
        """Packed weights have the layout of the processor's quantization engine, so the architecture is in the key."""
        del workload
        return {**library_versions("torch", "transformers"), "architecture": platform.machine()}

    def prepare(self, model: ModelInfo, workload: Workload, folder: Path) -> None:
        """Quantize and save the packed state."""
        import torch

        use_threads(workload)
        with step("load model"):
            module = load_module(model)
        with step("quantize"):
            module = _quantize(module)
        with step("save"):
            torch.save(module.state_dict(), folder / WEIGHTS)

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """Rebuild the quantized structure without weights, then fill it from the artifact."""
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification
        from transformers.initialization import no_init_weights

        use_threads(workload)
        torch.backends.quantized.engine = _engine()
        config = AutoConfig.from_pretrained(model.folder, local_files_only=True, trust_remote_code=False)
        with no_init_weights():
            module = AutoModelForSequenceClassification.from_config(config).eval()
        _put_empty_quantized_layers(module)
        module.load_state_dict(torch.load(folder / WEIGHTS, weights_only=True, mmap=True))
        return Int8Callable(module, model, workload, expected_dtype="float32")


def _engine() -> str:
    """The engine PyTorch recommends for this CPU. Raises MethodUnsupportedError where its build has none."""
    import torch

    engines = [name for name in torch.backends.quantized.supported_engines if name != "none"]
    if not engines:
        raise MethodUnsupportedError("pytorch-int8-dynamic needs a PyTorch built with a quantization engine")
    for preferred in ("x86", "fbgemm", "qnnpack"):
        if preferred in engines:
            return preferred
    return str(engines[0])


def _put_empty_quantized_layers(module: Any) -> None:
    """Give `module` the structure of a quantized one; quantizing meaningless weights would cost a second."""
    import torch

    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is torch.nn.Linear:
                empty = torch.ao.nn.quantized.dynamic.Linear(
                    child.in_features, child.out_features, bias_=child.bias is not None
                )
                setattr(parent, name, empty)


def _quantize(module: Any) -> Any:
    """Replace every linear layer by a dynamically quantized one."""
    import torch

    torch.backends.quantized.engine = _engine()
    with warnings.catch_warnings():
        # The warning announces where the function will move; the method pins versions that still have it.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module="torch")
        return torch.ao.quantization.quantize_dynamic(module, {torch.nn.Linear}, dtype=torch.qint8)
