"""Results of many methods under several conditions, written as the farm writes them, for tests of the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measured import RUN, measured_row, run_record

from farm.store import Store

BEGAN_NS = 1_767_268_800_000_000_000
ROUND_NS = 2_000_000_000
"""A round takes two seconds."""

CEILINGS = {rate: {"value": 300.0, "sentinel": 250.0} for rate in ("fp32", "bf16", "int8")}
MEMORY = {"memory": {"value": 20.0, "sentinel": 18.0, "cached_bytes": 0}}


def write_results(
    root: Path,
    speedups: Mapping[str, float],
    *,
    lengths: Sequence[int] = (64, 128),
    threads: Sequence[int] = (2,),
    replicas: int = 1,
    rounds: int = 8,
    calls: int = 5,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """A finished run: the baseline `base`, its twin and these methods, with their true speedups. Returns `root`.

    Every fifth round is disturbed. `changes` are columns of a method's rows that are not as usual.
    """
    store = Store(root)
    store.write_run(run_record(command="farm run simulated.yaml", suite=_suite(speedups)))
    cells = [
        ("base", "baseline", 1.0),
        ("base", "twin", 1.0),
        *((name, "candidate", s) for name, s in speedups.items()),
    ]
    for count in threads:
        for length in lengths:
            for replica in range(replicas):
                generator = np.random.default_rng([count, length, replica])
                rows = [
                    _row(generator, cell, (length, count, replica), rounds, calls) | (changes or {}).get(cell[0], {})
                    for cell in cells
                ]
                store.publish_replica(RUN, rows[0]["cohort"], replica, rows)
    store.finish_run(RUN)
    return root


def _suite(speedups: Mapping[str, float]) -> dict[str, Any]:
    return {"name": "simulated", "methods": ["base", *speedups], "effort": "quick", "same_within": 0.03}


def _row(
    generator: np.random.Generator, cell: tuple[str, str, float], place: tuple[int, int, int], rounds: int, calls: int
) -> dict[str, Any]:
    """A row of a cell (name, role, true speedup) at a place (length, threads, replica)."""
    (name, role, speedup), (length, threads, replica) = cell, place
    base_ms = 60 * (length / 64) ** 0.9 / speedup / threads**0.7 * np.exp(generator.normal(0, 0.005))
    samples = base_ms * np.exp(np.abs(generator.normal(0, 0.04, (rounds, calls))))
    disturbed = [number % 5 == 4 for number in range(rounds)]
    starts = [BEGAN_NS + ROUND_NS * (rounds * replica + number) for number in range(rounds)]
    cohort = f"cpu-t{threads}-b1-l{length}"
    row = measured_row(cohort, replica, name, base_ms, role=role, cell=f"{name}-{role}-{cohort}", length=length)
    return row | {
        "threads": threads,
        "round": np.repeat(np.arange(rounds), calls).tolist(),
        "latency_ns": (samples.ravel() * 1e6).astype(int).tolist(),
        "tainted": np.repeat(disturbed, calls).tolist(),
        "round_started_unix_ns": starts,
        "round_taint_reasons": [["steal"] if each else [] for each in disturbed],
        "round_state": ["usual"] * (rounds - 1) + ["int8 slower"],
        "round_fp32_gflops": (250 * np.exp(generator.normal(0, 0.03, rounds))).tolist(),
        "round_bf16_gflops": (250 * np.exp(generator.normal(0, 0.03, rounds))).tolist(),
        "round_int8_gops": [*(250 * np.exp(generator.normal(0, 0.03, rounds - 1))), 150.0],
        "round_memory_gbs": (18 * np.exp(generator.normal(0, 0.03, rounds))).tolist(),
        "ceilings": json.dumps(CEILINGS | MEMORY),
        "operations": 10**9 * length // 64,
        "operations_by_precision": json.dumps({"fp32": 10**9 * length // 64}),
        "bytes_read": 10**8,
        "accuracy": 0.88 + 0.0005 * (len(name) % 7),
        "artifact_bytes": int(260e6 / speedup**0.5),
        "gate": "pass",
        "max_drop_points": 0.5,
        "baseline_right_only": 3 if role == "candidate" else 0,
        "method_right_only": 2 if role == "candidate" else 0,
        "warmup_calls": 9,
        "round_cpu_ns": [10**8] * rounds,
    }
