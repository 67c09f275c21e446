"""The same results in few large parts elsewhere: written, read back and compared; the source is never touched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from farm import speedups, summaries
from farm.addresses import named_place
from farm.errors import RequestError, ResultsError
from farm.events import Listener, Step
from farm.folders import Place, open_folder
from farm.parts import ReplicaKey, UnsoundPartError, as_parquet, check_part, packed_table
from farm.schemas import MEASUREMENT_SCHEMA
from farm.store import Store

PART_BYTES = 64 * 2**20
"""Of measurements in memory that go into one part, which is a quarter of that or less on disk: large enough that a
thousand replicas are a handful of requests to a bucket, small enough to be made and read back in memory."""

ROW_GROUP_ROWS = 512
"""Some tens of cohort replicas: a question about one cohort need not read the others."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """What was written (runs, their replicas, the parts these are in), and what was left out, with the reason."""

    runs: int
    replicas: int
    parts: int
    rows: int
    left_out: tuple[str, ...]


def compact(source: str | Place, destination: str | Place, listener: Listener) -> Compacted:
    """Write every finished and unfinished run of `source` into few parts at `destination`, and verify them.

    Damaged parts of the source are left out and named. Raises RequestError where there are no results, where the
    destination holds some already, or where one is inside the other; ResultsError where it cannot be written or does
    not read back as it was written.
    """
    reader = Store(source, read_only=True)
    _require_apart(source, destination)
    _require_nothing_there(destination)
    writer = Store(destination)
    runs = sorted(reader.measured_runs())
    replicas = parts = rows = 0
    for run in runs:
        listener.on(Step(f"read {run}", 0, 1))
        whole = len(reader.published(run))
        done = 0
        for number, (keys, table) in enumerate(_batches(reader, run)):
            _publish(writer, run, number, keys, table)
            replicas, parts, rows = replicas + len(keys), parts + 1, rows + table.num_rows
            done += len(keys)
            listener.on(Step(f"compact {run}", done, whole))
        speedups.carry_over(reader, writer, run)
        summaries.write_summaries(writer, run)
    for record in reversed(reader.runs()):
        writer.write_run(record)
    left_out = [each for run in runs for each in reader.damaged(run)] + reader.unreadable_runs()
    return Compacted(len(runs), replicas, parts, rows, tuple(f"{each.path}: {each.why}" for each in left_out))


def _require_apart(source: str | Place, destination: str | Place) -> None:
    """Refuse one place within the other: what is written would be read as part of what was there, or lie about."""
    steps = [_steps(source), _steps(destination)]
    outer, inner = sorted(steps, key=len)
    if outer != inner and inner[: len(outer)] == outer:
        where = "inside" if inner == steps[1] else "around"
        raise RequestError(f"{destination} is {where} {source}; compact into an empty place of its own")


def _steps(place: str | Place) -> tuple[str, ...]:
    """The names on the way to a place, from its root or bucket."""
    named = named_place(str(place))
    return PurePosixPath(named).parts if "://" in named else Path(named).resolve().parts


def _require_nothing_there(destination: str | Place) -> None:
    folder = open_folder(destination)
    if folder.folders("measurements") or folder.files("runs", ".json"):
        raise RequestError(f"{destination} holds results already; compact into an empty place")


def _batches(reader: Store, run: str) -> Iterator[tuple[list[ReplicaKey], pa.Table]]:
    """The replicas of a run, so many together as make a part."""
    pending: dict[ReplicaKey, pa.Table] = {}
    held_bytes = 0
    for path in dict.fromkeys(reader.published(run).values()):
        for key, table in _replicas(reader, path):
            pending[key] = table
            held_bytes += table.nbytes
        if held_bytes >= PART_BYTES:
            yield list(pending), packed_table(pending)
            pending, held_bytes = {}, 0
    if pending:
        yield list(pending), packed_table(pending)


def _replicas(reader: Store, path: Place) -> Iterator[tuple[ReplicaKey, pa.Table]]:
    """What a sound part holds, replica by replica, in today's columns."""
    table = pq.read_table(pa.BufferReader(reader.read_part(path)), partitioning=None)
    unknown = sorted(set(table.column_names) - set(MEASUREMENT_SCHEMA.names))
    if unknown:
        raise RequestError(f"{path}: written by a newer farm (it has {', '.join(unknown)}); compact with that release")
    missing = [field for field in MEASUREMENT_SCHEMA if field.name not in table.column_names]
    for field in missing:
        table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    table = table.select(MEASUREMENT_SCHEMA.names).cast(MEASUREMENT_SCHEMA)
    keys = [(str(row["cohort"]), int(row["replica"])) for row in table.select(["cohort", "replica"]).to_pylist()]
    for key in dict.fromkeys(keys):
        first = keys.index(key)
        yield key, table.slice(first, keys.count(key))


def _publish(writer: Store, run: str, number: int, keys: list[ReplicaKey], table: pa.Table) -> None:
    """Write one part, read it back from where it was written, and hold it against what was to be written."""
    path = writer.part_path(run, "compacted", number)
    if not writer.publish_part(path, as_parquet(table, ROW_GROUP_ROWS)):
        raise ResultsError(f"{path} appeared while it was being written; compact into a place of its own")
    try:
        content = writer.read_part(path)
        same = check_part(content, run, path.name) == keys and pq.read_table(pa.BufferReader(content)).equals(table)
    except UnsoundPartError as error:
        raise ResultsError(f"{path} does not read back as it was written: {error}") from error
    if not same:
        raise ResultsError(f"{path} does not read back as it was written; the source is as it was")
