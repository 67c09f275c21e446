"""How long `farm query` takes on many results: 10 million samples in 10,000 rows and 3,000 files by itself.

Results are made up and written as a run writes them. Each query is asked by a fresh process, as a command would be, and
timed inside it once it has imported what it needs: the first time with an empty cache, where every part's footer must
be read, then again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from provenance import print_figures, where_and_when

TESTS = Path(__file__).resolve().parents[1]

QUERIES = {
    "runs": "SELECT * FROM runs",
    "speedups": "SELECT * EXCLUDE log_ratios FROM speedups",
    "costs and status of cells": "SELECT name, status, max(prepare_s), max(artifact_bytes) FROM cells GROUP BY ALL",
    "cells, percentiles and all": "SELECT * FROM cells",
    "replicas, medians and all": "SELECT * FROM replicas",
    "p99 over all samples": "SELECT name, quantile_cont(latency_ns, 0.99) FROM samples GROUP BY ALL",
}

ASK = """
import sys, time
from farm.query import query
from farm.store import Store
started = time.perf_counter()
answer = query(Store(sys.argv[1], read_only=True), sys.argv[2])
print(time.perf_counter() - started, answer.num_rows)
"""


def make_results(folder: Path, parts: int, rows: int, samples: int) -> None:
    """Parts of `rows` / `parts` rows each, in runs of 100 parts, with as many samples in every row."""
    sys.path.insert(0, str(TESTS))
    from measured import measured_row, run_record

    from farm.speedups import rebuild
    from farm.store import Store
    from farm.summaries import write_summaries

    generator = np.random.default_rng(0)
    store = Store(folder)
    per_row = max(1, samples // rows)
    rounds = np.arange(per_row) * 50 // per_row
    text = json.dumps({"library": "x" * 2_000})
    for part in range(parts):
        run = f"20260101T{part // 100:06d}Z-0000"
        if part % 100 == 0:
            store.write_run(run_record(run=run, created_unix_ns=1_767_268_800_000_000_000 + part))
        cohort, replica = f"c{part % 100 // 4}", part % 4
        count = (part + 1) * rows // parts - part * rows // parts
        made = [
            measured_row(
                *(cohort, replica, f"method-{place}" if place else "pytorch", 60.0),
                run=run,
                latency_ns=(6e7 * np.exp(generator.normal(0, 0.05, per_row))).astype(int).tolist(),
                round=rounds.tolist(),
                tainted=[False] * per_row,
                round_started_unix_ns=list(range(50)),
                round_state=["usual"] * 50,
                environment=text,
                proof=text,
            )
            for place in range(count)
        ]
        store.publish_replica(run, cohort, replica, made)
    for run in store.measured_runs():
        rebuild(store, run)  # as every run does when it ends
        write_summaries(store, run)


def ask(folder: Path, sql: str, cache: Path) -> tuple[float, int]:
    """Seconds and rows of one query in a process of its own."""
    environment = os.environ | {"FARM_CACHE": str(cache), "PYTHONPATH": str(TESTS.parent)}
    ran = subprocess.run(
        [sys.executable, "-c", ASK, str(folder), sql], check=True, capture_output=True, text=True, env=environment
    )
    seconds, rows = ran.stdout.split()
    return float(seconds), int(rows)


def main(
    parts: Annotated[int, typer.Option(help="Files.")] = 3_000,
    rows: Annotated[int, typer.Option(help="Rows in all of them.")] = 10_000,
    samples: Annotated[int, typer.Option(help="Samples in all rows.")] = 10_000_000,
    keep: Annotated[Path | None, typer.Option(help="Make the results there, and use them if they are.")] = None,
) -> None:
    """Print the seconds that each query takes, the first time and the second."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = keep or Path(scratch) / "results"
        if not (folder / "measurements").is_dir():
            make_results(folder, parts, rows, samples)
        figures = []
        for name, sql in QUERIES.items():
            cache = Path(scratch) / "cache"
            shutil.rmtree(cache, ignore_errors=True)
            first, found = ask(folder, sql, cache)
            again, _ = ask(folder, sql, cache)
            figures.append([name, f"{first:.2f}", f"{again:.2f}", str(found)])
        print_figures(
            f"{parts:,} files, {rows:,} rows, {samples:,} samples", ["query", "first, s", "again, s", "rows"], figures
        )
        print(where_and_when())


if __name__ == "__main__":
    typer.run(main)
