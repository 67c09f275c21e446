"""Claims about SQL over results: documented views, right numbers, and nothing else within reach."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from measured import LENGTHS, RUN, measured_row, run_record, simulated_cohort

from farm import summaries
from farm.errors import RequestError
from farm.query import VIEWS, query, schema
from farm.results import Results
from farm.schemas import MEASUREMENT_SCHEMA
from farm.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("results"))
    store.write_run(run_record())
    for length in LENGTHS[:2]:
        for replica in range(2):
            store.publish_replica(RUN, f"cpu-b1-l{length}", replica, simulated_cohort(length, replica))
    failed = measured_row("odd", 0, "quantized", 9.0, status="failed", reasons=["crashed"], round=None, latency_ns=None)
    store.publish_replica(RUN, "odd", 0, [measured_row("odd", 0, "pytorch", 9.0), failed])
    return store


def test_every_sample_is_one_row_with_its_round_and_number(store: Store):
    rows = query(
        store,
        "SELECT round, sample, latency_ns, latency_ms FROM samples "
        "WHERE cohort = 'cpu-b1-l64' AND replica = 1 AND role = 'twin' ORDER BY sample",
    ).to_pydict()
    stored = next(row for row in simulated_cohort(64, 1) if row["role"] == "twin")
    assert rows["latency_ns"] == stored["latency_ns"]
    assert rows["round"] == stored["round"]
    assert rows["sample"] == list(range(len(stored["latency_ns"])))
    assert rows["latency_ms"] == pytest.approx([latency / 1e6 for latency in stored["latency_ns"]])


def test_cells_summarize_over_replicas_and_withhold_unsupported_percentiles(store: Store):
    cell = "quantized-candidate-l64"
    row = query(store, f"SELECT * FROM cells WHERE cell = '{cell}'").to_pylist()[0]
    samples = [
        latency
        for replica in range(2)
        for each in simulated_cohort(64, replica)
        if each["cell"] == cell
        for latency in each["latency_ns"]
    ]
    assert (row["replicas"], row["samples"], row["status"]) == (2, 200, "ok")
    assert row["latency_p50_ms"] == pytest.approx(np.percentile(samples, 50) / 1e6)
    assert row["latency_p95_ms"] == pytest.approx(np.percentile(samples, 95) / 1e6)
    assert row["latency_p99_ms"] is None


def test_a_failed_cell_is_a_row_without_latencies(store: Store):
    row = query(store, "SELECT * FROM cells WHERE status = 'failed'").to_pylist()
    assert [(each["name"], each["samples"], each["reasons"]) for each in row] == [("quantized", 0, ["crashed"])]
    assert row[0]["latency_p50_ms"] is None


def test_replicas_speedups_and_runs_have_a_row_each(store: Store):
    counts = (
        "SELECT (SELECT count(*) FROM replicas) AS r, (SELECT count(*) FROM speedups) AS s, count(*) AS n FROM runs"
    )
    assert query(store, counts).to_pylist() == [{"r": 22, "s": 12, "n": 1}]


def test_every_column_of_every_view_is_documented():
    columns = schema()
    assert {column.view for column in columns} == set(VIEWS)
    assert [column for column in columns if not column.about] == []


@pytest.mark.parametrize(
    "sql",
    [
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
        "SELECT * FROM read_blob('/etc/hostname')",
        "SELECT * FROM read_json('/etc/passwd')",
        "SELECT * FROM parquet_metadata('results/measurements/*.parquet')",
        "SELECT * FROM query('COPY (SELECT 1) TO ''out.csv'' ')",
        "SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'') ')",
        "WITH leak AS (SELECT * FROM read_text('/etc/passwd')) SELECT * FROM leak",
        "SELECT * FROM sniff_csv('/etc/passwd')",
        "FROM 'https://example.com/x.csv'",
        "SELECT count(*) FROM read_csv('/etc/passwd')",
    ],
)
def test_a_query_reaches_nothing_but_the_views(store: Store, sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError) as refused:
        query(store, sql)
    assert "cells, replicas, samples" in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 2
    assert list(tmp_path.iterdir()) == []


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


def test_costs_are_answered_without_reading_samples(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = summaries.summarize

    def recorded(of: Store, kind: str) -> object:
        asked.append(kind)
        return real(of, kind)

    monkeypatch.setattr(summaries, "summarize", recorded)
    query(store, "SELECT name, status, max(artifact_bytes), max(prepare_s) FROM cells GROUP BY ALL")
    query(store, "SELECT count(*) FROM replicas WHERE status = 'ok'")
    assert set(asked) == {"facts"}
    query(store, "SELECT name, latency_p50_ms FROM cells")
    query(store, "SELECT * FROM replicas")
    assert set(asked) == {"facts", "cell_latencies", "replica_latencies"}


def test_the_facts_have_no_column_of_samples() -> None:
    kinds = {field.name: field.type for field in MEASUREMENT_SCHEMA}
    lists = {name for name in summaries.FACTS if pa.types.is_list(kinds[name])}
    assert lists == {"cores", "reasons"}


def test_many_parts_are_summarized_once_and_again_when_they_change(tmp_path: Path, empty_cache: Path) -> None:
    many = Store(tmp_path / "results")
    for replica in range(summaries.KEPT_FROM_PARTS):
        many.publish_replica(RUN, "c", replica, [measured_row("c", replica, "pytorch", 10.0)])
    counted = "SELECT max(replicas) AS replicas, max(samples) AS samples, max(latency_p50_ms) AS ms FROM cells"
    (first,) = query(many, counted).to_pylist()
    kept = {path: path.stat().st_mtime_ns for path in (empty_cache / "summaries").iterdir()}
    assert kept and query(many, counted).to_pylist() == [first]
    assert {path: path.stat().st_mtime_ns for path in (empty_cache / "summaries").iterdir()} == kept
    many.publish_replica(RUN, "c", 99, [measured_row("c", 99, "pytorch", 10.0)])
    (second,) = query(many, counted).to_pylist()
    assert second == first | {"replicas": first["replicas"] + 1, "samples": first["samples"] + 15}
    for path in kept:
        path.write_bytes(b"damaged")
    assert query(many, counted).to_pylist() == [second]


def test_a_damaged_part_is_left_out_of_every_view(tmp_path: Path) -> None:
    damaged = Store(tmp_path)
    for replica in range(2):
        damaged.publish_replica(RUN, "c", replica, [measured_row("c", replica, "pytorch", 10.0)])
    part = damaged.part_path(RUN, "c", 1)
    content = part.read_bytes()
    part.write_bytes(content[:200] + bytes(64) + content[264:])
    fresh = Store(tmp_path, read_only=True)
    assert query(fresh, "SELECT * EXCLUDE latency_ms FROM samples").column("replica").unique().to_pylist() == [0]
    assert query(fresh, "SELECT count(*) AS n FROM replicas WHERE environment IS NOT NULL").to_pylist() == [{"n": 1}]


def test_a_query_does_not_see_python_variables(store: Store):
    frame = store.read_measurements()  # noqa: F841 - the variable that must not be found
    with pytest.raises(RequestError, match="frame"):
        query(store, "SELECT * FROM frame")


def test_a_wrong_query_is_explained_in_two_lines(store: Store):
    with pytest.raises(RequestError, match="nope") as refused:
        query(store, "SELECT nope FROM samples")
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize(
    "sql", ["EXPLAIN SELECT 1", "DESCRIBE cells", "FROM runs", "PIVOT cells ON length USING max(samples) GROUP BY name"]
)
def test_ordinary_ways_of_reading_work(store: Store, sql: str):
    assert query(store, sql).num_columns > 0


def test_an_empty_result_keeps_its_columns(store: Store):
    assert query(store, "SELECT run, name FROM cells WHERE false").column_names == ["run", "name"]


def test_results_gives_frames_sql_and_tables_of_the_newest_run(store: Store):
    results = Results(store.root)
    assert results.run == RUN
    assert len(results.samples) == 2 * 2 * 5 * 100 + 15
    assert len(results.cells) == len(results.speedups) == 12
    assert len(results.measurements) == 22
    assert list(results.sql("SELECT count(*) AS n FROM runs")["n"]) == [1]
    assert "torchscript" in results.table()
    assert "<table" in results._repr_html_()
    with pytest.raises(RequestError, match="markdown"):
        results.table("pdf")


def test_results_of_nothing_say_how_to_make_some(tmp_path: Path):
    with pytest.raises(RequestError, match="farm run"):
        Results(tmp_path)
    with pytest.raises(RequestError, match="no run"):
        Store(tmp_path).write_run(run_record())
        Results(tmp_path, run="20990101T000000Z-0000")
