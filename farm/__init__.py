"""The engine of the benchmark farm: schedules isolated, paired measurements and judges them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("inference-farm")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["Results", "Suite", "__version__", "run"]


def __getattr__(name: str) -> Any:
    """Import the public surface lazily: a cell's process imports `farm.actor` and must stay light."""
    if name == "run":
        from farm.api import run

        return run
    if name == "Results":
        from farm.results import Results

        return Results
    if name == "Suite":
        from farm.suite import Suite

        return Suite
    raise AttributeError(f"module 'farm' has no attribute {name!r}")
