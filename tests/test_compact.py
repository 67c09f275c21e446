"""Compacted results are the same results: every command reads them, and the source is left alone."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from measured import RUN, run_record, simulated_cohort

from farm import compact as compacting
from farm import speedups
from farm.compact import compact
from farm.errors import RequestError, ResultsError
from farm.events import Silent
from farm.results import Results
from farm.store import Store

KEYS = [(f"cpu-b1-l{length}", replica) for length in (128, 64) for replica in range(3)]


@pytest.fixture
def source(tmp_path: Path) -> Store:
    store = Store(tmp_path / "source")
    store.write_run(run_record())
    for cohort, replica in KEYS:
        store.publish_replica(RUN, cohort, replica, simulated_cohort(int(cohort[8:]), replica, rounds=4))
    return store


def _snapshot(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_the_same_rows_in_one_part_and_the_source_untouched(source: Store, tmp_path: Path) -> None:
    before = _snapshot(tmp_path / "source")
    written = compact(source.root, tmp_path / "few", Silent())
    few = Store(tmp_path / "few", read_only=True)
    assert (written.replicas, written.parts, written.left_out) == (6, 1, ())
    assert few.read_measurements().to_pylist() == source.read_measurements().to_pylist()
    assert few.dataset().to_table().to_pylist() == source.dataset().to_table().to_pylist()
    assert list(few.published(RUN)) == list(few.quick_parts(RUN)) == KEYS
    assert few.run(RUN) == source.run(RUN)
    assert _snapshot(tmp_path / "source") == before


def test_tables_queries_and_single_cohorts_read_compacted_results(source: Store, tmp_path: Path) -> None:
    compact(source.root, tmp_path / "few", Silent())
    assert Results(tmp_path / "few").table() == Results(source.root).table()
    few = Store(tmp_path / "few", read_only=True)
    one = few.read_measurements(RUN, cohort="cpu-b1-l64")
    assert set(one["cohort"].to_pylist()) == {"cpu-b1-l64"}
    assert one.to_pylist() == source.read_measurements(RUN, cohort="cpu-b1-l64").to_pylist()


def test_speedups_that_were_derived_are_carried_over_as_they_were(source: Store, tmp_path: Path) -> None:
    speedups.rebuild(source, RUN)
    compact(source.root, tmp_path / "few", Silent())
    few = Store(tmp_path / "few", read_only=True)
    stored = few.read_speedups(RUN)
    assert stored is not None
    assert stored.equals(source.read_speedups(RUN))
    assert speedups.current(few, RUN).schema.metadata == stored.schema.metadata


def test_many_replicas_become_several_parts_of_bounded_size(
    source: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compacting, "PART_BYTES", 1)
    assert compact(source.root, tmp_path / "few", Silent()).parts == 6
    again = compact(tmp_path / "few", tmp_path / "again", Silent())
    assert again.replicas == 6
    assert Store(tmp_path / "again", read_only=True).read_measurements().equals(source.read_measurements())


def test_a_run_goes_on_in_compacted_results_and_no_replica_counts_twice(source: Store, tmp_path: Path) -> None:
    compact(source.root, tmp_path / "few", Silent())
    few = Store(tmp_path / "few")
    few.publish_replica(RUN, "cpu-b1-l64", 3, simulated_cohort(64, 3))
    assert len(few.published(RUN)) == 7
    # Somebody copies an old part over it: the part of many replicas counts.
    old = source.part_path(RUN, "cpu-b1-l64", 0)
    few.part_path(RUN, "cpu-b1-l64", 0).write_bytes(old.read_bytes())  # type: ignore[union-attr]
    for table in (few.read_measurements(), few.dataset().to_table()):
        identity = list(zip(*(table[name].to_pylist() for name in ("cell", "replica")), strict=True))
        assert len(identity) == len(set(identity)) == 7 * 5


def test_a_damaged_part_is_left_out_and_named(source: Store, tmp_path: Path) -> None:
    damaged = source.part_path(RUN, *KEYS[0])
    damaged.write_bytes(b"PAR1 nonsense")  # type: ignore[union-attr]
    written = compact(source.root, tmp_path / "few", Silent())
    assert written.replicas == 5
    assert str(damaged) in written.left_out[0]


def test_one_wrong_row_in_a_compacted_part_is_found(source: Store, tmp_path: Path) -> None:
    compact(source.root, tmp_path / "few", Silent())
    (part,) = (tmp_path / "few" / "measurements" / RUN).glob("*.parquet")
    table = pq.read_table(part, partitioning=None)
    threads = table["threads"].to_pylist()
    values = pa.array([threads[0] + 1, *threads[1:]], table["threads"].type)
    changed = table.set_column(table.column_names.index("threads"), table.field("threads"), values)
    pq.write_table(changed, part)
    (found,) = Store(tmp_path / "few", read_only=True).damaged(RUN)
    assert "checksum" in found.why


def test_a_part_that_does_not_read_back_is_an_error(
    source: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary = Store.publish_part
    monkeypatch.setattr(Store, "publish_part", lambda store, path, content: ordinary(store, path, content[:-200]))
    with pytest.raises(ResultsError, match="read back"):
        compact(source.root, tmp_path / "few", Silent())


def test_results_that_are_there_are_never_mixed_with_others(source: Store) -> None:
    with pytest.raises(RequestError, match="holds results already"):
        compact(source.root, source.root, Silent())


@pytest.mark.parametrize("inside", ["few", "measurements", "measurements/few"])
def test_a_destination_inside_the_source_is_refused(source: Store, tmp_path: Path, inside: str) -> None:
    before = _snapshot(tmp_path / "source")
    with pytest.raises(RequestError, match="is inside"):
        compact(source.root, f"file://{tmp_path}/other/../source/{inside}", Silent())
    assert _snapshot(tmp_path / "source") == before


def test_a_destination_around_the_source_is_refused(source: Store, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is around"):
        compact(source.root, tmp_path, Silent())
