"""What the columns of the views mean, and in which units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from farm import stats, summaries
from farm.schemas import MEASUREMENT_SCHEMA, RUN_SCHEMA, SPEEDUP_SCHEMA

_OVER = "over the samples that count"

_OF_VIEWS = {
    "sample": "number of the call within its process, from 0",
    "latency_ms": "latency of the sample in milliseconds",
    "device_ns": "the device's own time of the sample by CUDA events; null on a CPU",
    "tainted": "true if a guard saw a disturbance in the sample's round",
    "counts": f"whether the sample is one of {summaries.WHAT_COUNTS}",
    "samples": f"timed samples: of {summaries.WHAT_COUNTS}; in speedups of all rounds",
    "rounds": f"rounds: {summaries.WHAT_COUNTS}; in speedups those behind the speedup",
    "replicas": "replicas behind the row",
    "latency_mean_ms": f"mean latency, milliseconds; {_OVER}",
    "latency_min_ms": f"shortest latency, milliseconds; {_OVER}",
    "latency_max_ms": f"longest latency, milliseconds; {_OVER}",
    "first_call_ms": "median latency of the first call after loading, milliseconds",
    "latency_p50_ns": f"median latency, nanoseconds; {_OVER}",
    **{
        f"latency_p{percentile}_ms": (
            f"{percentile}th percentile of latency, milliseconds; {_OVER}; null below {needed} samples"
        )
        for percentile, needed in stats.PERCENTILE_SAMPLES.items()
    },
}
"""Columns that the views make of stored ones, or that mean more in them."""

_OF_CELLS = ("cells", "speedups")
"""Views whose rows put processes together; those of the others are of one."""

_UNITS = {
    "unix_ns": "ns since 1970",
    "_j_per_call": "J",
    "_ns_per_call": "ns",
    "_ns": "ns",
    "_ms": "ms",
    "_s": "s",
    "_bytes": "bytes",
    "bytes_read": "bytes",
    "_points": "percentage points",
    "_j": "J",
    "_w": "W",
    "_mhz": "MHz",
    "_c": "degrees Celsius",
    "_gflops": "GFLOP/s",
    "_gops": "10^9 operations/s",
    "_gbs": "10^9 bytes/s",
}
"""By how a column's name ends."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a view; `kind` is DuckDB's type, `unit` empty where it has none."""

    view: str
    name: str
    kind: str
    unit: str
    about: str


def describe(view: str, name: str, kind: str) -> Column:
    """What is known of a column of a view, of DuckDB's type `kind`."""
    schemas = [MEASUREMENT_SCHEMA, SPEEDUP_SCHEMA, RUN_SCHEMA]
    if view in _OF_CELLS:
        schemas = [SPEEDUP_SCHEMA, MEASUREMENT_SCHEMA, RUN_SCHEMA]
    told = [_OF_VIEWS.get(name), *(_description(schema, name) for schema in schemas)]
    return Column(view, name, kind, _unit(name), next(filter(None, told), ""))


def _unit(column: str) -> str:
    return next((unit for ending, unit in _UNITS.items() if column.endswith(ending)), "")


def _description(schema: Any, name: str) -> str:
    if name not in schema.names:
        return ""
    return (schema.field(name).metadata or {}).get(b"description", b"").decode()
