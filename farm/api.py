"""The farm from Python: run a suite, get its results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farm.driver import run_suite
from farm.events import Listener
from farm.folders import Place
from farm.results import Results
from farm.suite import Suite, load_suite, parse_suite


def run(
    suite: Suite | Mapping[str, Any] | str | Path | None = None,
    *,
    results: str | Place = "results",
    address: str | None = None,
    fresh: bool = False,
    listener: Listener | None = None,
) -> Results:
    """Measure a suite (a Suite, plain data, a YAML file, a built-in name, or None: the founding one); its results.

    Continues the newest unfinished run of the same request unless `fresh`. `address` is a running Ray cluster;
    without it a private one is started on this machine. Raises RequestError where the request is wrong.
    """
    if isinstance(suite, Suite):
        wanted = suite
    elif isinstance(suite, Mapping):
        wanted = parse_suite(suite)
    else:
        wanted = load_suite(None if suite is None else str(suite))
    outcome = run_suite(wanted, results, address, fresh=fresh, command="farm.run(...)", listener=listener)
    return Results(outcome.root, outcome.run)
