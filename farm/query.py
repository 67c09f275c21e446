"""SQL over results with DuckDB: six views of one store, and nothing else of the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from typing import Any

import duckdb
import pyarrow as pa

from farm import speedups, stats, summaries
from farm.errors import RequestError
from farm.runs import runs_table
from farm.schemas import MEASUREMENT_SCHEMA, RUN_SCHEMA, SPEEDUP_SCHEMA
from farm.statements import is_show_tables, kind_of_select, named_views
from farm.store import Damaged, Store
from farm.summaries import summary_of
from farm.view_columns import Column, describe

_PER_CALL = (
    *("run", "suite", "hardware_class", "cohort", "cell", "replica", "role", "name", "method", "precision", "model"),
    *("length", "batch_size", "device", "threads", "inputs", "status", "calls_per_sample"),
)
_PARALLEL = ("round", "latency_ns", "device_ns", "tainted")
"""Lists of a measurement with one element for each timed call."""
_OF_CALLS = (*_PER_CALL, *_PARALLEL)

_PER_CELL = (
    *("run", "suite", "hardware_class", "cell", "role", "name", "method", "precision", "model"),
    *("model_sha256", "length", "batch_size", "device", "threads", "inputs"),
)

_REPLICAS = f"""
CREATE VIEW replicas AS
SELECT facts.*, samples, rounds, latency_p50_ns
FROM facts LEFT JOIN replica_latencies USING ({", ".join(summaries.PER_REPLICA)})
"""

_SAMPLES = f"""
CREATE VIEW samples AS
SELECT * EXCLUDE all_count, all_count OR NOT coalesce(tainted, false) AS counts, latency_ns / 1e6 AS latency_ms
FROM (SELECT {", ".join(_PER_CALL)}, unnest(range(len(latency_ns))) AS sample,
             {", ".join(f'unnest("{name}") AS "{name}"' for name in _PARALLEL)}, {summaries.ALL_COUNT} AS all_count
      FROM calls)
"""

_CELLS = f"""
CREATE VIEW cells AS
WITH summed AS (
    SELECT {", ".join(_PER_CELL)}, count(*) AS replicas,
           CASE max(CASE status WHEN 'failed' THEN 3 WHEN 'invalid' THEN 2 WHEN 'unsupported' THEN 1 ELSE 0 END)
               WHEN 3 THEN 'failed' WHEN 2 THEN 'invalid' WHEN 1 THEN 'unsupported' ELSE 'ok' END AS status,
           list_distinct(flatten(list(reasons))) AS reasons,
           max(accuracy) AS accuracy, min(agreement) AS agreement, max(artifact_bytes) AS artifact_bytes,
           max(prepare_s) AS prepare_s, median(load_s) AS load_s, median(first_call_ns) / 1e6 AS first_call_ms,
           max(peak_rss_bytes) AS peak_rss_bytes
    FROM facts GROUP BY ALL
)
SELECT summed.*, coalesce(samples, 0) AS samples, latency_mean_ms, latency_min_ms, latency_max_ms,
       {", ".join(f"latency_p{percentile}_ms" for percentile in stats.PERCENTILE_SAMPLES)}
FROM summed LEFT JOIN cell_latencies USING ({", ".join(summaries.PER_CELL)})
"""

_LATENCIES = {
    "replicas": ("replica_latencies", ("samples", "rounds", "latency_p50_ns")),
    "cells": ("cell_latencies", ("samples", "latency_m", "latency_p")),
}
"""For the views that summarize samples: the summary they take it from, and how its columns' names begin."""

# Applied once the views stand and before anything of the user's is parsed or bound, for binding opens files already:
# from then on no statement reaches a file, the network, an extension or a Python variable, and none can lift these.
_CONFINEMENT = (
    "SET python_enable_replacements = false",
    # What does not fit into memory is refused: a query writes nothing, not even beside itself.
    "SET temp_directory = ''",
    # Where the user's home is, is no result either.
    "SET secret_directory = ''",
    "SET extension_directory = ''",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)

VIEWS = {
    "cells": (
        "one row per cell and run; latencies over the rounds that count, a percentile null where too few samples "
        "support it; of a baseline measured in several packs those of all"
    ),
    "replicas": "one row per process: a cell in one replica, without its samples",
    "samples": "one row per timed call",
    "speedups": "one row per cell and run: speedup over the baseline with its 95 % interval and verdict",
    "runs": "one row per run: what was asked, when, with which versions",
    "measurements": "the rows as stored, samples as parallel lists",
}

_SUMMARIES = ("facts", "replica_latencies", "cell_latencies")
_BEHIND = {*_SUMMARIES, "calls"}
"""Tables that views are made of: empty where no view needs them, so that nobody may ask them."""

_MISTAKES = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ParserException,
    duckdb.SyntaxException,
    duckdb.PermissionException,
)
"""What is wrong with a SELECT itself: no damaged part could be the cause, so none is looked for."""


def query(store: Store, sql: str, tell: Callable[[Damaged], None] | None = None) -> pa.Table:
    """The result of one SELECT over the views of `VIEWS`.

    Nothing but what it asks for is read; parts that turn out to be damaged are left out, as are run records that cannot
    be read where it asks for runs: `tell` gets each of them.
    Raises RequestError, in a line or two, for anything else than one SELECT, for SQL that DuckDB refuses, and for
    SQL that reaches beyond the views.
    """
    if is_show_tables(sql):  # DuckDB's own answer has what the views are made of, too
        sql = f"SELECT unnest({list(VIEWS)}) AS name"
    try:
        wanted = _wanted(sql)
        left_out = store.unreadable_runs() if "runs" in wanted and tell else []
        try:
            answer = _answer(_sources(store, wanted), sql)
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            damaged = (
                [] if isinstance(error, _MISTAKES) else [d for r in store.measured_runs() for d in store.damaged(r)]
            )
            if not damaged:
                raise
            left_out += damaged
            answer = _answer(_sources(store, wanted, store.read_measurements()), sql)
    except duckdb.Error as error:
        raise RequestError(_explained(error)) from error
    if tell:
        for each in left_out:
            tell(each)
    return answer


def schema() -> list[Column]:
    """Every column of every view, with its type and what it means."""
    with summaries.database() as connection:
        _make_views(connection, {})
        return [
            describe(view, name, kind)
            for view in VIEWS
            for name, kind, *_ in connection.execute(f"DESCRIBE {view}").fetchall()
        ]


def schema_table() -> pa.Table:
    """The same as a table."""
    return pa.Table.from_pylist([asdict(column) for column in schema()])


def _wanted(sql: str) -> frozenset[str]:
    """The sources that the SELECT reads. Raises RequestError where it is anything else than one SELECT.

    Whether a view's latencies are read, DuckDB's plan tells: it reads no column that the answer does not need.
    """
    with _confined({}) as connection:
        kind = kind_of_select(connection, sql, VIEWS)
        # A PIVOT is several statements and does not say which tables it reads.
        asked = _tables(sql) if kind != duckdb.StatementType.MULTI else set()
        if hidden := asked & _BEHIND:
            raise RequestError(f"there is no view {min(hidden)}; there are {', '.join(VIEWS)}")
        named = named_views(connection, sql, VIEWS)
        views = named & set(_LATENCIES)
        plan = _plan(connection, sql) if views and kind == duckdb.StatementType.SELECT else None
    latencies = {
        source
        for source, columns in (_LATENCIES[view] for view in views)
        if plan is None or any(name in plan for name in columns)
    }
    facts = {"facts"} if views else set()
    calls = {"calls"} if "samples" in named else set()
    return frozenset((named & {"speedups", "runs", "measurements"}) | latencies | facts | calls)


def _tables(sql: str) -> set[str]:
    """What a statement reads, by name, as far as an empty database can tell; DuckDB leaves out what it knows."""
    with summaries.database() as connection, suppress(duckdb.Error):
        _confine(connection)
        return set(connection.get_table_names(sql))
    return set()


def _plan(connection: duckdb.DuckDBPyConnection, sql: str) -> str | None:
    """How DuckDB would answer, with every column that it would read; None where it does not say."""
    try:
        # As JSON, for the drawing cuts long lists of columns short.
        return "".join(str(row) for row in connection.execute(f"EXPLAIN (FORMAT json) {sql}").fetchall())
    except duckdb.Error:  # a wrong one is explained when it is run
        return None


def _sources(store: Store, wanted: frozenset[str], sound: pa.Table | None = None) -> dict[str, Any]:
    """What stands behind the views: datasets and tables by name, only those that are wanted.

    `sound` are the measurements that can be read, where some cannot.
    """
    made: dict[str, Callable[[], Any]] = {
        "measurements": lambda: store.dataset() if sound is None else sound,
        "calls": lambda: store.dataset(columns=_OF_CALLS) if sound is None else sound.select(_OF_CALLS),
        "speedups": lambda: _speedups(store),
        "runs": lambda: runs_table(store.runs()),
    }
    for kind in _SUMMARIES:
        made[kind] = partial(summaries.summarize, store, kind) if sound is None else partial(summary_of, kind, sound)
    return {name: made[name]() for name in sorted(wanted)}


def _answer(sources: Mapping[str, Any], sql: str) -> pa.Table:
    with _confined(sources) as connection:
        relation = connection.sql(sql)
        # A SELECT always has a result; None would mean that the check before let something else through.
        return relation.to_arrow_table() if relation is not None else pa.table({})


@contextmanager
def _confined(sources: Mapping[str, Any]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that sees the views of these sources and nothing else: the only kind that reads a user's SQL."""
    with summaries.database() as connection:
        _make_views(connection, sources)
        _confine(connection)
        yield connection


def _confine(connection: duckdb.DuckDBPyConnection) -> None:
    for setting in _CONFINEMENT:
        connection.execute(setting)


def _make_views(connection: duckdb.DuckDBPyConnection, sources: Mapping[str, Any]) -> None:
    """Make all views; a source that is not given is empty."""
    empty = {
        "measurements": MEASUREMENT_SCHEMA.empty_table(),
        "calls": MEASUREMENT_SCHEMA.empty_table().select(_OF_CALLS),
        "speedups": SPEEDUP_SCHEMA.empty_table(),
        "runs": RUN_SCHEMA.empty_table(),
        **{kind: summaries.empty(kind) for kind in _SUMMARIES},
    }
    for name, source in (empty | dict(sources)).items():
        connection.register(name, source)
    for view in (_REPLICAS, _SAMPLES, _CELLS):
        connection.execute(view)


def _speedups(store: Store) -> pa.Table:
    derived = [speedups.current(store, run) for run in store.measured_runs()]
    plain = [SPEEDUP_SCHEMA.empty_table(), *(table.replace_schema_metadata(None) for table in derived)]
    return pa.concat_tables(plain, promote_options="default")


def _explained(error: duckdb.Error) -> str:
    if isinstance(error, duckdb.PermissionException):
        return f"a query reads {', '.join(VIEWS)} and nothing else: no files, network or extensions ({_brief(error)})"
    return f"{_brief(error)}\nViews: {', '.join(VIEWS)}"


def _brief(error: duckdb.Error) -> str:
    """DuckDB's message without its drawing of the query."""
    lines = [line.strip() for line in str(error).split("\n\nLINE ")[0].splitlines()]
    return " ".join(line for line in lines if line)
