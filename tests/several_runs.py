"""Simulated results of several runs, for what is said across runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measured import SPEEDUPS, run_record, simulated_cohort

from farm.speedups import rebuild
from farm.store import Store

DAY_NS = 86_400_000_000_000


def run_name(number: int) -> str:
    """Names that sort by time."""
    return f"202601{number + 1:02d}T120000Z-{number:04x}"


def publish_run(
    store: Store,
    number: int,
    *,
    lengths: Sequence[int] = (64, 128),
    replicas: int = 2,
    speedups: Mapping[str, float] = SPEEDUPS,
    slower: float = 1.0,
    record: Mapping[str, Any] | None = None,
    **changes: Any,
) -> str:
    """Publish one run, its machine `slower` by that factor; `changes` are of all rows, `record` of the run's record."""
    run = run_name(number)
    store.write_run(run_record(run=run, created_unix_ns=1_767_268_800_000_000_000 + number * DAY_NS, **(record or {})))
    for length in lengths:
        for replica in range(replicas):
            rows = simulated_cohort(length, replica, seed=number, speedups=speedups)
            moved = [
                row | {"run": run, "latency_ns": [round(slower * each) for each in row["latency_ns"]]} | changes
                for row in rows
            ]
            store.publish_replica(run, f"cpu-b1-l{length}", replica, moved)
    rebuild(store, run)
    return run


def store_of(folder: Path, *runs: Mapping[str, Any]) -> Store:
    """A store with one run for each mapping of `publish_run`'s arguments."""
    store = Store(folder)
    for number, changes in enumerate(runs):
        publish_run(store, number, **changes)
    return Store(folder, read_only=True)
