"""Instruction sets of this machine's CPU, for choices that are made where a method prepares and runs."""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path

DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""CPU flags of instructions that sum products of bytes in 32 bits at once."""


@cache
def cpu_flags() -> frozenset[str]:
    """CPU flags as /proc/cpuinfo spells them; empty where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    return frozenset(match.group(1).split()) if match else frozenset()


def byte_sums_may_overflow() -> bool:
    """Whether kernels for unsigned × signed bytes may sum pairs in 16 bits, where 2 × 255 × 127 does not fit.

    So do x86 CPUs without dot-product instructions (vpmaddubsw saturates). Where flags cannot be read, an x86 CPU is
    taken for one of these: seven bits cost some precision, overflow costs the answer.
    """
    x86 = platform.machine().lower() in ("x86_64", "amd64", "i686", "x86")
    return x86 and not cpu_flags() & set(DOT_PRODUCTS)
