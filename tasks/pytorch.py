"""PyTorch eager: the baseline of the founding experiment. Shared by every method that runs a PyTorch module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Gt

from farm.errors import ProofFailedError
from farm.records import Device, Machine, ModelInfo, Workload
from tasks import gpu_kernels
from tasks.gpu_settings import (
    attention_backends,
    needs_capability,
    needs_cuda_build,
    rounds_to_tf32,
    use_attention_backend,
)
from tasks.half import watching
from tasks.instruction_sets import needs_bf16
from tasks.method import Arrays, Loaded, Method
from tasks.onednn import executed_kernels, without_onednn
from tasks.options import loading
from tasks.padding import trimmed
from tasks.torch_ends import ends_of

MATRIX_PRODUCTS = ("addmm", "mm", "bmm", "linear", "matmul", "baddbmm", "linear_dynamic", "mkldnn_linear")
"""Operators whose dtype decides what a transformer's arithmetic costs."""


PRODUCT_KERNELS = {"float32": ("fp32", "tf32"), "float16": ("fp16",), "bfloat16": ("bf16",)}
"""In which arithmetic a GPU's products may run, by the dtype of what is multiplied. Whether FP32 is rounded to TF32 is
told by a product itself, which is surer than kernels' names."""


def use_threads(workload: Workload) -> None:
    """Give PyTorch the cell's threads and no others. Called before the first operator runs."""
    import torch

    torch.set_num_threads(workload.threads)
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)


def import_model_class(model: ModelInfo) -> None:
    """Make transformers import the model's class, which it does on first use, by building one without memory."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(model.folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        AutoModelForSequenceClassification.from_config(config)


def load_module(model: ModelInfo, attention: str = "sdpa") -> Any:
    """Load the model in FP32 for inference. `attention` is transformers' name of an attention implementation.

    Families without SDPA attention get eager attention when asked for it.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    module = AutoModelForSequenceClassification.from_pretrained(
        model.folder,
        # Asked for SDPA by name, transformers refuses where a family has none; by itself it prefers it and falls back.
        attn_implementation=None if attention == "sdpa" else attention,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    return module.eval()


def attention_remarks(model: ModelInfo, as_asked: bool) -> list[str]:
    """What the table says of a family whose attention could not be one operator."""
    missing = f"attention runs as separate operators, as transformers has no SDPA attention for {model.family} models"
    return [] if as_asked else [missing]


def executed_products(call: Any) -> dict[str, int]:
    """Run `call` once and count the matrix products that PyTorch's dispatcher really executed, by dtype.

    Keys read `operator:dtype`, where dtype is that of the first tensor argument.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    seen: Counter[str] = Counter()

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = func.overloadpacket.__name__
            if name in MATRIX_PRODUCTS or "scaled_dot_product" in name:
                tensors = [value for value in args if isinstance(value, torch.Tensor)]
                dtype = str(tensors[0].dtype).removeprefix("torch.") if tensors else "unknown"
                seen[f"{name}:{dtype}"] += 1
            return func(*args, **(kwargs or {}))

    with Recorder():
        call()
    return dict(seen)


class TorchCallable:
    """A PyTorch module called with named NumPy arrays; results are on the host when the call returns."""

    def __init__(self, module: Any, input_names: tuple[str, ...], device: Device) -> None:
        import torch

        self._torch = torch
        self.module = module
        self._input_names = input_names
        self._device = device
        self._ends = ends_of(input_names, device)
        self.device_clock = self._ends.clock

    def __call__(self, inputs: Arrays) -> Arrays:
        """Run one batch; copying to and from the device is part of the call."""
        with self._torch.inference_mode():
            logits = self.run(self._ends.receive(inputs))
            return {"logits": self._ends.send(logits)}

    def allocated_bytes(self) -> int | None:
        """The most memory on a GPU that PyTorch has given out; None on a CPU."""
        return int(self._torch.cuda.max_memory_allocated()) if self._device == "cuda" else None

    def run(self, tensors: Mapping[str, Any]) -> Any:
        """Call the module on device tensors and return the logits."""
        return self.module(**tensors).logits

    def example(self, workload: Workload) -> Arrays:
        """Arrays of the cell's shape, for looking at what the module executes."""
        import numpy as np

        return {name: np.ones((workload.batch_size, workload.length), np.int64) for name in self._input_names}


class EagerCallable(TorchCallable):
    """An eager module with the proof that it computes in the precision its method names."""

    def __init__(
        self, module: Any, model: ModelInfo, workload: Workload, expected_dtype: str, *, tf32: bool = False
    ) -> None:
        super().__init__(module, model.input_names, workload.device)
        self._tf32 = tf32
        self._model = model
        self._workload = workload
        self._expected_dtype = expected_dtype

    def proof(self) -> Mapping[str, Any]:
        """Threads, parameter dtypes, and the executed matrix products by dtype."""
        torch = self._torch
        example = self.example(self._workload)
        on_cpu = self._workload.device == "cpu"
        observed = executed_kernels if on_cpu else without_onednn
        products, kernels = observed(lambda: executed_products(lambda: self(example)))
        kinds = (type(module) for module in self.module.modules())
        linear = Counter(f"{kind.__module__}.{kind.__name__}" for kind in kinds if kind.__name__ == "Linear")
        attention, asked = self.module.config._attn_implementation, self._workload.options.get("attention", "sdpa")
        evidence = {
            "torch_threads": torch.get_num_threads(),
            "parameter_dtypes": dict(Counter(str(p.dtype).removeprefix("torch.") for p in self.module.parameters())),
            "attention": attention,
            "matrix_products": products,
            "linear_layers": dict(linear),
            "onednn_kernels": kernels,
            "remarks": attention_remarks(self._model, as_asked=attention == asked),
        }
        if torch.get_num_threads() != self._workload.threads:
            raise ProofFailedError(f"PyTorch uses {torch.get_num_threads()} threads, not {self._workload.threads}")
        wrong = {name for name in products if not name.endswith(f":{self._expected_dtype}")}
        if wrong or not products:
            raise ProofFailedError(f"matrix products ran as {sorted(products)}, not in {self._expected_dtype}")
        if not on_cpu:
            evidence |= {"rounds_fp32_to_tf32": self._check_rounding(), **attention_backends()}
        return evidence

    def _check_rounding(self) -> bool:
        """Whether FP32 products are rounded to TF32, told by one; raises ProofFailedError where that is not asked."""
        rounded = rounds_to_tf32()
        if rounded != self._tf32:
            raise ProofFailedError(f"FP32 products are {'' if rounded else 'not '}rounded to TF32 in this process")
        return rounded

    def prove_kernels(self) -> Mapping[str, Any]:
        """On a GPU, the kernels of a call."""
        if self._workload.device == "cpu":
            return {}
        ran = gpu_kernels.executed_kernels(lambda: self(self.example(self._workload)))
        gpu_kernels.check_products(ran, PRODUCT_KERNELS[self._expected_dtype])
        return ran.evidence()

    def find_overflow(self, inputs: Arrays) -> str | None:
        """The first submodule whose result is not finite, in words."""
        with watching(self.module) as seen:
            self(inputs)
        name, largest = next(iter(seen.items()), (None, 0.0))
        return None if name is None else f"{name} (its largest finite number is {largest:.3g})"


class TorchMethod(Method):
    """What all methods on PyTorch share: what they need, and how it is imported."""

    requires: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    forks_after_import: ClassVar[bool] = True

    def check_supported(self, machine: Machine, device: Device) -> None:
        """On a GPU, PyTorch must be built for CUDA; its version says so without importing it."""
        if device == "cuda" and device in self.devices:
            needs_cuda_build(self.id, machine)
        super().check_supported(machine, device)

    def import_runtime(self, model: ModelInfo) -> None:
        """Import the model's own class too."""
        import_model_class(model)


@dataclass(frozen=True)
class EagerOptions:
    """Settings that a suite may give.

    `attention`: transformers' name of an attention implementation. `sdpa_backend`: on a GPU, the one kernel family
    that PyTorch's attention may use; some take no mask, and then refuse. `length_bucket`: cut padding off, to a
    multiple of so many tokens; None computes on padding too.
    """

    attention: Literal["sdpa", "eager"] = "sdpa"
    sdpa_backend: Literal["auto", "flash", "efficient", "math", "cudnn"] = loading("auto", device="cuda")
    length_bucket: Annotated[int, Gt(0)] | None = None


class PyTorchEager(TorchMethod):
    """Eager FP32 with scaled-dot-product attention, as transformers loads it."""

    id: ClassVar[str] = "pytorch-fp32"
    about: ClassVar[str] = "PyTorch eager, FP32, SDPA attention"
    devices: ClassVar[tuple[Device, ...]] = ("cpu", "cuda")
    any_shape: ClassVar[bool] = True
    dtype: ClassVar[str] = "float32"
    Options: ClassVar[type] = EagerOptions

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """Load the checkpoint itself; nothing is prepared."""
        import torch

        del folder
        options = EagerOptions(**workload.options)
        use_threads(workload)
        if workload.device == "cuda":
            use_attention_backend(options.sdpa_backend)
        module = load_module(model, options.attention).to(workload.device, getattr(torch, self.dtype))
        return trimmed(self.proven(module, model, workload), options.length_bucket)

    def proven(self, module: Any, model: ModelInfo, workload: Workload) -> EagerCallable:
        """The module as a callable that proves what it ran."""
        return EagerCallable(module, model, workload, expected_dtype=self.dtype)


class PyTorchBf16(PyTorchEager):
    """Eager with weights and activations in BF16; oneDNN multiplies them on AMX or AVX-512 where the CPU has it."""

    id: ClassVar[str] = "pytorch-bf16"
    about: ClassVar[str] = "PyTorch eager, BF16, SDPA attention"
    precision: ClassVar[str] = "bf16"
    exact: ClassVar[bool] = False
    dtype: ClassVar[str] = "bfloat16"

    def check_supported(self, machine: Machine, device: Device) -> None:
        """Without BF16 instructions, or matrix units for it, the products are emulated, slower than FP32."""
        super().check_supported(machine, device)
        if device == "cpu":
            needs_bf16(self.id, machine)
        else:
            needs_capability(self.id, machine, "bf16")
