"""Int8 and FP8 on a GPU through torchao: activations quantized at run time, kernels fused by torch.compile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from farm.errors import MethodUnsupportedError
from farm.records import ModelInfo, Workload
from tasks.inductor_cuda import CompileOnGpu, Mode


def in_encoder(module: Any, path: str) -> bool:
    """Whether a submodule is a product of the encoder's layers: the head's have one row, too few for such kernels."""
    import torch

    return isinstance(module, torch.nn.Linear) and "pooler" not in path


def _is_plain(layer: Any) -> bool:
    """Whether a layer's weight is still what it was before it should have been quantized."""
    import torch

    return type(layer.weight.data) is torch.Tensor


class Quantized(CompileOnGpu):
    """Every linear layer of the encoder quantized, scales by row; attention and the head keep BF16."""

    requires: ClassVar[tuple[str, ...]] = ("torch", "transformers", "triton", "torchao")
    runs_on: ClassVar[tuple[str, ...] | None] = ("torch", "transformers", "torchao")
    mode: ClassVar[Mode] = "reduce-overhead"
    dtype: ClassVar[str] = "bfloat16"
    product_precisions: ClassVar[Mapping[str, str]] = {"attention": "bf16"}

    def import_runtime(self, model: ModelInfo) -> None:
        """Import torchao's quantization too."""
        import torchao.quantization  # noqa: F401

        super().import_runtime(model)

    def converted(self, module: Any) -> Any:
        """The module with its encoder quantized."""
        from torchao.quantization import quantize_

        quantize_(module.base_model, self.configuration(), filter_fn=in_encoder)
        plain = [
            name for name, layer in module.base_model.named_modules() if in_encoder(layer, name) and _is_plain(layer)
        ]
        if plain:  # torchao leaves out what its kernels do not take, and says so in no way that a caller sees
            raise MethodUnsupportedError(
                f"torchao has no {self.precision} kernel for {len(plain)} of the encoder's layers ({plain[0]}, ...): "
                "their sizes must be multiples of 16"
            )
        return module

    def configuration(self) -> Any:
        """What torchao is asked for."""
        raise NotImplementedError

    def depends_on(self, workload: Workload) -> Mapping[str, Any]:
        """The library that quantizes."""
        from tasks.method import library_versions

        return {**super().depends_on(workload), **library_versions("torchao")}

    def product_kernels(self) -> tuple[str, ...]:
        """Attention and the head multiply in BF16."""
        return (self.precision, "bf16")


class Int8Dynamic(Quantized):
    """Int8 weights and activations."""

    id: ClassVar[str] = "pytorch-int8-dynamic-compile"
    about: ClassVar[str] = "torchao dynamic int8 by row, torch.compile with CUDA graphs; attention in BF16"
    precision: ClassVar[str] = "int8"

    def configuration(self) -> Any:
        """Symmetric, a scale for each row of activations and of weights."""
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig

        return Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)


class Fp8Dynamic(Quantized):
    """FP8 weights and activations, from Ada on."""

    id: ClassVar[str] = "pytorch-fp8-dynamic-compile"
    about: ClassVar[str] = "torchao dynamic FP8 (e4m3) by row, torch.compile with CUDA graphs; attention in BF16"
    precision: ClassVar[str] = "fp8"

    def configuration(self) -> Any:
        """A scale for each row of activations and of weights."""
        from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow

        return Float8DynamicActivationFloat8WeightConfig(granularity=PerRow(), set_inductor_config=False)
