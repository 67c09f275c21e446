"""What this CPU's instruction sets mean for methods."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from farm.errors import MethodUnsupportedError
from farm.records import Machine

BF16_SETS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Any of them multiplies BF16 matrices: Intel's and AMD's AVX-512 extension, Intel's AMX, Arm's BF16."""


def needs_bf16(method_id: str, machine: Machine) -> None:
    """Raise MethodUnsupportedError where BF16 could only be emulated, which is slower than FP32."""
    if not BF16_SETS & set(machine.instruction_sets):
        raise MethodUnsupportedError(
            f"{method_id} needs BF16 instructions ({', '.join(sorted(BF16_SETS))}); this CPU has none of them"
        )


def computes_bf16() -> bool:
    """Whether the CPU of this process multiplies BF16 matrices."""
    return bool(BF16_SETS & _flags())


def compiler_targets() -> list[str]:
    """The instruction sets of this CPU that decide what code a compiler writes for it, sorted."""
    wide = ("avx2", "avx512", "avx_vnni", "avx10", "amx", "fma", "asimd", "sve", "i8mm", "bf16")
    return sorted(flag for flag in _flags() if flag.startswith(wide))


@cache
def _flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "").split())
