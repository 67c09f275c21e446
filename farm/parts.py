"""One part of measurements: rows become the bytes of a Parquet file, and a file read back is believed or not.

A part holds one cohort replica and is named for it; one made by `farm compact` holds many, and its metadata lists them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from farm.schemas import MEASUREMENT_SCHEMA

CONTENT_KEY = b"farm.content_sha256"
"""Key in a part's metadata: hash of its rows, because a Parquet page's checksum does not cover the page's header."""

COMPACTED_KEY = b"farm.compacted"
"""Key in the metadata of a part of many replicas: which they are, each with its rows and their hash."""

SOUGHT_BY = ("run", "hardware_class", "cohort", "name", "length")
"""Columns with statistics in a part's footer, for whoever looks for some rows of a large one."""

ReplicaKey = tuple[str, int]
"""Cohort and number of a replica."""


class UnsoundPartError(ValueError):
    """A part that cannot be believed; the message says why."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A replica inside a part of many: it is the part's next `rows` rows, whose hash is `content_sha256`."""

    cohort: str
    replica: int
    rows: int
    content_sha256: str


def replica_table(run: str, cohort: str, replica: int, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The rows of one replica as a table that carries their hash.

    Raises ValueError on columns that MEASUREMENT_SCHEMA does not know and on rows that belong elsewhere.
    """
    if not rows:
        raise ValueError("a replica without rows cannot be published")
    unknown = sorted({name for row in rows for name in row} - set(MEASUREMENT_SCHEMA.names))
    if unknown:
        raise ValueError(f"columns unknown to MEASUREMENT_SCHEMA: {', '.join(unknown)}")
    strangers = [row for row in rows if (row["run"], row["cohort"], row["replica"]) != (run, cohort, replica)]
    if strangers:
        raise ValueError(f"{len(strangers)} rows do not belong to run {run}, cohort {cohort}, replica {replica}")
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=MEASUREMENT_SCHEMA)
    return table.replace_schema_metadata({CONTENT_KEY: content_sha256(table.to_pylist()).encode()})


def packed_table(replicas: Mapping[ReplicaKey, pa.Table]) -> pa.Table:
    """Replicas one after the other as one table, whose metadata lists them."""
    packed = [
        Packed(cohort, replica, table.num_rows, content_sha256(table.to_pylist()))
        for (cohort, replica), table in replicas.items()
    ]
    listed = json.dumps([asdict(each) for each in packed]).encode()
    whole = pa.concat_tables(table.replace_schema_metadata(None) for table in replicas.values())
    return whole.replace_schema_metadata({COMPACTED_KEY: listed})


def as_parquet(table: pa.Table, row_group_rows: int | None = None) -> bytes:
    """A table as the bytes of a Parquet file with checksums.

    Its footer is kept small, for who asks thousands of parts spends most of the time on footers: the least and the
    greatest of every text and a description of every column would be three quarters of it.
    """
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        write_page_checksum=True,
        write_statistics=list(SOUGHT_BY),
        store_schema=False,
    ) as writer:
        writer.write_table(table, row_group_size=row_group_rows)
        # Arrow leaves it out together with its own schema.
        writer.add_key_value_metadata(
            {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        )
    return sink.getvalue().to_pybytes()


def content_sha256(rows: list[dict[str, Any]]) -> str:
    """Hash of rows, whatever the file they came from."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def name_key(name: str) -> ReplicaKey:
    """The cohort and the replica that a part's file name says it holds; replica -1 where it says none."""
    stem = PurePosixPath(name).stem
    cohort, _, replica = stem.rpartition("-")
    return (cohort, int(replica)) if cohort and replica.isdecimal() else (stem, -1)


def replicas_in(name: str, metadata: Mapping[bytes, bytes] | None) -> list[ReplicaKey]:
    """Which replicas a part holds, by what its footer and its name say. Raises UnsoundPartError."""
    listed = _listed(metadata)
    keys = [(each.cohort, each.replica) for each in listed] if listed is not None else [name_key(name)]
    if not keys or any(replica < 0 for _, replica in keys):
        raise UnsoundPartError("its name is not that of a part (COHORT-REPLICA.parquet)")
    return keys


def check_part(content: bytes, run: str, name: str) -> list[ReplicaKey]:
    """Read a part whole, checksums and all; the replicas it holds. Raises UnsoundPartError."""
    try:
        table = pq.read_table(pa.BufferReader(content), page_checksum_verification=True, partitioning=None)
        rows = table.to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UnsoundPartError(str(error).splitlines()[0]) from error
    missing = {"run", "cohort", "replica", "status"} - set(table.column_names)
    if missing or not rows:
        raise UnsoundPartError(f"not a part of measurements: without {', '.join(sorted(missing)) or 'rows'}")
    metadata = table.schema.metadata or {}
    keys = replicas_in(name, metadata)
    for (cohort, replica), expected, own in _replicas(rows, metadata, keys):
        try:
            found = content_sha256(own)
        except TypeError:  # a damaged footer gave texts back as bytes, which no row holds
            found = None
        if expected != found:
            raise UnsoundPartError("its rows are not those that were written (checksum)")
        identity = {(row["run"], row["cohort"], row["replica"]) for row in own}
        if identity != {(run, cohort, replica)}:
            raise UnsoundPartError(f"holds {identity}, which is not what its name says")
    return keys


def _replicas(
    rows: list[dict[str, Any]], metadata: Mapping[bytes, bytes], keys: Sequence[ReplicaKey]
) -> Iterator[tuple[ReplicaKey, str, list[dict[str, Any]]]]:
    listed = _listed(metadata)
    if listed is None:
        yield keys[0], metadata.get(CONTENT_KEY, b"").decode(), rows
        return
    begin = 0
    for each in listed:
        yield (each.cohort, each.replica), each.content_sha256, rows[begin : begin + each.rows]
        begin += each.rows
    if begin != len(rows):
        raise UnsoundPartError(f"holds {len(rows)} rows instead of {begin}")


def _listed(metadata: Mapping[bytes, bytes] | None) -> list[Packed] | None:
    listed = (metadata or {}).get(COMPACTED_KEY)
    if listed is None:
        return None
    try:
        return [Packed(**each) for each in json.loads(listed)]
    except (ValueError, TypeError) as error:
        raise UnsoundPartError("its list of replicas cannot be read") from error
