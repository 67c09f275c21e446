"""The command line's entry point: checks what would make everything else fail obscurely, then runs the command."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

RAY_NOISE = "A worker died or was killed|died unexpectedly|Lease ID"
"""Ray prints these for every process that dies; the farm reports such cells itself, with their own last words."""


def main() -> None:
    """Run the `farm` command; exits with its code."""
    problem = shadowed_tasks(Path(__file__).parents[2])
    if problem:
        print(f"farm: {problem}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2)
    # Read when Ray is first imported, so before any command is.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", RAY_NOISE)
    from farm.cli.commands import run_app

    raise SystemExit(run_app(sys.argv[1:]))


def shadowed_tasks(home: Path) -> str | None:
    """One sentence if the name `tasks` leads to another package than the one beside `farm` in `home`, else None."""
    spec = find_spec("tasks")
    origin = Path(spec.origin) if spec and spec.origin else None
    if origin is not None and origin.parent.parent.resolve() == home.resolve():
        return None
    return (
        f"another module named 'tasks' ({origin or 'a folder without __init__.py'}) hides the farm's own. Run from "
        "another folder, take it off PYTHONPATH, or install the farm in a virtual environment of its own"
    )
