"""Results in a bucket: the same promises as in a folder, held against a real S3 server on loopback."""

from __future__ import annotations

import multiprocessing
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import fsspec
import pytest
from buckets import BUCKET, SECRET, outside, served
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem
from measured import RUN, measured_row, run_record, simulated_cohort

from farm import objects, summaries
from farm.errors import RequestError, ResultsError
from farm.objects import ObjectFolder
from farm.query import query
from farm.results import Results
from farm.store import Store

ROOT = f"s3://{BUCKET}/team/results"


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with served() as environment:
        yield environment


@pytest.fixture
def bucket(server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    files = outside(server)
    yield files
    if files.exists(BUCKET + "/team"):
        files.rm(BUCKET + "/team", recursive=True)


@pytest.fixture
def store(bucket: Any) -> Store:
    assert bucket.find(f"{BUCKET}/team") == []
    store = Store(ROOT)
    store.write_run(run_record())
    return store


def rows_of(replica: int = 0, latency_ms: float = 50.0) -> list[dict[str, Any]]:
    return [measured_row("c1", replica, "pytorch", latency_ms)]


def test_a_published_replica_reads_back_as_from_a_folder(store: Store, tmp_path: Path) -> None:
    folder = Store(tmp_path / "results")
    for each in (store, folder):
        each.publish_replica(RUN, "c1", 0, rows_of())
    reader = Store(ROOT, read_only=True)
    assert reader.read_measurements().to_pylist() == folder.read_measurements().to_pylist()
    assert reader.dataset().to_table().to_pylist() == folder.dataset().to_table().to_pylist()
    assert (reader.measured_runs(), reader.runs()) == ([RUN], [run_record()])


def test_a_replica_in_a_bucket_is_one_object_and_never_replaced(store: Store, bucket: Any) -> None:
    assert store.publish_replica(RUN, "c1", 0, rows_of(latency_ms=50.0))
    assert not store.publish_replica(RUN, "c1", 0, rows_of(latency_ms=99.0))
    assert bucket.find(f"{BUCKET}/team/results/measurements") == [
        f"{BUCKET}/team/results/measurements/{RUN}/c1-0.parquet"
    ]
    assert store.read_measurements(RUN)["latency_ns"][0].as_py()[0] == 50_000_000


def _publish(latency_ms: float, gate: Any, won: Queue[float]) -> None:
    store = Store(ROOT)
    rows = rows_of(latency_ms=latency_ms)
    gate.wait(60)
    if store.publish_replica(RUN, "c1", 0, rows):
        won.put(latency_ms)


def test_of_processes_racing_for_a_bucket_exactly_one_publishes(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    gate, won = context.Barrier(2), context.Queue()
    contenders = [context.Process(target=_publish, args=(10.0 * number, gate, won)) for number in (1, 2)]
    for contender in contenders:
        contender.start()
    for contender in contenders:
        contender.join(60)
        assert contender.exitcode == 0
    winner = won.get(timeout=10)
    assert won.empty()
    assert store.read_measurements(RUN)["latency_ns"][0].as_py()[0] == round(winner * 1e6)


def test_an_object_whose_answer_was_lost_still_counts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    files: Any = store.root.fs  # type: ignore[union-attr]
    ordinary_put = files.pipe_file

    def repeated(*arguments: Any, **options: Any) -> None:
        ordinary_put(*arguments, **options)
        ordinary_put(*arguments, **options)  # the client's own retry meets the object that the first try made

    monkeypatch.setattr(files, "pipe_file", repeated)
    assert store.publish_replica(RUN, "c1", 0, rows_of())


def test_a_damaged_object_is_named_left_out_and_can_be_measured_again(store: Store, bucket: Any) -> None:
    for replica in (0, 1):
        store.publish_replica(RUN, "c1", replica, rows_of(replica))
    part = store.part_path(RUN, "c1", 1)
    bucket.pipe_file(part.path, b"PAR1 nonsense")  # type: ignore[union-attr]

    assert list(store.published(RUN)) == list(store.quick_parts(RUN)) == [("c1", 0)]
    assert [each.path for each in store.damaged(RUN)] == [each.path for each in store.quick_damaged(RUN)] == [part]
    aside = store.set_aside(part)
    assert aside is not None and aside.name == "_c1-1.parquet.damaged"
    assert store.damaged(RUN) == []
    assert store.publish_replica(RUN, "c1", 1, rows_of(1))
    assert list(store.published(RUN)) == [("c1", 0), ("c1", 1)]


def test_tables_and_queries_work_from_a_bucket(store: Store) -> None:
    for replica in range(2):
        store.publish_replica(RUN, "cpu-b1-l64", replica, simulated_cohort(64, replica))
    results = Results(ROOT)
    assert "pytorch" in results.table()
    assert results.sql("SELECT count(DISTINCT replica) AS n FROM replicas")["n"].tolist() == [2]


def test_what_a_query_keeps_of_a_bucket_holds_until_the_bucket_changes(
    store: Store, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summaries, "KEPT_FROM_PARTS", 1)
    select = "SELECT max(replicas) AS replicas, max(samples) AS samples FROM cells"
    for replica in range(2):
        store.publish_replica(RUN, "c1", replica, rows_of(replica))
        for _ in range(2):
            found = query(Store(ROOT, read_only=True), select).to_pylist()
            assert found == [{"replicas": replica + 1, "samples": 15 * (replica + 1)}]
    assert {path.suffix for path in (empty_cache / "summaries").iterdir()} == {".parquet"}


def test_a_run_is_finished_in_place_and_the_unreadable_one_is_named(store: Store, bucket: Any) -> None:
    store.finish_run(RUN, finished_unix_ns=5)
    assert store.run(RUN) == run_record(finished_unix_ns=5)
    bucket.pipe_file(f"{BUCKET}/team/results/runs/torn.json", b'{"run": "torn"')
    assert [each.path.name for each in store.unreadable_runs()] == ["torn.json"]
    with pytest.raises(RequestError, match=RUN):
        store.run("20990101T000000Z-0000")
    with pytest.raises(ResultsError, match="already"):
        store.write_run(run_record())


def test_opening_a_bucket_leaves_no_trace_in_it(bucket: Any) -> None:
    Store(ROOT)
    assert bucket.find(BUCKET) == []


def test_a_store_that_ignores_the_condition_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("farm.addresses.LOST_WITH_THE_PROCESS", frozenset())

    class Forgetful(MemoryFileSystem):
        def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
            super().pipe_file(path, value)

    fsspec.register_implementation("memory", Forgetful, clobber=True)
    try:
        with pytest.raises(ResultsError, match="overwrite each other"):
            Store("memory://results")
    finally:
        fsspec.register_implementation("memory", MemoryFileSystem, clobber=True)
    assert MemoryFileSystem.store == {}
    Store("memory://results")


def test_a_store_that_looks_first_and_then_writes_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("farm.addresses.LOST_WITH_THE_PROCESS", frozenset())
    rivals = threading.Barrier(2)

    class Looking(MemoryFileSystem):
        pipe_file = AbstractFileSystem.pipe_file

        def exists(self, path: str, **options: Any) -> bool:
            there = super().exists(path, **options)
            with suppress(threading.BrokenBarrierError):
                rivals.wait(0.2)
            return there

    def wins(content: bytes) -> bool:
        try:
            Looking().pipe_file("/race", content, mode="create")
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:  # both believe to have created it
        assert list(pool.map(wins, (b"first", b"second"))) == [True, True]
    fsspec.register_implementation("memory", Looking, clobber=True)
    try:
        with pytest.raises(ResultsError, match="on the condition that there is none"):
            Store("memory://results")
    finally:
        fsspec.register_implementation("memory", MemoryFileSystem, clobber=True)
        MemoryFileSystem.store.clear()


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ("simplecache::s3://bucket/results", "one file system in another"),
        ("s3://no-such-bucket/results", "does not exist"),
        ("s3://farm:secret@bucket/results", "credentials do not belong"),
        ("nonsense://bucket/results", "nonsense"),
        ("github://owner/repository", "cannot be opened"),
    ],
)
@pytest.mark.usefixtures("bucket")
def test_a_wrong_address_is_one_line_that_says_what_to_do(root: str, words: str) -> None:
    with pytest.raises((RequestError, ResultsError), match=words) as refused:
        Store(root)
    assert "\n" not in str(refused.value)
    assert "secret@" not in str(refused.value)


@pytest.mark.usefixtures("bucket")
def test_a_bucket_that_goes_and_comes_back_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    with served() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        store = Store(ROOT)
        store.publish_replica(RUN, "c1", 0, rows_of())
    with pytest.raises(ResultsError, match="nothing of it was published"):
        store.publish_replica(RUN, "c1", 1, rows_of(1))
    with served(int(environment["AWS_ENDPOINT_URL"].rpartition(":")[2])):
        assert store.publish_replica(RUN, "c1", 1, rows_of(1))
        assert list(store.published(RUN)) == [("c1", 0), ("c1", 1)]


def test_a_bucket_that_takes_the_connection_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "farm")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        with pytest.raises(ResultsError, match="no answer within"):
            Store(ROOT)


@pytest.mark.usefixtures("bucket")
def test_credentials_are_in_no_message_and_no_representation() -> None:
    folder = ObjectFolder(ROOT)
    assert SECRET not in f"{folder.root} {folder.root!r} {Store(ROOT).root!r}"
