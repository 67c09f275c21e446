"""What a query asks of a run again and again, so that thousands of parts need not be opened for it.

A part's footer alone takes a millisecond to read, so that 3,000 parts take seconds whatever is asked of them. A run
that ends leaves its summary with its results; of others the first query keeps one in the user's cache. Parts never
change: a summary holds as long as a run's parts are those it was made of. It is a copy and never the truth, and may be
deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from farm import stats
from farm.errors import ResultsError
from farm.folders import Entry
from farm.pairing import LEAST_CLEAN_ROUNDS
from farm.schemas import MEASUREMENT_SCHEMA
from farm.store import Store
from tasks.cache import cache_folder, publish_file

SUMMARY_VERSION = 4
"""Raise it when a summary's columns or their meaning change, so that stored ones are made anew."""

ORIGIN_KEY = b"farm.origin"

KEPT_FROM_PARTS = 50
"""With fewer parts than this in all, opening them takes less than a tenth of a second, and nothing is kept."""

FACTS = tuple(
    field.name for field in MEASUREMENT_SCHEMA if not pa.types.is_list(field.type) or field.name in ("cores", "reasons")
)
"""Columns of a measurement that hold no samples and no rounds."""

PER_CELL = ("run", "hardware_class", "cell", "role")
"""A baseline that was measured in several packs is one cell."""

PER_REPLICA = (*PER_CELL, "cohort", "replica")

_COLUMNS = {
    "facts": FACTS,
    "replica_latencies": (*PER_REPLICA, "round", "tainted", "latency_ns"),
    "cell_latencies": (*PER_CELL, "status", "round", "tainted", "latency_ns"),
}
"""Of a measurement, that a summary is made of."""

WHAT_COUNTS = (
    "the rounds that count: undisturbed ones, or all of a process that has fewer than "
    f"{LEAST_CLEAN_ROUNDS} of those; in cells only of processes that are ok"
)

_CLEAN = "list_transform(tainted, lambda mark: NOT mark)"

ALL_COUNT = f"""(
    NOT coalesce(list_contains(tainted, true), false)
    OR len(list_distinct(list_where("round", {_CLEAN}))) < {LEAST_CLEAN_ROUNDS})"""
"""Whether all rounds of a measurement count, in SQL; else the undisturbed do: `pairing.Process.clean_rounds`."""

_COUNTED = f"CASE WHEN {ALL_COUNT} THEN {{0}} ELSE list_where({{0}}, {_CLEAN}) END"

_PERCENTILES = ", ".join(
    f"CASE WHEN count(*) >= {needed} THEN quantile_cont(latency_ns, {percentile / 100}) / 1e6 END "
    f"AS latency_p{percentile}_ms"
    for percentile, needed in stats.PERCENTILE_SAMPLES.items()
)

_SELECTS = {
    "facts": f"SELECT {', '.join(FACTS)} FROM measurements",
    "replica_latencies": f"""
        SELECT {", ".join(PER_REPLICA)}, len(counted) AS samples, len(list_distinct(rounds)) AS rounds,
               list_median(counted) AS latency_p50_ns
        FROM (SELECT {", ".join(PER_REPLICA)}, {_COUNTED.format("latency_ns")} AS counted,
                     {_COUNTED.format('"round"')} AS rounds
              FROM measurements)""",
    "cell_latencies": f"""
        SELECT {", ".join(PER_CELL)}, count(*) AS samples, avg(latency_ns) / 1e6 AS latency_mean_ms,
               min(latency_ns) / 1e6 AS latency_min_ms, max(latency_ns) / 1e6 AS latency_max_ms, {_PERCENTILES}
        FROM (SELECT {", ".join(PER_CELL)}, unnest({_COUNTED.format("latency_ns")}) AS latency_ns
              FROM measurements WHERE status = 'ok') GROUP BY ALL""",
}


@contextmanager
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty one in memory, that prints nothing: after two seconds DuckDB would draw a bar amid our output."""
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET enable_progress_bar = false")
        yield connection


@cache
def empty(kind: str) -> pa.Table:
    """A summary of no parts, for its columns."""
    return summary_of(kind, MEASUREMENT_SCHEMA.empty_table())


def summarize(store: Store, kind: str) -> pa.Table:
    """The summary `facts`, `replica_latencies` or `cell_latencies` of all runs, each from the cache where it holds.

    `facts` reads no column of samples. Raises duckdb.Error or OSError where a part cannot be read.
    """
    listed = {run: store.listed(run) for run in sorted(store.measured_runs())}
    if sum(map(len, listed.values())) < KEPT_FROM_PARTS:
        return summary_of(kind, store.dataset(columns=_COLUMNS[kind]))
    made = [_of_run(store, run, kind, entries) for run, entries in listed.items()]
    return pa.concat_tables([empty(kind), *made])


def summary_of(kind: str, measurements: ds.Dataset | pa.Table) -> pa.Table:
    """The same summary of these measurements, without any cache."""
    with database() as connection:
        connection.register("measurements", measurements)
        return connection.sql(_SELECTS[kind]).to_arrow_table()


def write_summaries(store: Store, run: str) -> None:
    """Leave the summaries of a run with its results. Where that fails, whoever asks makes them."""
    for kind in _SELECTS:
        with suppress(OSError, ResultsError, pa.ArrowException, duckdb.Error):
            table = summary_of(kind, store.dataset([run], _COLUMNS[kind]))
            store.write_summary(run, kind, table.replace_schema_metadata({ORIGIN_KEY: _origin(store.listed(run))}))


def _origin(entries: Sequence[Entry]) -> bytes:
    """What a summary was made of, wherever it lies: parts never change under one name."""
    parts = sorted((entry.place.name, entry.size_bytes) for entry in entries)
    return hashlib.sha256(json.dumps([SUMMARY_VERSION, stats.PERCENTILE_SAMPLES, parts]).encode()).hexdigest().encode()


def _of_run(store: Store, run: str, kind: str, entries: Sequence[Entry]) -> pa.Table:
    stored = store.read_summary(run, kind)
    if stored is not None and (stored.schema.metadata or {}).get(ORIGIN_KEY) == _origin(entries):
        return stored.replace_schema_metadata(None)
    root = str(store.root.absolute())
    place = hashlib.sha256(f"{root} {run}".encode()).hexdigest()[:24]
    parts = [[str(entry.place), entry.size_bytes, entry.version] for entry in entries]
    origin = json.dumps([SUMMARY_VERSION, stats.PERCENTILE_SAMPLES, parts]).encode()
    path = cache_folder() / "summaries" / f"{place}-{kind}.parquet"
    return _cached(
        path,
        hashlib.sha256(origin).hexdigest().encode(),
        lambda: summary_of(kind, store.dataset([run], _COLUMNS[kind])),
    )


def _cached(path: Path, origin: bytes, make: Callable[[], pa.Table]) -> pa.Table:
    try:
        stored = pq.read_table(path, page_checksum_verification=True, partitioning=None)
        if (stored.schema.metadata or {}).get(ORIGIN_KEY) == origin:
            return stored.replace_schema_metadata(None)
    except (OSError, pa.ArrowException):  # none yet, or a damaged one: it is made anew
        pass
    made = make()
    _keep(made.replace_schema_metadata({ORIGIN_KEY: origin}), path)
    return made


def _keep(table: pa.Table, path: Path) -> None:
    """Store it for the next query; where that fails this one has its answer all the same."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(mkdtemp(prefix=".writing-", dir=path.parent))
        try:
            pq.write_table(table, scratch / path.name, compression="zstd", write_page_checksum=True)
            publish_file(scratch / path.name, path)
        finally:
            (scratch / path.name).unlink(missing_ok=True)
            scratch.rmdir()
    except OSError:
        return
