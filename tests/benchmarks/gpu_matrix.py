"""Everything that needs a GPU, in one go: the tests that do, the whole matrix with its table, and the self-check.

    python tests/benchmarks/gpu_matrix.py [--results FOLDER] [--only tests,matrix,selfcheck] [--suite gpu-full]

Prints what each part printed, then one summary with the founding rows and the targets; exit code 0 where every part did
what it should and every founding row is there, 2 without a GPU. Matrix and self-check together get `--minutes`, and are
interrupted when they are over: what the matrix has not published by then is not in the summary. The first run builds
the demo model and every artifact unless they are in the cache, and may need more minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

Row = Mapping[str, Any]

FARM = "from farm.cli import main; main()"

MATRIX_QUERY = (
    "SELECT name, count(*) AS cells, count(speedup) AS measured, max_by(status, status <> 'ok') AS worst, "
    "exp(avg(ln(speedup))) AS speedup, max(accuracy_drop_points) AS drop_points, "
    "median(device_p50_ns / latency_p50_ns) AS on_device, median(limit_fraction) AS of_limit "
    "FROM speedups WHERE role <> 'twin' AND run = '{}' GROUP BY name "
    "ORDER BY speedup DESC NULLS LAST"
)
"""One line for each method of a run: its geometric mean, how much of a call the GPU saw, and the share of the limit."""


FOUNDING = ("torchscript-fp32", "onnxruntime-fp16")
"""The founding experiment's rows beside its baseline, both of which it found faster."""

LEAST_SPEEDUP = 8.0
MOST_DROP_POINTS = 0.2
"""What the best method is to reach over FP32 in eager PyTorch, and may lose of its accuracy."""

TOO_LATE = 124
"""The exit code that stands for a part that was interrupted as its time was over (that of coreutils' timeout)."""

STOP_S = 60
"""How long an interrupted part may take to keep what it has."""


@dataclass(frozen=True)
class Part:
    """One thing that is run; `failed_codes` are exit codes that mean that it did not do what it should.

    `timed`: it takes its share of the minutes.
    """

    name: str
    command: Sequence[str]
    failed_codes: frozenset[int] | None = None
    timed: bool = True


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
    ran: list[Ran] = []
    for part in parts(asked):
        if part.name in asked.only.split(","):
            left_s = 60 * asked.minutes - sum(each.seconds for each in ran if each.part.timed)
            ran.append(_run(part, left_s if part.timed else None))
    rows = matrix_rows(asked.results) if any(each.part.name == "matrix" for each in ran) else []
    summary = [*summarize(rows, asked.suite), *target_lines(rows)] if rows else []
    took = f"total {sum(each.seconds for each in ran):.0f} s"
    print("\n" + "\n".join([*summary, *map(_line, ran), took]))
    missing = missing_founders(rows) if any(each.part.name == "matrix" for each in ran) else []
    return int(bool(missing) or any(each.failed for each in ran))


def parts(asked: argparse.Namespace) -> list[Part]:
    """What can be asked for, in the order in which it is run: what there are no figures without comes first."""
    tests = sorted(str(path) for path in (ROOT / "tests").glob("test_gpu_*.py"))
    matrix = ["run", asked.suite, "--results", str(asked.results), "--fresh"]
    return [
        Part("tests", [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *tests], timed=False),
        # 1: some cells failed or are invalid, which the summary names; the others were measured all the same.
        Part("matrix", [sys.executable, "-c", FARM, *matrix], frozenset({2, 130, TOO_LATE})),
        Part("selfcheck", [sys.executable, "-c", FARM, "selfcheck", "--device", "cuda", "--quiet"]),
    ]


def matrix_rows(results: Path) -> list[Row]:
    """One row for each method of the newest run, the fastest first; none where no run was begun."""
    from farm.errors import RequestError
    from farm.results import Results

    try:
        found = Results(results)
    except RequestError:
        return []
    rows: list[Row] = json.loads(found.sql(MATRIX_QUERY.format(found.run)).to_json(orient="records"))
    return rows


def summarize(rows: Sequence[Row], suite: str) -> list[str]:
    """One line for each method."""
    return [f"{suite}, geometric means over the lengths:", *(method_line(row) for row in rows)]


def missing_founders(rows: Sequence[Row]) -> list[str]:
    """The founding rows that are not ok at every length."""
    fine = {row["name"] for row in rows if row["worst"] == "ok" and row["speedup"] is not None}
    return [name for name in FOUNDING if name not in fine]


def target_lines(rows: Sequence[Row]) -> list[str]:
    """Whether the founding rows came out as they were founded, and the best method reached its targets."""
    missing, speedups = missing_founders(rows), {row["name"]: row["speedup"] for row in rows}
    lines = []
    for name in FOUNDING:
        sign = "faster" if name not in missing and (speedups[name] or 0) > 1 else "NOT faster"
        lines.append(f"founding row {name}: {'NOT ok' if name in missing else f'{sign} than the baseline'}")
    accurate = [row for row in rows if row["speedup"] and (row["drop_points"] or 0) <= MOST_DROP_POINTS]
    best = max(accurate, key=lambda row: row["speedup"], default=None)
    found = f"{best['name']} {best['speedup']:.2f}x" if best else "none"
    met = "met" if best and best["speedup"] >= LEAST_SPEEDUP else "NOT met"
    lines.append(f"target {LEAST_SPEEDUP:g}x at a drop of {MOST_DROP_POINTS} points at most: {met} ({found})")
    return lines


def method_line(row: Row) -> str:
    """What the matrix found of one method."""
    if row["speedup"] is None:
        return f"  {row['name']}: {row['worst']}"
    told = {
        "points lost": row["drop_points"],
        "of the call on the GPU": row["on_device"],
        "of the limit": row["of_limit"],
    }
    known = [f"{value:.2f} {what}" for what, value in told.items() if value is not None]
    speedup = f"{row['speedup']:.2f}x"
    return f"  {row['name']}: {', '.join([speedup, *known])}"


def _run(part: Part, limit_s: float | None) -> Ran:
    print(f"\n== {part.name}", flush=True)
    started = time.monotonic()
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(part.command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path})
    try:
        code = process.wait(None if limit_s is None else max(limit_s, 0))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        process.kill()
        process.wait()
        code = TOO_LATE
    return Ran(part, code, time.monotonic() - started)


def _line(ran: Ran) -> str:
    if ran.code == TOO_LATE:
        return f"{ran.part.name}: FAILED, interrupted after {ran.seconds:.0f} s: the minutes were over"
    return f"{ran.part.name}: {'FAILED' if ran.failed else 'done'}, exit code {ran.code}, {ran.seconds:.0f} s"


def _folder(text: str) -> Path:
    """Of this process; those it starts work elsewhere."""
    return Path(text).resolve()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--results", type=_folder, default="gpu-results", help="where the matrix is kept")
    parser.add_argument("--suite", default="gpu-full", help="the suite to measure: gpu-full, gpu, or a file")
    parser.add_argument("--only", default="tests,matrix,selfcheck", help="parts to run, comma-separated")
    parser.add_argument("--minutes", type=float, default=8.0, help="for matrix and self-check together")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
