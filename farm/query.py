"""SQL over results with DuckDB: six views of one store, and nothing else of the machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from farm import speedups, stats
from farm.errors import RequestError
from farm.schemas import MEASUREMENT_SCHEMA, SPEEDUP_SCHEMA
from farm.store import RunRecord, Store

_LISTS = ", ".join(
    f'"{field.name}"'
    for field in MEASUREMENT_SCHEMA
    if pa.types.is_list(field.type) and field.name not in ("cores", "reasons")
)
_PER_CALL = (
    *("run", "suite", "hardware_class", "cohort", "cell", "replica", "role", "name", "method", "precision", "model"),
    *("length", "batch_size", "device", "threads", "inputs", "status", "calls_per_sample"),
)
_PER_CELL = (
    *("run", "suite", "hardware_class", "cohort", "cell", "role", "name", "method", "precision", "model"),
    *("model_sha256", "length", "batch_size", "device", "threads", "inputs"),
)

_PERCENTILES = ", ".join(
    f"CASE WHEN count(*) >= {needed} THEN quantile_cont(latency_ns, {percentile / 100}) / 1e6 END "
    f"AS latency_p{percentile}_ms"
    for percentile, needed in stats.PERCENTILE_SAMPLES.items()
)

_REPLICAS = f"""
CREATE VIEW replicas AS
SELECT * EXCLUDE ({_LISTS}), len(latency_ns) AS samples, len(list_distinct("round")) AS rounds,
       list_median(latency_ns) AS latency_p50_ns
FROM measurements
"""

_SAMPLES = f"""
CREATE VIEW samples AS
SELECT {", ".join(_PER_CALL)}, unnest("round") AS "round", unnest(range(len(latency_ns))) AS sample,
       unnest(latency_ns) AS latency_ns, unnest(latency_ns) / 1e6 AS latency_ms, unnest(device_ns) AS device_ns
FROM measurements
"""

_CELLS = f"""
CREATE VIEW cells AS
WITH timed AS (
    SELECT run, hardware_class, cohort, cell, role, count(*) AS samples, avg(latency_ns) / 1e6 AS latency_mean_ms,
           min(latency_ns) / 1e6 AS latency_min_ms, max(latency_ns) / 1e6 AS latency_max_ms,
           {_PERCENTILES}
    FROM samples GROUP BY ALL
), summed AS (
    SELECT {", ".join(_PER_CELL)}, count(*) AS replicas,
           CASE max(CASE status WHEN 'failed' THEN 3 WHEN 'invalid' THEN 2 WHEN 'unsupported' THEN 1 ELSE 0 END)
               WHEN 3 THEN 'failed' WHEN 2 THEN 'invalid' WHEN 1 THEN 'unsupported' ELSE 'ok' END AS status,
           list_distinct(flatten(list(reasons))) AS reasons,
           max(accuracy) AS accuracy, min(agreement) AS agreement, max(artifact_bytes) AS artifact_bytes,
           max(prepare_s) AS prepare_s, median(load_s) AS load_s, median(first_call_ns) / 1e6 AS first_call_ms,
           max(peak_rss_bytes) AS peak_rss_bytes
    FROM measurements GROUP BY ALL
)
SELECT summed.*, coalesce(samples, 0) AS samples, latency_mean_ms, latency_min_ms, latency_max_ms,
       {", ".join(f"latency_p{percentile}_ms" for percentile in stats.PERCENTILE_SAMPLES)}
FROM summed LEFT JOIN timed USING (run, hardware_class, cohort, cell, role)
"""

# Applied once the views stand: from then on no statement reaches a file, the network, an extension or a Python
# variable, and none can lift these settings.
_CONFINEMENT = (
    "SET python_enable_replacements = false",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)

VIEWS = {
    "cells": "one row per cell and run, over its replicas; a percentile is null where too few samples support it",
    "replicas": "one row per process: a cell in one replica, without its samples",
    "samples": "one row per timed call",
    "speedups": "one row per cell and run: speedup over the baseline with its 95 % interval and verdict",
    "runs": "one row per run: what was asked, when, with which versions",
    "measurements": "the rows as stored, samples as parallel lists",
}

_ABOUT = {
    "sample": "number of the call within its process, from 0",
    "latency_ms": "latency of the sample in milliseconds",
    "device_ns": "the device's own time of the sample by CUDA events; null on a CPU",
    "samples": "timed samples",
    "rounds": "rounds",
    "replicas": "replicas behind the row",
    "latency_mean_ms": "mean latency over all samples, milliseconds",
    "latency_min_ms": "shortest latency, milliseconds",
    "latency_max_ms": "longest latency, milliseconds",
    "first_call_ms": "median latency of the first call after loading, milliseconds",
    "latency_p50_ns": "median latency, nanoseconds",
    **{
        f"latency_p{percentile}_ms": f"{percentile}th percentile of latency, milliseconds; null below {needed} samples"
        for percentile, needed in stats.PERCENTILE_SAMPLES.items()
    },
}

_RUNS_SCHEMA = pa.schema(
    [
        pa.field(name, kind, metadata={"description": about})
        for name, kind, about in (
            ("run", pa.string(), "run id: UTC start time and four hex digits"),
            ("created", pa.timestamp("us", "UTC"), "when the run was recorded"),
            ("finished", pa.timestamp("us", "UTC"), "when it was finished; null while it is not"),
            ("suite", pa.string(), "name of the suite"),
            ("model", pa.string(), "name of the model"),
            ("farm_version", pa.string(), "version of the farm"),
            ("command", pa.string(), "the command that made it"),
            ("request_sha256", pa.string(), "hash of suite, model, hardware class and library versions"),
            ("settings", pa.string(), "the resolved suite, JSON"),
            ("environment", pa.string(), "library versions and machine, JSON"),
        )
    ]
)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a view; `kind` is DuckDB's type."""

    view: str
    name: str
    kind: str
    about: str


def query(store: Store, sql: str) -> pa.Table:
    """The result of one SELECT over the views of `VIEWS`.

    Raises RequestError, in a line or two, for anything else than one SELECT, for SQL that DuckDB refuses, and for
    SQL that reaches beyond the views.
    """
    with _open(store) as connection:
        try:
            _require_one_select(connection, sql)
            relation = connection.sql(sql)
            # A SELECT always has a result; None would mean that the check above let something else through.
            return relation.to_arrow_table() if relation is not None else pa.table({})
        except duckdb.Error as error:
            raise RequestError(_explained(error)) from error


def schema() -> list[Column]:
    """Every column of every view, with its type and what it means."""
    about = {field.name: _description(field) for table in (MEASUREMENT_SCHEMA, SPEEDUP_SCHEMA) for field in table}
    about |= {field.name: about.get(field.name) or _description(field) for field in _RUNS_SCHEMA} | _ABOUT
    with duckdb.connect(":memory:") as connection:
        _make_views(connection, MEASUREMENT_SCHEMA.empty_table(), SPEEDUP_SCHEMA.empty_table(), _runs([]))
        return [
            Column(view, name, kind, about.get(name, ""))
            for view in VIEWS
            for name, kind, *_ in connection.execute(f"DESCRIBE {view}").fetchall()
        ]


def _open(store: Store) -> duckdb.DuckDBPyConnection:
    derived = [speedups.current(store, run) for run in store.measured_runs()]
    plain = [SPEEDUP_SCHEMA.empty_table(), *(table.replace_schema_metadata(None) for table in derived)]
    connection = duckdb.connect(":memory:")
    _make_views(
        connection,
        store.read_measurements(),
        pa.concat_tables(plain, promote_options="default"),
        _runs(store.runs()),
    )
    for setting in _CONFINEMENT:
        connection.execute(setting)
    return connection


def _make_views(
    connection: duckdb.DuckDBPyConnection, measurements: pa.Table, speedup_rows: pa.Table, runs: pa.Table
) -> None:
    connection.register("measurements", measurements)
    connection.register("speedups", speedup_rows)
    connection.register("runs", runs)
    for view in (_REPLICAS, _SAMPLES, _CELLS):
        connection.execute(view)


def _runs(records: Sequence[RunRecord]) -> pa.Table:
    rows = [
        {
            "run": record.run,
            "created": record.created_unix_ns // 1000,
            "finished": None if record.finished_unix_ns is None else record.finished_unix_ns // 1000,
            "suite": record.suite.get("name"),
            "model": record.model.get("name"),
            "farm_version": record.farm_version,
            "command": record.command,
            "request_sha256": record.request_sha256,
            "settings": json.dumps(record.suite),
            "environment": json.dumps(record.environment),
        }
        for record in records
    ]
    return pa.Table.from_pylist(rows, schema=_RUNS_SCHEMA)


def _require_one_select(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    statements = connection.extract_statements(sql)
    # PIVOT is written like a SELECT and parsed as several statements in one.
    reading = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN, duckdb.StatementType.MULTI)
    if len(statements) != 1 or statements[0].type not in reading:
        found = ", ".join(statement.type.name for statement in statements) or "nothing"
        raise RequestError(f"a query is one SELECT over {', '.join(VIEWS)}; this is {found}. Results are never changed")


def _explained(error: duckdb.Error) -> str:
    if isinstance(error, duckdb.PermissionException):
        return f"a query reads {', '.join(VIEWS)} and nothing else: no files, network or extensions ({_brief(error)})"
    return f"{_brief(error)}\nViews: {', '.join(VIEWS)}"


def _brief(error: duckdb.Error) -> str:
    """DuckDB's message without its drawing of the query."""
    lines = [line.strip() for line in str(error).split("\n\nLINE ")[0].splitlines()]
    return " ".join(line for line in lines if line)


def _description(field: Any) -> str:
    return (field.metadata or {}).get(b"description", b"").decode()
