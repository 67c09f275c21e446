"""Claims about SQL over results: documented views, right numbers, and no more read than is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from measured import RUN, measured_row, run_record, simulated_cohort, small_store

from farm import query as queries
from farm import summaries
from farm.errors import RequestError
from farm.query import VIEWS, query, schema
from farm.results import Results
from farm.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return small_store(tmp_path_factory.mktemp("results"))


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


def test_latencies_are_of_the_rounds_that_count_as_in_the_table(tmp_path: Path) -> None:
    """Five rounds of which one was disturbed, a process of which too few are left, and one that failed."""
    rounds = [number for number in range(5) for _ in range(3)]
    disturbed = [number == 2 for number in rounds]
    latency_ns = [90_000_000 if mark else 10_000_000 + number for number, mark in zip(rounds, disturbed, strict=True)]
    marked = {"round": rounds, "latency_ns": latency_ns, "tainted": disturbed}
    most = marked | {"tainted": [number < 2 for number in rounds]}
    some = Store(tmp_path)
    for replica, changes in enumerate((marked, most, most | {"status": "failed", "latency_ns": [1] * 15})):
        rows = [measured_row("c", replica, name, 1.0, **changes) for name in ("pytorch", "quantized")]
        some.publish_replica(RUN, "c", replica, rows[: 1 if replica == 2 else 2])
    counting = [ns for ns, mark in zip(latency_ns, disturbed, strict=True) if not mark] + latency_ns
    (cell,) = query(some, "SELECT * FROM cells WHERE name = 'quantized'").to_pylist()
    (derived,) = query(some, "SELECT * FROM speedups WHERE name = 'quantized'").to_pylist()
    assert (cell["samples"], cell["latency_max_ms"]) == (27, 90.0)
    assert cell["latency_p50_ms"] * 1e6 == derived["latency_p50_ns"] == np.median(counting)
    (failed,) = query(some, "SELECT samples, latency_min_ms FROM cells WHERE name = 'pytorch'").to_pylist()
    assert failed["samples"] == 27 and failed["latency_min_ms"] > 9, "calls of a failed process count nowhere"
    processes = query(
        some, "SELECT samples, rounds FROM replicas WHERE name = 'quantized' ORDER BY replica"
    ).to_pylist()
    assert processes == [{"samples": 12, "rounds": 4}, {"samples": 15, "rounds": 5}]
    asked = "SELECT replica, sum(tainted::int) AS tainted, sum(counts::int) AS counts FROM samples "
    marks = query(some, f"{asked} WHERE name = 'quantized' GROUP BY ALL ORDER BY ALL").to_pylist()
    assert [(each["tainted"], each["counts"]) for each in marks] == [(3, 12), (6, 15)]


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


def test_a_view_of_processes_and_one_of_cells_describe_a_column_each_in_its_own_words() -> None:
    about = {(column.view, column.name): column.about for column in schema()}
    assert about["replicas", "load_s"] == "seconds from artifact to callable, imports excluded"
    assert about["speedups", "load_s"].startswith("median")
    assert about["cells", "load_s"] == about["speedups", "load_s"]


def test_columns_with_a_unit_say_which() -> None:
    units = {column.name: column.unit for column in schema()}
    assert (units["latency_ns"], units["limit_ns"], units["latency_p90_ms"]) == ("ns", "ns", "ms")
    assert (units["peak_rss_bytes"], units["accuracy_drop_points"]) == ("bytes", "percentage points")
    assert (units["energy_j_per_call"], units["cpu_ns_per_call"], units["round_memory_gbs"]) == (
        "J",
        "ns",
        "10^9 bytes/s",
    )
    assert (units["speedup"], units["name"]) == ("", "")


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


def sources_of(store: Store, sql: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What is opened to answer it."""
    opened: set[str] = set()
    real = queries._sources

    def recorded(of: Store, wanted: frozenset[str], *sound: pa.Table) -> object:
        opened.update(wanted)
        return real(of, wanted, *sound)

    with monkeypatch.context() as patch:
        patch.setattr(queries, "_sources", recorded)
        query(store, sql)
    return opened


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT name, samples FROM cells",
        "SELECT c.samples FROM Cells AS c -- of samples",
        "SELECT samples.name FROM cells AS samples",
        "SELECT 'FROM samples' AS told FROM main.cells",
        "EXPLAIN SELECT samples FROM cells",
        "SELECT samples FROM speedups",
    ],
)
def test_a_column_named_like_a_view_reads_no_calls(store: Store, monkeypatch: pytest.MonkeyPatch, sql: str) -> None:
    assert "calls" not in sources_of(store, sql, monkeypatch)


@pytest.mark.parametrize(
    "source",
    [
        *("FROM main.samples", 'FROM "Samples"', "FROM SAMPLES AS s", "FROM query_table('samples')", "FROM 'samples'"),
        *("FROM query('FROM samples')", "FROM query_table('sam' || 'ples')"),
        "TABLE samples",
        *("WITH samples AS (FROM samples) FROM samples", "WITH cells AS (FROM samples) FROM cells"),
        *("FROM runs SELECT * REPLACE ((SELECT max(latency_ns) FROM samples) AS run)", "SUMMARIZE samples"),
        *("FROM runs WHERE EXISTS (FROM samples)", "EXPLAIN ANALYZE FROM samples", "FROM (DESCRIBE samples)"),
        *("PIVOT samples ON length USING max(latency_ns)", "UNPIVOT samples ON latency_ms INTO NAME n VALUE v"),
    ],
)
def test_calls_are_read_however_their_view_is_named(store: Store, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    assert "calls" in sources_of(store, source, monkeypatch)


@pytest.mark.parametrize("sql", ["-- what is there?\nSHOW TABLES;", "show all tables"])
def test_the_tables_that_are_shown_are_the_views(store: Store, sql: str) -> None:
    assert query(store, sql).column("name").to_pylist() == list(VIEWS)


def test_a_baseline_of_two_packs_is_one_cell(tmp_path: Path) -> None:
    packed = Store(tmp_path)
    for cohort in ("first", "second"):
        packed.publish_replica(RUN, cohort, 0, [measured_row(cohort, 0, "pytorch", 10.0, cell="one", role="baseline")])
    (row,) = query(packed, "SELECT replicas, samples FROM cells").to_pylist()
    assert row == {"replicas": 2, "samples": 30}
    assert query(packed, "SELECT cohort, samples FROM replicas ORDER BY cohort").num_rows == 2


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


def test_a_wrong_query_is_explained_in_two_lines(store: Store):
    with pytest.raises(RequestError, match="nope") as refused:
        query(store, "SELECT nope FROM samples")
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize(
    "sql", ["EXPLAIN SELECT 1", "DESCRIBE cells", "FROM runs", "PIVOT cells ON length USING max(samples) GROUP BY name"]
)
def test_ordinary_ways_of_reading_work(store: Store, sql: str):
    assert query(store, sql).num_columns > 0


@pytest.mark.parametrize(
    ("view", "column", "scale"), [("cells", "latency_p50_ms", 1.0), ("replicas", "latency_p50_ns", 1e6)]
)
def test_a_pivot_holds_the_values_of_its_view(store: Store, view: str, column: str, scale: float) -> None:
    plain = query(store, f"SELECT max({column}) AS most FROM {view} WHERE name = 'quantized' AND length = 64")
    pivot = query(store, f"PIVOT {view} ON length USING max({column}) GROUP BY name").to_pylist()
    nested = query(store, f"SELECT * FROM (PIVOT {view} ON length USING max({column}) GROUP BY name)").to_pylist()
    (most,) = plain.column("most").to_pylist()
    assert most > 10 * scale
    for rows in (pivot, nested):
        assert [row["64"] for row in rows if row["name"] == "quantized"] == [most]


@pytest.mark.parametrize("name", ["facts", "calls", "cell_latencies"])
def test_what_views_are_made_of_is_no_view(store: Store, name: str) -> None:
    with pytest.raises(RequestError, match=f"there is no view {name}; there are cells"):
        query(store, f"SELECT count(*) FROM {name}")
    assert query(store, f"WITH {name} AS (SELECT 1 AS one) SELECT one FROM {name}").num_rows == 1


def test_no_progress_bar_is_drawn_into_the_answer(store: Store) -> None:
    found = query(store, "SELECT current_setting('enable_progress_bar') AS drawn").to_pylist()
    assert found == [{"drawn": False}]


@pytest.mark.parametrize("sql", ["SELECT speedup FROM runs", "SELECT * FROM rums", "SELECT FROM FROM runs"])
def test_a_mistake_in_the_sql_reads_no_part(store: Store, monkeypatch: pytest.MonkeyPatch, sql: str) -> None:
    monkeypatch.setattr(Store, "damaged", lambda *_: pytest.fail("looked for damage"))
    with pytest.raises(RequestError):
        query(store, sql)


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
