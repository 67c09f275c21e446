"""Where and when figures were made: the line under every table of the benchmarks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from tabulate import tabulate

from farm import __version__
from farm.machine import describe_machine

GIB = 1024**3


def print_figures(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a small table whose cells are finished texts; the first column names the rows."""
    print(f"\n{title}")
    print(tabulate(rows, headers=columns, colalign=("left", *["right"] * (len(columns) - 1)), disable_numparse=True))


def where_and_when() -> str:
    """Machine, libraries and date, with the load that others put on the machine: a busy one makes poor figures."""
    machine = describe_machine()
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "ray"))
    memory_gib = machine.memory_bytes / GIB
    load = os.getloadavg()[0]
    return (
        f"{machine.cpu_model}, {machine.logical_cpus} logical CPUs on {machine.physical_cores} cores as the system "
        f"tells, {memory_gib:.0f} GiB; {machine.system}; inference-farm {__version__}, {libraries}; "
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; load of the last minute {load:.1f}"
    )
