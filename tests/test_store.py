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

from farm import inspection, publication
from farm.errors import RequestError, ResultsError
from farm.folders import Entry, LocalFolder
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


class Refusing:
    """Refuses so many calls of a function, then passes them on."""

    def __init__(self, ordinary: Any, refusals: int, error: Exception) -> None:
        self.ordinary, self.left, self.error = ordinary, refusals, error

    def __call__(self, *arguments: Any) -> Any:
        self.left -= 1
        if self.left >= 0:
            raise self.error
        return self.ordinary(*arguments)


def _refuse_reading(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    monkeypatch.setattr("farm.patience.READ_DELAYS_S", (0.0, 0.0))
    refusing = Refusing(LocalFolder.read, times, ResultsError("the network is away"))

    def read(folder: LocalFolder, place: Path) -> bytes:
        content: bytes = refusing(folder, place)
        return content

    monkeypatch.setattr(LocalFolder, "read", read)


def test_a_part_that_cannot_be_read_for_a_moment_is_read_again_and_not_damaged(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    store.publish_replica(RUN, "c1", 0, rows_of())
    _refuse_reading(monkeypatch, 2)
    assert store.damaged(RUN) == []
    assert list(store.published(RUN)) == [("c1", 0)]


def test_a_part_that_cannot_be_read_at_all_is_an_error_that_is_not_remembered(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    store.publish_replica(RUN, "c1", 0, rows_of())
    _refuse_reading(monkeypatch, 3)
    with pytest.raises(ResultsError, match="the network is away"):
        store.published(RUN)
    assert list(store.published(RUN)) == [("c1", 0)]


def test_a_footer_that_cannot_be_read_for_a_moment_is_not_damaged(store: Store, monkeypatch: pytest.MonkeyPatch):
    class Flaky:
        make_fragment = Refusing(inspection.CHECKED_PARQUET.make_fragment, 1, OSError("the network is away"))

    store.publish_replica(RUN, "c1", 0, rows_of())
    monkeypatch.setattr("farm.patience.READ_DELAYS_S", (0.0, 0.0))
    monkeypatch.setattr(inspection, "CHECKED_PARQUET", Flaky)
    assert store.quick_damaged(RUN) == []
    assert list(store.quick_parts(RUN)) == [("c1", 0)]


def test_a_run_record_that_cannot_be_read_is_not_taken_for_a_run_that_is_not_there(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    _refuse_reading(monkeypatch, 3)
    with pytest.raises(ResultsError, match="the network is away"):
        store.runs()
    assert [record.run for record in store.runs()] == [RUN]


@pytest.mark.parametrize("look", ["published", "quick_parts"])
def test_a_part_that_was_moved_away_after_it_was_listed_is_none(
    store: Store, monkeypatch: pytest.MonkeyPatch, look: str
):
    for replica in (0, 1):
        store.publish_replica(RUN, "c1", replica, rows_of(replica=replica))
    ordinary_files = LocalFolder.files

    def files(folder: LocalFolder, below: str, suffix: str) -> list[Entry]:
        listed = ordinary_files(folder, below, suffix)
        store.part_path(RUN, "c1", 0).unlink(missing_ok=True)  # type: ignore[union-attr]
        return listed

    monkeypatch.setattr(LocalFolder, "files", files)
    assert list(getattr(store, look)(RUN)) == [("c1", 1)]


def test_what_another_farm_moved_away_or_measured_again_is_not_set_aside(store: Store):
    store.publish_replica(RUN, "c1", 0, rows_of())
    assert store.set_aside(store.part_path(RUN, "c1", 0)) is None
    assert list(store.published(RUN)) == [("c1", 0)]
    assert store.set_aside(store.part_path(RUN, "c1", 1)) is None


def test_a_file_that_is_moved_away_while_it_is_set_aside_is_gone(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        publication.set_aside(tmp_path / "c1-0.parquet")


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
