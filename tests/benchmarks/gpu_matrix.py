"""Everything that needs a GPU, in one go: the tests that do, the self-check, and the whole matrix with its table.

    python tests/benchmarks/gpu_matrix.py [--results FOLDER] [--only tests,selfcheck,matrix] [--suite gpu-full]

Prints what each part printed, then one summary; exit code 0 where every part did what it should, 2 without a GPU. The
first run builds the demo model unless it is in the cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

FARM = "from farm.cli import main; main()"

MATRIX_QUERY = (
    "SELECT name, count(*) AS cells, count(speedup) AS measured, min(status) AS worst, exp(avg(ln(speedup))) AS "
    "speedup, max(accuracy_drop_points) AS drop_points, median(device_p50_ns / latency_p50_ns) AS on_device, "
    "median(limit_fraction) AS of_limit FROM speedups WHERE role <> 'twin' GROUP BY name "
    "ORDER BY speedup DESC NULLS LAST"
)
"""One line for each method: its geometric mean, how much of a call the GPU saw, and the share of the limit."""


@dataclass(frozen=True)
class Part:
    """One thing that is run; `failed_codes` are exit codes that mean that it did not do what it should."""

    name: str
    command: Sequence[str]
    failed_codes: frozenset[int] | None = None


@dataclass(frozen=True)
class Ran:
    """How it ended."""

    part: Part
    code: int
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether it did not do what it should: any other exit code than 0, or one of those named."""
        return self.code != 0 if self.part.failed_codes is None else self.code in self.part.failed_codes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts that are asked for; the exit code."""
    asked = _parse(arguments)
    from gpu_cells import why_no_gpu

    missing = why_no_gpu()
    if missing:
        print(f"gpu_matrix: {missing}. It takes an NVIDIA GPU with its driver and a PyTorch built for CUDA")
        return 2
    ran = [_run(part) for part in parts(asked) if part.name in asked.only.split(",")]
    summary = summarize(asked.results, asked.suite) if any(each.part.name == "matrix" for each in ran) else []
    took = f"total {sum(each.seconds for each in ran):.0f} s"
    print("\n" + "\n".join([*summary, *map(_line, ran), took]))
    return int(any(each.failed for each in ran))


def parts(asked: argparse.Namespace) -> list[Part]:
    """What can be asked for, in the order in which it is run: what is wrong shows first where it is cheapest."""
    tests = sorted(str(path) for path in (ROOT / "tests").glob("test_gpu_*.py"))
    matrix = ["run", asked.suite, "--results", str(asked.results), "--fresh"]
    return [
        Part("tests", [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *tests]),
        Part("selfcheck", [sys.executable, "-c", FARM, "selfcheck", "--quiet"]),
        # 1: some cells failed or are invalid, which the summary names; the others were measured all the same.
        Part("matrix", [sys.executable, "-c", FARM, *matrix], frozenset({2, 130})),
    ]


def summarize(results: Path, suite: str) -> list[str]:
    """One line for each method of the newest run."""
    from farm.results import Results

    rows = json.loads(Results(results).sql(MATRIX_QUERY).to_json(orient="records"))
    return [f"{suite}, geometric means over the lengths:", *(method_line(row) for row in rows)]


def method_line(row: Mapping[str, float | str | None]) -> str:
    """What the matrix found of one method."""
    if row["speedup"] is None:
        return f"  {row['name']}: {row['worst']}"
    told = {
        "points lost": row["drop_points"],
        "of the call on the GPU": row["on_device"],
        "of the limit": row["of_limit"],
    }
    known = [f"{float(value):.2f} {what}" for what, value in told.items() if value is not None]
    speedup = f"{float(row['speedup']):.2f}x"
    return f"  {row['name']}: {', '.join([speedup, *known])}"


def _run(part: Part) -> Ran:
    print(f"\n== {part.name}", flush=True)
    started = time.monotonic()
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    code = subprocess.run(part.command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, check=False).returncode
    return Ran(part, code, time.monotonic() - started)


def _line(ran: Ran) -> str:
    return f"{ran.part.name}: {'FAILED' if ran.failed else 'done'}, exit code {ran.code}, {ran.seconds:.0f} s"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--results", type=Path, default=Path("gpu-results"), help="where the matrix is kept")
    parser.add_argument("--suite", default="gpu-full", help="the suite to measure: gpu-full, gpu, or a file")
    parser.add_argument("--only", default="tests,selfcheck,matrix", help="parts to run, comma-separated")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
