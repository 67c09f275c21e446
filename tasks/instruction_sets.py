"""Instruction sets of this machine's CPU, for choices that are made where a method prepares and runs."""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path

from farm.errors import MethodUnsupportedError
from farm.records import Machine

BF16_SETS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Any of them multiplies BF16 matrices: Intel's and AMD's AVX-512 extension, Intel's AMX, Arm's BF16."""

BF16_X86 = BF16_SETS - {"bf16"}
"""Those of x86 CPUs, for a library that knows no others."""

DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""CPU flags of instructions that sum products of bytes in 32 bits at once."""


@cache
def cpuinfo(key: str) -> str:
    """What /proc/cpuinfo says under this name of the first CPU that has it; empty where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    match = re.search(rf"^{key}\s*:\s*(.+)$", text, re.MULTILINE | re.IGNORECASE)
    return match.group(1).strip() if match else ""


def cpu_flags() -> frozenset[str]:
    """CPU flags as /proc/cpuinfo spells them; empty where the system does not tell."""
    return frozenset((cpuinfo("flags") or cpuinfo("features")).split())


def is_x86() -> bool:
    """Whether this machine's processor is one of Intel's and AMD's family."""
    return platform.machine().lower() in ("x86_64", "amd64", "i686", "x86")


def byte_sums_may_overflow() -> bool:
    """Whether kernels for unsigned × signed bytes may sum pairs in 16 bits, where 2 × 255 × 127 does not fit.

    So do x86 CPUs without dot-product instructions (vpmaddubsw saturates). Where flags cannot be read, an x86 CPU is
    taken for one of these: seven bits cost some precision, overflow costs the answer.
    """
    return is_x86() and not cpu_flags() & set(DOT_PRODUCTS)


def needs_bf16(method_id: str, machine: Machine) -> None:
    """Raise MethodUnsupportedError where BF16 could only be emulated, which is slower than FP32."""
    if not BF16_SETS & set(machine.instruction_sets):
        raise MethodUnsupportedError(
            f"{method_id} needs BF16 instructions ({', '.join(sorted(BF16_SETS))}); this CPU has none of them"
        )


def needs_bf16_x86(method_id: str, machine: Machine, library: str) -> None:
    """Raise MethodUnsupportedError where `library`, which computes in BF16 on x86 CPUs alone, would run FP32."""
    needs_bf16(method_id, machine)
    if not BF16_X86 & set(machine.instruction_sets):
        raise MethodUnsupportedError(
            f"{method_id} needs BF16 instructions of an x86 CPU ({', '.join(sorted(BF16_X86))}): on others {library} "
            "runs FP32 instead"
        )


def compiler_targets() -> list[str]:
    """The instruction sets of this CPU that decide what code a compiler writes for it, sorted."""
    wide = ("avx2", "avx512", "avx_vnni", "avx10", "amx", "fma", "asimd", "sve", "i8mm", "bf16")
    return sorted(flag for flag in cpu_flags() if flag.startswith(wide))
