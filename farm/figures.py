"""What one method's rows say of its costs and its limit, over the lengths of a block: the least and the most."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from farm.ratios import Row, has_speedup, is_candidate

Span = tuple[float, float]

FIGURES = (
    *("artifact_bytes", "prepare_s", "load_s", "first_call_ns", "warmup_calls", "peak_rss_bytes", "cpu_ns_per_call"),
    *("energy_j_per_call", "break_even_calls", "limit_fraction", "agreement"),
    *("device_p50_ns", "vram_bytes", "allocated_vram_bytes", "gpu_energy_j_per_call", "gpu_power_w"),
)
"""The columns of SPEEDUP_SCHEMA that are summed up so."""


def figures_of(rows: Sequence[Row]) -> dict[str, Span]:
    """The span of each figure that any of the rows has. A break-even that is never reached is infinite; where nothing
    is shown of which is faster, none is known."""
    found = {name: [row[name] for row in rows if row.get(name) is not None] for name in FIGURES}
    judged = [
        row
        for row in rows
        if is_candidate(row) and has_speedup(row) and "break_even_calls" in row and row["verdict"] != "unclear"
    ]
    found["break_even_calls"] += [math.inf for row in judged if row["break_even_calls"] is None]
    return {name: (min(values), max(values)) for name, values in found.items() if values}


def steps_of(row: Row) -> Mapping[str, float]:
    """Seconds of preparing by step; empty where they are not known."""
    return json.loads(row["prepare_steps"]) if row.get("prepare_steps") else {}
