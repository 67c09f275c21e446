"""What the sentinel reads in every round: how each rate is called, which column a row has it in, and its unit. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """One rate: what it is of, the column of its readings (a number for each round), and their unit."""

    what: str
    column: str
    unit: str


RATES: Mapping[str, Rate] = {
    **{
        precision: Rate(f"{precision} products", f"round_{precision}_gflops", "GFLOP/s")
        for precision in ("fp32", "bf16", "tf32", "fp16", "fp8")
    },
    "int8": Rate("int8 products", "round_int8_gops", "GOP/s"),
    "memory": Rate("memory read", "round_memory_gbs", "GB/s"),
}
"""By the name that the sentinel gives them. Units are 10^9 a second, which is as many a nanosecond; on a GPU memory is
read and written."""
