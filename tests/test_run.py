"""One whole run through real Ray: what succeeds is measured whatever else fails, and every row can be trusted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
import pandas as pd
import pytest
from control_suites import Place, new_place

from farm.cli.commands import run_app

pytestmark = pytest.mark.timeout(600)

AFTER_WARM_UP = 6_000
"""More calls than a warm-up makes, so that a control fails in its first turn."""


def _crash(name: str, **options: Any) -> dict[str, Any]:
    return {"method": "control-crash", "name": name, "options": options}


METHODS = [
    "control-null",
    "control-work",
    "control-wrong",
    _crash("raises at load", at="load"),
    _crash("segfaults", after=AFTER_WARM_UP, how="segfault"),
    {"method": "control-hang", "name": "hangs", "options": {"after": AFTER_WARM_UP}},
    {"method": "control-leak", "name": "leaks", "options": {"after": AFTER_WARM_UP, "bytes_per_call": 100_000_000}},
]


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended: where, how, what it said, and its rows by the method's name."""

    place: Place
    code: int
    said: str
    rows: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def ended() -> Iterator[Ended]:
    with new_place() as place:
        suite = place.suite(methods=METHODS, limits={"load_s": 60, "call_s": 6, "memory_bytes": 1_000_000_000})
        code, said = place.farm("run", str(suite))
        assert place.measured(), said
        rows: Any = pd.read_parquet(place.results / "measurements").to_dict("records")
        yield Ended(place, code, said, {row["name"]: row for row in rows})


def _ok(ended: Ended) -> list[dict[str, Any]]:
    return [row for row in ended.rows.values() if row["status"] == "ok"]


def test_every_planned_cell_has_one_row(ended: Ended) -> None:
    frame = pd.read_parquet(ended.place.results / "measurements")
    names = ["control-null", "control-null~twin", "control-work", "control-wrong"]
    assert list(frame["name"]) == [*names, "raises at load", "segfaults", "hangs", "leaks"]
    assert frame["cell"].is_unique
    assert [len(sha256) for sha256 in frame["inputs_sha256"].unique()] == [64], "all answered the same inputs"


def test_what_works_is_measured_whatever_else_fails(ended: Ended) -> None:
    assert [row["name"] for row in _ok(ended)] == ["control-null", "control-null~twin", "control-work"]
    assert all(len(row["latency_ns"]) >= 4 * 5 for row in _ok(ended))


def test_some_failed_cells_give_exit_code_1(ended: Ended) -> None:
    assert ended.code == 1


def test_wrong_logits_are_invalid_and_never_timed(ended: Ended) -> None:
    row = ended.rows["control-wrong"]
    assert row["status"] == "invalid"
    assert list(row["reasons"]) == ["logits differ from the baseline's by 2, more than 0.001"]
    assert len(row["latency_ns"]) == 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raises at load", "RuntimeError: this control raises on purpose"),
        ("segfaults", "the process died"),
        ("hangs", "a call took longer than 6 s"),
        ("leaks", "out of memory, of which it may use 1.0 GB"),
    ],
)
def test_a_failing_cell_says_why(ended: Ended, name: str, reason: str) -> None:
    row = ended.rows[name]
    assert row["status"] == "failed"
    assert list(row["reasons"]) == [reason]
    assert reason in ended.said


@pytest.mark.parametrize(
    ("name", "words"), [("raises at load", "this control raises on purpose"), ("segfaults", "Segmentation fault")]
)
def test_a_crashed_cell_keeps_its_last_words(ended: Ended, name: str, words: str) -> None:
    assert words in ended.rows[name]["error_tail"]


def test_each_cell_is_a_process_of_its_own(ended: Ended) -> None:
    loaded = [row for row in ended.rows.values() if pd.notna(row["proof"])]
    pids = [json.loads(row["proof"])["pid"] for row in loaded]
    assert len(loaded) == 6  # all but the one that raised at load and the one whose answers were wrong before
    assert len(set(pids)) == len(pids)
    assert pids == [row["pid"] for row in loaded]


def test_each_cell_proves_its_cores_and_threads(ended: Ended) -> None:
    for row in _ok(ended):
        proof = json.loads(row["proof"])
        assert proof["affinity"] == list(row["cores"])[: row["threads"]]
        assert proof["omp_num_threads"] == str(row["threads"])
        assert proof["imported_runtimes"] == []


def test_lists_per_sample_and_per_round_are_parallel(ended: Ended) -> None:
    for row in ended.rows.values():
        assert len(row["round"]) == len(row["latency_ns"])
        rounds = len(set(row["round"]))
        for column in ("round_started_unix_ns", "round_position", "round_turn_ns", "round_cpu_ns"):
            assert len(row[column]) == rounds
    assert all(set(row["round"]) == {0, 1, 2, 3} for row in _ok(ended))


def test_the_guards_looked_at_every_turn(ended: Ended) -> None:
    for row in _ok(ended):
        rounds = len(set(row["round"]))
        assert len(row["tainted"]) == len(row["latency_ns"])
        assert len(row["round_taint_reasons"]) == rounds
        readings = [*row["round_foreign_ratio"], *row["round_own_ratio"], *row["round_steal_ratio"]]
        assert len(readings) == 3 * rounds
        assert all(reading >= 0 for reading in readings)


def test_a_round_is_tainted_whole(ended: Ended) -> None:
    rows = _ok(ended)
    assert len({tuple(tuple(reasons) for reasons in row["round_taint_reasons"][-2:]) for row in rows}) == 1


def test_rounds_reverse_each_other(ended: Ended) -> None:
    # From the second pair on, when those that fail in their turn have fallen out.
    orders = {name: list(ended.rows[name]["round_position"][2:]) for name in ("control-null", "control-work")}
    assert all(sum(positions) == 2 for positions in orders.values())


def test_samples_are_as_long_as_the_clock_needs(ended: Ended) -> None:
    assert ended.rows["control-null"]["calls_per_sample"] > 1


def test_all_samples_are_in_duckdb_and_in_pandas_alike(ended: Ended) -> None:
    files = f"{ended.place.results}/measurements/*/*.parquet"
    (counted,) = duckdb.sql(f"SELECT count(*) FROM (SELECT unnest(latency_ns) FROM '{files}')").fetchall()
    frame = pd.read_parquet(ended.place.results / "measurements")
    assert counted == (sum(len(samples) for samples in frame["latency_ns"]),)
    assert counted > (0,)


def test_the_predictions_are_judged_on_the_suites_texts(ended: Ended) -> None:
    row = ended.rows["control-work"]
    assert (row["agreement"], row["agreement_n"], row["accuracy"], row["accuracy_n"]) == (1.0, 8, 0.5, 8)
    assert (row["gate"], row["max_drop_points"]) == ("pass", 0.5)
    assert (row["baseline_right_only"], row["method_right_only"]) == (0, 0)
    assert row["max_abs_logit_diff"] == 0.0


def test_the_same_results_are_told_as_a_table(ended: Ended, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(["table", str(ended.place.results), "--format", "csv"]) == 0
    assert "control-work" in capsys.readouterr().out


def test_the_same_results_are_told_by_sql(ended: Ended, capsys: pytest.CaptureFixture[str]) -> None:
    question = "SELECT count(*) AS n FROM cells WHERE status = 'ok'"
    assert run_app(["query", question, str(ended.place.results), "--format", "csv"]) == 0
    assert capsys.readouterr().out.split() == ["n", "3"]


def test_nothing_runs_on_after_the_run(ended: Ended) -> None:
    assert not ended.place.processes()


def test_only_the_lock_and_rays_logs_stay_among_temporary_files(ended: Ended) -> None:
    left = {path.name for path in (ended.place.root / "tmp").iterdir()}
    assert left <= {"inference-farm.lock", "ray"}


def test_a_library_that_breaks_when_imported_takes_only_its_own_cell() -> None:
    with new_place() as place:
        methods = ["control-null", "control-broken-import", "control-crashing-import"]
        code, said = place.farm("run", str(place.suite(methods=methods, accuracy=None)))
        rows: Any = pd.read_parquet(place.results / "measurements").set_index("name")
    assert code == 1, said
    assert list(rows["status"]) == ["ok", "ok", "failed", "failed"]
    assert "OSError: libmissing.so.1" in rows.loc["control-broken-import", "reasons"][0]
    assert list(rows.loc["control-crashing-import", "reasons"]) == ["the process died"]
