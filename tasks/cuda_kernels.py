"""The fixed pieces of work that time a GPU's units: matrix products in each precision, and a copy of its memory.

As on a CPU (`tasks.kernels`), with calls that wait for the device: their sizes are such that launching and waiting is
a hundredth of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tasks import kernels
from tasks.kernels import Call, Case

CUDA_RATES = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8", "memory")
"""What is timed on a GPU, in the order in which it is named. Units as on a CPU; fp8 in GFLOP/s."""

PREFIX = "cuda."
"""Libraries of cases on a GPU begin with it."""

COPY_COLUMNS = 32_768
"""Bytes in a row of a copy's block."""

COPY_BYTES = 2 << 30
"""Bytes that a copy moves, read and written ones together: some 0.5 ms on the fastest chips, and many times what their
caches hold, so that nothing of it is still there when it is read again."""

SHAPES = ((512, 4096, 4096), (4096, 4096, 4096), (8192, 8192, 8192))
"""Rows, inner, columns: from what a chip's units are just filled by, to what they are busy with for milliseconds."""


def prepare_any(case: Case, threads: int) -> Call:
    """Prepare a case of either kind; raises what `tasks.kernels.prepare` raises."""
    if not case.library.startswith(PREFIX):
        return kernels.prepare(case, threads)
    kernel = CUDA_KERNELS.get((case.rate, case.library, case.layout))
    if kernel is None:
        raise ValueError(f"no {case.rate} kernel is called {case.library!r} with layout {case.layout!r}")
    return waiting(kernel(case, "cuda"))


def kernels_of(rate: str) -> tuple[tuple[str, str], ...]:
    """Library and layout of every kernel for that rate."""
    return tuple((library, layout) for of, library, layout in CUDA_KERNELS if of == rate)


def shapes_of(rate: str) -> tuple[tuple[tuple[int, int, int], ...], tuple[tuple[int, int, int], ...]]:
    """Shapes that every kernel is tried at, and those that only the best are."""
    if rate == "memory":
        return ((1, COPY_BYTES // COPY_COLUMNS, COPY_COLUMNS),), ()
    return SHAPES[:2], SHAPES[2:]


def cache_bytes() -> int:
    """What the GPU's second-level cache holds."""
    import torch

    return int(torch.cuda.get_device_properties(0).L2_cache_size)


def begin() -> None:
    """Start what the first use of a GPU starts: libraries, a context, cuBLAS and its kernels. It takes seconds."""
    import torch

    operand = torch.ones(64, 64, device="cuda")
    torch.mm(operand, operand)
    torch.cuda.synchronize()


def give_back() -> None:
    """Return the memory of operands that are gone to the GPU: PyTorch would keep it for itself."""
    import torch

    torch.cuda.empty_cache()


def waiting(call: Call) -> Call:
    """The call, returning when the device is done with it."""
    import torch

    def finished() -> None:
        call()
        torch.cuda.synchronize()

    return finished


def _numbers(*shape: int, dtype: Any, device: str) -> Any:
    """Random numbers of about unit size: zeros switch fewer transistors, and run faster than anything real."""
    import torch

    generator = torch.Generator(device=device).manual_seed(0)
    return torch.randn(shape, generator=generator, device=device, dtype=torch.float32).to(dtype)


def _operands(case: Case, dtype: Any, device: str) -> tuple[Any, Any]:
    """Activations `[rows, inner]` and weights `[inner, columns]`, in memory as the layout says."""
    activations = _numbers(case.rows, case.inner, dtype=dtype, device=device)
    if case.layout == "nn":
        return activations, _numbers(case.inner, case.columns, dtype=dtype, device=device)
    return activations, _numbers(case.columns, case.inner, dtype=dtype, device=device).t()


def _product(dtype: str, fp32_precision: str | None, case: Case, device: str) -> Call:
    """A product of floating-point numbers; FP32 ones with TF32 as asked, which is a setting of the whole process."""
    import torch

    activations, weights = _operands(case, getattr(torch, dtype), device)
    out = torch.empty(case.rows, case.columns, dtype=activations.dtype, device=device)

    def call() -> Any:
        if fp32_precision is not None:
            torch.backends.cuda.matmul.fp32_precision = fp32_precision
        return torch.mm(activations, weights, out=out)

    return call


def _int_product(case: Case, device: str) -> Call:
    import torch

    activations, weights = ((each * 30).to(torch.int8) for each in _operands(case, torch.float32, device))
    return lambda: torch._int_mm(activations, weights)


def _fp8_product(case: Case, device: str) -> Call:
    """Scaled by tensor, as torchao's simplest scheme; sums are rounded to BF16."""
    import torch

    activations, weights = _operands(case, torch.float8_e4m3fn, device)
    one = torch.ones((), device=device)
    return lambda: torch._scaled_mm(activations, weights, one, one, out_dtype=torch.bfloat16, use_fast_accum=True)


def _copy(case: Case, device: str) -> Call:
    """Copy half of the block's bytes: the case counts what is read and what is written."""
    import torch

    source = torch.empty(case.inner * case.columns // 2, dtype=torch.int8, device=device)
    source.random_(-100, 100)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _as_product(dtype: str, fp32_precision: str | None = None) -> Callable[[Case, str], Call]:
    return lambda case, device: _product(dtype, fp32_precision, case, device)


CUDA_KERNELS: Mapping[tuple[str, str, str], Callable[[Case, str], Call]] = {
    **{("fp32", "cuda.mm", layout): _as_product("float32", "ieee") for layout in ("nn", "nt")},
    **{("tf32", "cuda.mm", layout): _as_product("float32", "tf32") for layout in ("nn", "nt")},
    **{("fp16", "cuda.mm", layout): _as_product("float16") for layout in ("nn", "nt")},
    **{("bf16", "cuda.mm", layout): _as_product("bfloat16") for layout in ("nn", "nt")},
    ("int8", "cuda._int_mm", "nt"): _int_product,
    ("fp8", "cuda._scaled_mm", "nt"): _fp8_product,
    ("memory", "cuda.copy", "flat"): _copy,
}
"""How each kernel is prepared, by rate, library and layout."""
