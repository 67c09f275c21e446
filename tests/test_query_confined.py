"""A query reads the results and nothing else: no file, network, extension or variable; it writes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from measured import small_store

from farm.errors import RequestError
from farm.query import query
from farm.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return small_store(tmp_path_factory.mktemp("results"))


HOSTILE = (
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM read_parquet('https://example.com/x.parquet')",
    "COPY (SELECT 1) TO 'out.csv'",
    "ATTACH 'other.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "CREATE TABLE t AS SELECT 1",
    "CREATE TABLE t AS PIVOT cells ON length USING max(samples)",
    "EXPLAIN /* a pivot */ CREATE TABLE t AS (PIVOT cells ON length USING max(samples))",
    "DROP VIEW cells",
    "SELECT 1; SELECT 2",
    "",
    "COPY samples TO 'samples.parquet'",
    "COPY (SELECT * FROM cells) TO '/dev/stdout'",
    "EXPORT DATABASE 'out'",
    "INSERT INTO runs VALUES (1)",
    "UPDATE measurements SET latency_ns = NULL",
    "DELETE FROM samples",
    "ALTER TABLE runs RENAME TO walks",
    "PRAGMA database_list",
    "PRAGMA enable_profiling",
    "CALL pragma_version()",
    "CHECKPOINT",
    "VACUUM",
    "RESET lock_configuration",
    "SET python_enable_replacements = true",
    "CREATE MACRO leak() AS TABLE SELECT * FROM read_text('/etc/passwd')",
    "CREATE SECRET (TYPE s3)",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO 'out.csv'",
    "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
    "EXPLAIN /* (FORMAT json) */ (ANALYZE, FORMAT json) CREATE TABLE t AS SELECT 1",
    "SELECT * FROM read_blob('/etc/hostname')",
    "SELECT * FROM read_json('/etc/passwd')",
    "SELECT * FROM parquet_metadata('results/measurements/*.parquet')",
    "SELECT * FROM query('COPY (SELECT 1) TO ''out.csv'' ')",
    "SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'') ')",
    "WITH leak AS (SELECT * FROM read_text('/etc/passwd')) SELECT * FROM leak",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "FROM 'https://example.com/x.csv'",
    "SELECT count(*) FROM read_csv('/etc/passwd')",
    "SELECT * FROM enable_logging(level='trace', storage='file', storage_config={'path': 'log'})",
)

REACHING = (
    *("read_csv('other.csv')", "read_text('other.csv')", "glob('*')", "read_csv('https://example.com/x.csv')"),
    *("read_parquet('s3://bucket/x.parquet')", "'other.csv'"),
    "enable_logging(level='trace', storage='file', storage_config={'path': 'log'})",
    "query('SELECT * FROM read_text(''other.csv'')')",
)
"""Sources that would open, write or fetch something while a statement is only bound."""


@pytest.mark.parametrize("sql", [*HOSTILE, *(f"{sql}, cells" for sql in HOSTILE if sql)])
def test_a_query_reaches_nothing_but_the_views(store: Store, sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    refuse(store, sql, tmp_path, monkeypatch)


@pytest.mark.parametrize("source", REACHING)
@pytest.mark.parametrize(
    "sql",
    [
        "PIVOT (FROM {}, cells) ON length USING first(name)",
        "PIVOT (FROM {}) ON length USING count(*)",
        "SELECT * FROM (PIVOT (FROM {}, replicas) ON length USING count(*))",
        "EXPLAIN SELECT * FROM {}, cells",
        "EXPLAIN PIVOT (FROM {}, cells) ON length USING first(name)",
        "SELECT latency_p50_ms FROM cells WHERE EXISTS (FROM {})",
    ],
)
def test_nothing_is_reached_while_a_query_is_only_looked_at(
    store: Store, sql: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(store, sql.format(source), tmp_path, monkeypatch)


def refuse(store: Store, sql: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask it in an empty folder and home: it is refused, and nothing was opened or written there."""
    home = folder / "home"
    home.mkdir()
    # Nobody writes to it: whoever opens it to read would wait for ever.
    os.mkfifo(folder / "other.csv")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(home))
    with pytest.raises(RequestError) as refused:
        query(store, sql)
    assert "cells, replicas, samples" in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 2
    assert sorted(path.name for path in folder.rglob("*")) == ["home", "other.csv"]


@pytest.mark.parametrize(
    "sql", ["SELECT getenv('HOME')", "SELECT current_setting('secret_directory')", "SELECT * FROM duckdb_secrets()"]
)
def test_what_duckdb_knows_of_itself_holds_nothing_of_the_users(store: Store, sql: str) -> None:
    try:
        found = query(store, sql).to_pylist()
    except RequestError:
        return
    home = str(Path.home())
    assert all(home not in str(row) for row in found)


def test_a_query_does_not_see_python_variables(store: Store):
    frame = store.read_measurements()  # noqa: F841 - the variable that must not be found
    with pytest.raises(RequestError, match="frame"):
        query(store, "SELECT * FROM frame")
