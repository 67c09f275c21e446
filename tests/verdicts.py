"""Made-up methods with known speedups, and the verdict on them."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from made_up import speedup_row
from rich.console import Console

from farm.best import Verdict, best_methods
from farm.cli.best_text import to_rich
from farm.limits import Limits
from farm.schemas import SPEEDUP_SCHEMA

NO_LIMITS = Limits()


def method(name: str, speedups: Sequence[float], lengths: Sequence[int] = (64, 256), **changes: Any) -> list[Any]:
    """Rows of a method with these speedups, its replicas a few per mille apart."""
    rows = []
    for length, speedup in zip(lengths, speedups, strict=True):
        ratios = [[math.log(speedup) + offset] * 6 for offset in (-0.003, 0.002, 0.0, -0.001, 0.002)]
        row = speedup_row(name, length, speedup=speedup, latency_p50_ns=1e6 * length / speedup)
        rows.append(row | {"log_ratios": ratios, "baseline_p50_ns": 1e6 * length} | changes)
    return rows


def baseline(**changes: Any) -> list[Any]:
    return [speedup_row("pytorch", length, **changes) for length in (64, 256)]


def verdict_of(*rows: Any, limits: Limits = NO_LIMITS, shares: dict[int, float] | None = None) -> Verdict:
    table = pa.Table.from_pylist([row for each in rows for row in each], schema=SPEEDUP_SCHEMA)
    (found,) = best_methods(table, limits, shares)
    return found


def wild(name: str, speedup: float) -> list[Any]:
    """A method whose replicas are far apart."""
    rows = method(name, (speedup, speedup))
    for row in rows:
        row["log_ratios"] = [
            [each + offset for each in rounds]
            for rounds, offset in zip(row["log_ratios"], (0.4, -0.4, 0.4, -0.4, 0.0), strict=True)
        ]
    return rows


def printed_of(*verdicts: Verdict) -> str:
    console = Console(width=400, file=io.StringIO())
    with console.capture() as captured:
        console.print(to_rich(verdicts, "run"))
    return captured.get()
