"""A part or record that cannot be read for a moment is read again; what is damaged, gone or moved is told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from measured import RUN, measured_row, run_record

from farm import inspection, publication
from farm.errors import ResultsError
from farm.folders import Entry, LocalFolder
from farm.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "results")
    store.write_run(run_record())
    return store


def rows_of(cohort: str = "c1", replica: int = 0, latency_ms: float = 50.0) -> list[dict[str, Any]]:
    return [measured_row(cohort, replica, name, latency_ms) for name in ("pytorch", "quantized")]


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
