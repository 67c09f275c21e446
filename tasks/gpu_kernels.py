"""Which kernels a GPU really executed for one call: names, number, busy time and the arithmetic their names tell.

One pass of PyTorch's profiler, after the last timed call: what it hooks into the driver may stay there and slow down
every later launch. NVIDIA's libraries write the types of a product into the kernel's name;
the rules below know the families of names of cuBLAS, cuBLASLt, CUTLASS, cuDNN, Triton and the attention kernels.
A product whose name tells nothing is listed as unknown and held against nobody.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from farm.errors import ProofFailedError

PRODUCT_NAMES = re.compile(
    r"gemm|gemv|nvjet|cutlass.*(?:Kernel|tensorop)|fmha|flash_(?:fwd|attn)|sdpa|attention|xmma|triton_(?:tem|mm)|matmul",
    re.IGNORECASE,
)
"""Kernels that multiply matrices, attention's included."""

NO_PRODUCTS = re.compile(r"triton_(?:poi|red|per|for)_", re.IGNORECASE)
"""Kernels of Inductor's that only name what was fused into them: pointwise ones and reductions multiply no matrices."""

NVJET = r"nvjet_(?:sm\d+_)?"
"""Hopper's and later chips' family in cuBLAS; CUDA 13's names the chip as well."""

SIXTEEN_BITS = "fp16 or bf16"
"""What cuDNN's attention tells: `f16` stands in its name for either."""

PRECISIONS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("fp8", re.compile(rf"e4m3|e5m2|fp8|{NVJET}q", re.IGNORECASE)),
    ("int8", re.compile(r"imma|igemm|i16832|i8i8|i8i32|int8|gemm_s8|gemm_u8", re.IGNORECASE)),
    ("bf16", re.compile(rf"bf16|bfloat16|{NVJET}t[a-z]{{2}}_|s1688bf", re.IGNORECASE)),
    (SIXTEEN_BITS, re.compile(r"cudnn.*sdpa.*_f16", re.IGNORECASE)),
    ("tf32", re.compile(r"tf32|s1688gemm_\d|tensorop_s1688(?!f16|bf16)|tfloat32", re.IGNORECASE)),
    (
        "fp16",
        re.compile(
            rf"f16(?!32)|_half|half_t|::half|h(?:16816|1688|884)|_hgemm|{NVJET}h[a-z]{{2}}_|fp16", re.IGNORECASE
        ),
    ),
    ("fp32", re.compile(r"sgemm|f32f32|gemv.*float|simt_s|cutlassF_f32|fp32", re.IGNORECASE)),
)
"""What a product's name says of its arithmetic, the first that matches: narrow formats name the wide one of their sums
too. `nvjet` names have a letter for the type of each operand: h is FP16, t BF16, q FP8. Their s is left open: FP32
numbers, but on matrix units, whose FP32 may be TF32."""

UNSEEN = "which kernels ran is unknown: PyTorch's profiler (CUPTI) may not see them here"

GRAPH_LAUNCHES = ("cudaGraphLaunch", "cuGraphLaunch")
KERNEL_LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")


@dataclass(frozen=True, slots=True)
class Kernels:
    """What one call executed. `launches` are those of single kernels by the host, `graph_launches` of captured ones."""

    counts: Mapping[str, int]
    busy_ns: int
    launches: int
    graph_launches: int

    @property
    def executed(self) -> int:
        """Kernels, however they were launched."""
        return sum(self.counts.values())

    @property
    def products(self) -> dict[str, int]:
        """Kernels that multiply matrices by the arithmetic that their names tell."""
        found: Counter[str] = Counter()
        for name, count in self.counts.items():
            if is_product(name):
                found[kernel_precision(name) or "unknown"] += count
        return dict(found)

    def evidence(self) -> dict[str, Any]:
        """For a proof; where the profiler saw nothing, that this is unknown."""
        if not self.executed:
            return {"kernels_per_call": None, "remarks": [UNSEEN]}
        return {
            "kernels_per_call": self.executed,
            "kernel_busy_ns": self.busy_ns,
            "kernel_launches": self.launches,
            "graph_launches": self.graph_launches,
            "product_kernels": self.products,
            "kernels": dict(self.counts),
            "remarks": self._remarks(),
        }

    def _remarks(self) -> list[str]:
        """That the names tell too little to prove anything, where most do."""
        products = self.products
        unknown, total = products.get("unknown", 0), sum(products.values())
        if 2 * unknown <= total:
            return []
        return ["the names of most product kernels do not tell their arithmetic"]


def is_product(name: str) -> bool:
    """Whether a kernel of this name multiplies matrices."""
    return PRODUCT_NAMES.search(name) is not None and NO_PRODUCTS.match(name) is None


def kernel_precision(name: str) -> str | None:
    """The arithmetic that a product kernel's name tells; None where it tells none."""
    return next((precision for precision, pattern in PRECISIONS if pattern.search(name)), None)


def executed_kernels(call: Callable[[], Any]) -> Kernels:
    """Run `call` once under PyTorch's profiler, after once without: the profiler's own start must not be in it."""
    import torch

    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    call()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=activities, acc_events=True) as profile:
        call()
        torch.cuda.synchronize()
    # Names that somebody gave to a stretch of the call ("## Call CompiledFxGraph") are repeated on the device.
    events = (event for event in profile.events() if not event.is_user_annotation)
    return kernels_of((event.name, _on_device(event), _duration_ns(event)) for event in events)


def kernels_of(events: Iterable[tuple[str, bool, int]]) -> Kernels:
    """Of a profile's events: name, whether the device ran it, and its nanoseconds. Copies and fills are no kernels."""
    counts: Counter[str] = Counter()
    host: Counter[str] = Counter()
    busy_ns = 0
    for name, on_device, duration_ns in events:
        if not on_device:
            host[name] += 1
        elif not name.startswith(("Memcpy", "Memset")):
            counts[name] += 1
            busy_ns += duration_ns
    launches, graphs = (sum(host[name] for name in names) for names in (KERNEL_LAUNCHES, GRAPH_LAUNCHES))
    return Kernels(dict(counts), busy_ns, launches, graphs)


def check_products(kernels: Kernels, allowed: Iterable[str]) -> None:
    """Raise ProofFailedError where a product's name tells an arithmetic not `allowed`."""
    accepted = {*allowed, "unknown"}
    if accepted & {"fp16", "bf16"}:
        accepted.add(SIXTEEN_BITS)  # which of them, PyTorch's dispatcher tells before timing
    wrong = {precision: count for precision, count in kernels.products.items() if precision not in accepted}
    if wrong:
        told = ", ".join(f"{count} in {precision}" for precision, count in wrong.items())
        names = [name for name in kernels.counts if is_product(name) and kernel_precision(name) in wrong]
        raise ProofFailedError(f"products ran in another arithmetic than promised: {told} ({names[0][:80]})")


def check_captured(kernels: Kernels) -> None:
    """Raise ProofFailedError where a call that promises a captured graph launched its kernels one by one."""
    if kernels.executed and not kernels.graph_launches:
        raise ProofFailedError(f"no CUDA graph was launched: {kernels.launches} kernels were, one by one")


def _on_device(event: Any) -> bool:
    import torch

    return bool(event.device_type == torch.autograd.DeviceType.CUDA)


def _duration_ns(event: Any) -> int:
    return int(event.time_range.elapsed_us() * 1e3)
