"""Summaries of runs: made once, left with the results, and believed only for the parts they were made of."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from measured import RUN, measured_row

from farm import summaries
from farm.query import query
from farm.schemas import MEASUREMENT_SCHEMA
from farm.store import Store


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


def test_a_run_that_ended_is_answered_without_opening_a_part_wherever_it_is_copied(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = Store(tmp_path / "results")
    for replica in range(summaries.KEPT_FROM_PARTS):
        ended.publish_replica(RUN, "c", replica, [measured_row("c", replica, "pytorch", 10.0)])
    asked = "SELECT max(replicas) AS replicas, max(samples) AS samples, max(latency_p50_ms) AS ms FROM cells"
    expected = query(ended, asked).to_pylist()
    summaries.write_summaries(ended, RUN)
    copied = shutil.copytree(tmp_path / "results", tmp_path / "copied")
    shutil.rmtree(empty_cache / "summaries")
    monkeypatch.setattr(Store, "dataset", lambda *_: pytest.fail("a part was opened"))
    assert query(Store(copied, read_only=True), asked).to_pylist() == expected
    assert not (empty_cache / "summaries").exists()


def test_a_summary_of_other_parts_than_there_are_is_not_believed(tmp_path: Path, empty_cache: Path) -> None:
    del empty_cache
    grown = Store(tmp_path / "results")
    for replica in range(summaries.KEPT_FROM_PARTS):
        grown.publish_replica(RUN, "c", replica, [measured_row("c", replica, "pytorch", 10.0)])
    summaries.write_summaries(grown, RUN)
    grown.publish_replica(RUN, "c", 99, [measured_row("c", 99, "pytorch", 10.0)])
    (row,) = query(grown, "SELECT max(replicas) AS replicas FROM cells").to_pylist()
    assert row["replicas"] == summaries.KEPT_FROM_PARTS + 1
