"""Simulated measurements of known truth, for tests of what is made from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from farm.schemas import MEASUREMENT_SCHEMA, SCHEMA_VERSION
from farm.store import RunRecord, Store

RUN = "20260101T120000Z-beef"
BASELINE = "pytorch"
SPEEDUPS = {"pytorch": 1.0, "torchscript": 1.04, "onnxruntime": 1.15, "quantized": 1.9}
METHODS = {
    "pytorch": "pytorch-fp32",
    "torchscript": "torchscript-fp32",
    "onnxruntime": "onnxruntime-fp32",
    "quantized": "pytorch-int8-dynamic",
}
LENGTHS = (64, 128, 256, 512)


def measured_row(cohort: str, replica: int, name: str, latency_ms: float, **changes: Any) -> dict[str, Any]:
    """One valid row of MEASUREMENT_SCHEMA with three rounds of five samples, changed as asked."""
    samples = [round(latency_ms * 1e6 * factor) for factor in (1.0, 1.01, 0.99, 1.02, 1.0)] * 3
    row: dict[str, Any] = {
        "run": RUN,
        "suite": "simulated",
        "cohort": cohort,
        "cell": f"{cohort}-{name}",
        "replica": replica,
        "attempt": 1,
        "role": "baseline" if name == BASELINE else "candidate",
        "name": name,
        "method": METHODS.get(name, name),
        "options": "{}",
        "precision": "int8" if name == "quantized" else "fp32",
        "model": "demo",
        "model_sha256": "ab" * 32,
        "length": 64,
        "batch_size": 1,
        "device": "cpu",
        "threads": 2,
        "inputs": "full",
        "hardware_class": "Simulated CPU, 2 cores, 24 GiB",
        "cores": [0, 1],
        "status": "ok",
        "reasons": [],
        "round": [number for number in range(3) for _ in range(5)],
        "latency_ns": samples,
        "calls_per_sample": 1,
        "round_started_unix_ns": [1, 2, 3],
        "artifact_bytes": 132_000_000 if name == "quantized" else 255_000_000,
        "accuracy": 0.8702 if name == "quantized" else 0.8864,
        "accuracy_n": 678,
        "agreement": 0.985 if name == "quantized" else 1.0,
        "agreement_n": 256,
        "prepare_s": 3.0,
        "load_s": 0.5,
        "first_call_ns": 2 * samples[0],
        "peak_rss_bytes": 900_000_000,
        "proof": json.dumps({"simulated": True}),
        "environment": "{}",
        "schema_version": SCHEMA_VERSION,
    }
    return row | changes


def simulated_cohort(
    length: int, replica: int, rounds: int = 20, seed: int = 0, speedups: Mapping[str, float] = SPEEDUPS
) -> list[dict[str, Any]]:
    """A cohort replica with drift shared by a round, an offset per process of 0.7 % and noise per call of 3 %."""
    generator = np.random.default_rng([seed, length, replica])
    drift = 1 + 0.2 * np.sin(np.arange(rounds) / 3)
    cells = [(name, "baseline" if name == BASELINE else "candidate", speedup) for name, speedup in speedups.items()]
    cells.insert(1, (BASELINE, "twin", 1.0))
    rows = []
    for name, role, speedup in cells:
        base_ms = 60 * (length / 64) ** 0.9 / speedup * np.exp(generator.normal(0, 0.007))
        samples_ms = base_ms * drift[:, None] * np.exp(np.abs(generator.normal(0, 0.03, (rounds, 5))))
        rows.append(
            measured_row(
                f"cpu-b1-l{length}",
                replica,
                name,
                base_ms,
                role=role,
                cell=f"{name}-{role}-l{length}",
                length=length,
                round=np.repeat(np.arange(rounds), 5).tolist(),
                latency_ns=(samples_ms.ravel() * 1e6).astype(int).tolist(),
                accuracy=measured_row("", 0, name, 1.0)["accuracy"] if length == LENGTHS[0] else None,
            )
        )
    return rows


def simulated_run(replicas: int = 1, lengths: Sequence[int] = LENGTHS, **options: Any) -> list[dict[str, Any]]:
    """All rows of a run: a cohort per length, with as many replicas as asked."""
    return [
        row for length in lengths for replica in range(replicas) for row in simulated_cohort(length, replica, **options)
    ]


def as_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as the store would hold them."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema=MEASUREMENT_SCHEMA)


def run_record(**changes: Any) -> RunRecord:
    """The record of the simulated run, changed as asked."""
    record = RunRecord(
        run=RUN,
        created_unix_ns=1_767_268_800_000_000_000,
        request_sha256="cd" * 32,
        suite={"name": "simulated", "methods": list(SPEEDUPS), "effort": "quick", "same_within": 0.03},
        model={"name": "demo", "sha256": "ab" * 32},
        environment={"torch": "2.13.0"},
        farm_version="0.1.0",
        command="farm run simulated.yaml",
    )
    return record.model_copy(update=changes)


def small_store(folder: Path) -> Store:
    """Two lengths, two replicas of each, and a cohort of which one cell failed."""
    store = Store(folder)
    store.write_run(run_record())
    for length in LENGTHS[:2]:
        for replica in range(2):
            store.publish_replica(RUN, f"cpu-b1-l{length}", replica, simulated_cohort(length, replica))
    failed = measured_row("odd", 0, "quantized", 9.0, status="failed", reasons=["crashed"], round=None, latency_ns=None)
    store.publish_replica(RUN, "odd", 0, [measured_row("odd", 0, "pytorch", 9.0), failed])
    return store
