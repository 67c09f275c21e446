"""Claims about results on disk: published once, whole or not at all, and readable with ordinary tools."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from measured import RUN, measured_row, run_record

from farm import publication
from farm.errors import RequestError, ResultsError
from farm.schemas import MEASUREMENT_SCHEMA
from farm.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "results")
    store.write_run(run_record())
    return store


def rows_of(cohort: str = "c1", replica: int = 0, latency_ms: float = 50.0) -> list[dict[str, Any]]:
    return [measured_row(cohort, replica, name, latency_ms) for name in ("pytorch", "quantized")]


def visible_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_published_replica_reads_back_as_it_was(store: Store):
    assert store.publish_replica(RUN, "c1", 0, rows_of())
    read = store.read_measurements(RUN)
    assert read.schema.equals(MEASUREMENT_SCHEMA)
    assert read.select(["name", "latency_ns", "round"]).to_pylist() == [
        {key: row[key] for key in ("name", "latency_ns", "round")} for row in rows_of()
    ]


def test_a_replica_is_published_once_and_never_replaced(store: Store):
    assert store.publish_replica(RUN, "c1", 0, rows_of(latency_ms=50.0))
    before = store.part_path(RUN, "c1", 0).read_bytes()
    assert not store.publish_replica(RUN, "c1", 0, rows_of(latency_ms=99.0))
    assert store.part_path(RUN, "c1", 0).read_bytes() == before


def test_pandas_reads_the_folder_of_measurements(store: Store):
    for cohort, replica in [("c1", 0), ("c1", 1), ("cpu-b1-l64", 0)]:
        store.publish_replica(RUN, cohort, replica, rows_of(cohort, replica))
    damaged = store.part_path(RUN, "c1", 1)
    damaged.write_bytes(damaged.read_bytes()[:-9])
    store.set_aside(damaged)
    (damaged.parent / ".c1-2.parquet.host.1.abcd").write_bytes(b"left over")
    frame = pd.read_parquet(store.root / "measurements")
    assert sorted(frame["cohort"].unique()) == ["c1", "cpu-b1-l64"]
    assert len(frame) == 4


def _publish(root: str, latency_ms: float, gate: Any, won: Any) -> None:
    store = Store(root)
    rows = rows_of(latency_ms=latency_ms)
    gate.wait()
    if store.publish_replica(RUN, "c1", 0, rows):
        won.put(latency_ms)


def test_of_racing_processes_exactly_one_publishes(store: Store):
    context = multiprocessing.get_context("spawn")
    gate, won = context.Barrier(3), context.Queue()
    contenders = [
        context.Process(target=_publish, args=(str(store.root), 10.0 * number, gate, won)) for number in (1, 2, 3)
    ]
    for contender in contenders:
        contender.start()
    for contender in contenders:
        contender.join(60)
        assert contender.exitcode == 0
    winner = won.get(timeout=10)
    assert won.empty()
    assert store.read_measurements(RUN)["latency_ns"][0].as_py()[0] == round(winner * 1e6)
    assert not list(store.part_path(RUN, "c1", 0).parent.glob(".*"))


def _disk_full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("failing", ["link", "fsync"])
def test_a_full_disk_leaves_nothing_half_published(store: Store, monkeypatch: pytest.MonkeyPatch, failing: str):
    store.publish_replica(RUN, "c1", 0, rows_of())
    before = visible_files(store.root)
    with monkeypatch.context() as patched:
        patched.setattr(publication.os, failing, _disk_full)
        with pytest.raises(ResultsError, match="No space left"):
            store.publish_replica(RUN, "c1", 1, rows_of(replica=1))
    assert visible_files(store.root) == before
    assert store.publish_replica(RUN, "c1", 1, rows_of(replica=1))


def test_a_write_cut_short_leaves_nothing_half_published(store: Store, monkeypatch: pytest.MonkeyPatch):
    before = visible_files(store.root)
    ordinary_open = Path.open

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, content: bytes) -> None:
            self.file.write(content[:10])
            _disk_full()

    monkeypatch.setattr(Path, "open", lambda path, *rest, **options: Full(ordinary_open(path, *rest, **options)))
    with pytest.raises(ResultsError, match="nothing of it was published"):
        store.publish_replica(RUN, "c1", 0, rows_of())
    assert visible_files(store.root) == before


def test_a_link_whose_answer_was_lost_still_counts(store: Store, monkeypatch: pytest.MonkeyPatch):
    ordinary_link = os.link

    def repeated(source: Path, target: Path) -> None:
        ordinary_link(source, target)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    monkeypatch.setattr(publication.os, "link", repeated)
    assert store.publish_replica(RUN, "c1", 0, rows_of())


def _truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _bit_flipped(content: bytes) -> bytes:
    middle = len(content) // 8
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [_truncated, _bit_flipped, lambda _: b""])
def test_a_damaged_part_is_named_left_out_and_can_be_measured_again(store: Store, damage: Any):
    store.publish_replica(RUN, "c1", 0, rows_of())
    store.publish_replica(RUN, "c1", 1, rows_of(replica=1))
    part = store.part_path(RUN, "c1", 1)
    part.write_bytes(damage(part.read_bytes()))

    assert list(store.published(RUN)) == [("c1", 0)]
    assert [each.path for each in store.damaged(RUN)] == [part]
    assert store.read_measurements(RUN)["replica"].to_pylist() == [0, 0]

    aside = store.set_aside(part)
    assert aside is not None and aside.name == "_c1-1.parquet.damaged"
    assert store.damaged(RUN) == []
    assert store.publish_replica(RUN, "c1", 1, rows_of(replica=1))
    assert list(store.published(RUN)) == [("c1", 0), ("c1", 1)]


def test_no_single_damaged_byte_changes_a_measurement_unnoticed(store: Store):
    store.publish_replica(RUN, "c1", 0, rows_of())
    part = store.part_path(RUN, "c1", 0)
    content, rows = part.read_bytes(), store.read_measurements(RUN).to_pylist()
    noticed = 0
    for position in range(0, len(content), len(content) // 150):
        part.write_bytes(content[:position] + bytes([content[position] ^ 0x55]) + content[position + 1 :])
        reader = Store(store.root, read_only=True)
        noticed += bool(reader.damaged(RUN))
        assert reader.damaged(RUN) or reader.read_measurements(RUN).to_pylist() == rows, f"byte {position}"
    assert noticed > 75


def test_a_second_damaged_part_does_not_overwrite_the_first(store: Store):
    for content in (b"first", b"second"):
        part = store.part_path(RUN, "c1", 0)
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        store.set_aside(part)
    aside = sorted(part.parent.iterdir())
    assert [path.name for path in aside] == ["_c1-0.parquet.damaged", "_c1-0.parquet.damaged2"]
    assert aside[0].read_bytes() == b"first"


def test_a_part_under_anothers_name_is_not_believed(store: Store):
    store.publish_replica(RUN, "c1", 0, rows_of())
    store.part_path(RUN, "c1", 7).write_bytes(store.part_path(RUN, "c1", 0).read_bytes())
    assert list(store.published(RUN)) == [("c1", 0)]
    assert "not what its name says" in store.damaged(RUN)[0].why


def test_rows_that_the_schema_does_not_know_or_that_belong_elsewhere_are_refused(store: Store):
    with pytest.raises(ValueError, match="latency_s"):
        store.publish_replica(RUN, "c1", 0, [measured_row("c1", 0, "pytorch", 50.0, latency_s=3)])
    with pytest.raises(ValueError, match="do not belong"):
        store.publish_replica(RUN, "c1", 0, rows_of(replica=4))


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ResultsError, match="--results"):
        Store(tmp_path / "file" / "results")


def test_a_disk_without_hard_links_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(publication.os, "link", refuse)
    with pytest.raises(ResultsError, match="hard links"):
        Store(tmp_path / "results")
    assert visible_files(tmp_path) == []


def test_opening_leaves_no_trace_in_the_folder(tmp_path: Path):
    Store(tmp_path / "results")
    assert visible_files(tmp_path) == []


def test_reading_where_nothing_was_measured_says_how_to_measure(tmp_path: Path):
    with pytest.raises(RequestError, match="farm run"):
        Store(tmp_path / "nowhere", read_only=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="farm run"):
        Store(tmp_path / "empty", read_only=True)
    assert not (tmp_path / "nowhere").exists()


def test_a_run_is_recorded_once_and_finished_in_place(store: Store):
    with pytest.raises(ResultsError, match="already"):
        store.write_run(run_record(command="another"))
    assert store.run(RUN).finished_unix_ns is None
    store.finish_run(RUN, finished_unix_ns=5)
    assert store.run(RUN) == run_record(finished_unix_ns=5)


def test_runs_come_newest_first_and_an_unreadable_record_is_named(store: Store):
    store.write_run(run_record(run="later", created_unix_ns=run_record().created_unix_ns + 1))
    (store.root / "runs" / "torn.json").write_text('{"run": "torn"')
    assert [record.run for record in store.runs()] == ["later", RUN]
    assert [each.path.name for each in store.unreadable_runs()] == ["torn.json"]


def test_an_unknown_run_is_refused_with_the_known_ones(store: Store):
    with pytest.raises(RequestError, match=RUN):
        store.read_measurements("20990101T000000Z-0000")


def test_a_run_without_parts_reads_as_an_empty_table(store: Store):
    assert store.read_measurements(RUN).num_rows == 0
    assert store.read_measurements(None, columns=["cell"]).column_names == ["cell"]


def test_all_runs_are_read_together(store: Store):
    store.publish_replica(RUN, "c1", 0, rows_of())
    store.publish_replica("other", "c1", 0, [row | {"run": "other"} for row in rows_of()])
    assert set(store.read_measurements(None, columns=["run"])["run"].to_pylist()) == {RUN, "other"}
