"""What a GPU can multiply in, and PyTorch's settings for it, which a cell makes once, before its first call."""

from __future__ import annotations

from functools import cache
from typing import Any

from farm.errors import MethodUnsupportedError
from farm.records import Machine
from tasks.cuda_versions import needs_driver, torch_cuda
from tasks.method import library_versions

CAPABILITIES = {"fp16": (7, 0), "int8": (7, 5), "tf32": (8, 0), "bf16": (8, 0), "fp8": (8, 9)}
"""The compute capability from which on matrix units multiply in a precision (CUDA C++ Programming Guide, tensor cores):
Volta, Turing, Ampere, Ada."""

PROBE = 512
"""Side of the product that tells TF32: large enough for the libraries to take the matrix units."""


def needs_cuda_build(method: str, machine: Machine) -> None:
    """Raise MethodUnsupportedError where PyTorch is built for no CUDA, or for a newer one than the driver serves."""
    installed = library_versions("torch").get("torch", "")
    built_for = torch_cuda()
    if built_for is None:
        raise MethodUnsupportedError(f"{method} needs a PyTorch built for CUDA; torch {installed} is a CPU build")
    needs_driver(method, machine, f"torch {installed}", built_for)


def needs_capability(method: str, machine: Machine, precision: str) -> None:
    """Raise MethodUnsupportedError where the GPU has no matrix units for the precision. Unknown chips may try."""
    least = CAPABILITIES[precision]
    for gpu in machine.gpu_devices[:1]:
        if gpu.capability is not None and gpu.capability < least:
            has, needs = (".".join(map(str, version)) for version in (gpu.capability, least))
            raise MethodUnsupportedError(
                f"{method} needs a GPU that multiplies matrices in {precision} (compute capability {needs}); the "
                f"{gpu.name} has {has}"
            )


def use_attention_backend(name: str) -> None:
    """Leave PyTorch's attention this kernel family alone; `auto` leaves it all."""
    import torch

    switches = {
        "flash": torch.backends.cuda.enable_flash_sdp,
        "efficient": torch.backends.cuda.enable_mem_efficient_sdp,
        "math": torch.backends.cuda.enable_math_sdp,
        "cudnn": torch.backends.cuda.enable_cudnn_sdp,
    }
    for family, switch in switches.items():
        switch(name in ("auto", family))
    # Unasked, the plain operators widen FP16 and BF16 to FP32: that would compare two things at once.
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(name == "math")


def attention_backends() -> dict[str, Any]:
    """Which kernel families PyTorch's attention may use, for a proof."""
    import torch

    backends = torch.backends.cuda
    return {
        "sdpa_may_use": {
            "flash": backends.flash_sdp_enabled(),
            "efficient": backends.mem_efficient_sdp_enabled(),
            "math": backends.math_sdp_enabled(),
            "cudnn": backends.cudnn_sdp_enabled(),
        }
    }


def use_tf32() -> None:
    """Let FP32 products run on the matrix units, their operands rounded to ten bits."""
    import torch

    torch.backends.cuda.matmul.fp32_precision = "tf32"


def rounds_to_tf32(device: str = "cuda") -> bool:
    """Whether an FP32 product rounds its operands to TF32's ten bits: 1 + 2^-12 is then 1."""
    import torch

    with torch.inference_mode():
        almost_one = torch.full((PROBE, PROBE), 1 + 2**-12, device=device)
        product = almost_one @ torch.eye(PROBE, device=device)
        return bool((product == 1).all())


@cache
def gpu_names() -> tuple[str, ...]:
    """Names of this node's GPUs, for keys of what was compiled for them; asked from the driver, without a runtime."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
        return tuple(sorted({str(pynvml.nvmlDeviceGetName(handle)) for handle in handles}))
    finally:
        pynvml.nvmlShutdown()
