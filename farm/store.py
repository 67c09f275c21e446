"""Results on disk: run records, measurement parts published exactly once, speedups derived from them.

    <root>/runs/<run>.json                                    what was asked, and of which machine
    <root>/measurements/<run>/<cohort>-<replica>.parquet      the truth: one row per cell; never rewritten
    <root>/speedups/<run>.parquet                             derived; rebuilt from the measurements at any time

Names that begin with a dot (unfinished writes) or an underscore (damaged parts set aside) are ignored by every
reader here, and by pandas, pyarrow and DuckDB's `*.parquet`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from farm import publication
from farm.errors import RequestError, ResultsError
from farm.schemas import MEASUREMENT_SCHEMA

PARTS_KEY = b"farm.parts"
"""Key in the speedups file's metadata: the parts it was derived from, and how."""

CONTENT_KEY = b"farm.content_sha256"
"""Key in a part's metadata: hash of its rows, because a Parquet page's checksum does not cover the page's header."""


class RunRecord(BaseModel):
    """What was asked for in one run, and where it ran; written before anything is measured."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    run: str
    created_unix_ns: int
    finished_unix_ns: int | None = None
    request_sha256: str
    suite: dict[str, Any]
    model: dict[str, Any]
    environment: dict[str, Any]
    farm_version: str
    command: str
    hardware_classes: list[str] = []
    """Those whose nodes were up when it began."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """A file that cannot be used, and why."""

    path: Path
    why: str


class Store:
    """A folder of results. All methods raise ResultsError where the folder cannot be read or written.

    Opening one to write makes the folder and tries it (ResultsError says what to do); opening it `read_only`
    touches nothing and raises RequestError where there are no results.
    """

    def __init__(self, root: str | Path, read_only: bool = False) -> None:
        if "://" in str(root):
            raise RequestError(f"results folder {root}: only local folders are supported; mount it, or copy results")
        self.root = Path(root)
        self.read_only = read_only
        self._why_unsound: dict[tuple[Path, int, int], str | None] = {}
        if not read_only:
            publication.require_writable(self.root)
        elif not (self.root / "runs").is_dir() and not (self.root / "measurements").is_dir():
            raise RequestError(f"no results in {self.root}: `farm run` makes them, or name another folder")

    def write_run(self, record: RunRecord) -> None:
        """Record a new run; raises ResultsError if one of that name is there."""
        path = self._run_path(record.run)
        if not publication.create_exclusively(path, _as_json(record)):
            raise ResultsError(f"{path}: a run of this name is there already; run the command again for a new name")

    def finish_run(self, run: str, finished_unix_ns: int | None = None) -> RunRecord:
        """Mark a run finished (now, unless a time is given), so that the same command starts a new one."""
        finished = time.time_ns() if finished_unix_ns is None else finished_unix_ns
        record = self.run(run).model_copy(update={"finished_unix_ns": finished})
        publication.replace(self._run_path(run), _as_json(record))
        return record

    def run(self, run: str) -> RunRecord:
        """The record of one run; raises RequestError where there is none, ResultsError where it is unreadable."""
        path = self._run_path(run)
        if not path.is_file():
            known = ", ".join(record.run for record in self.runs()[:5]) or "none"
            raise RequestError(f"no run {run} in {self.root}; the newest there: {known}")
        try:
            return RunRecord.model_validate_json(path.read_bytes())
        except (ValidationError, OSError) as error:
            why = str(error).splitlines()[0]
            raise ResultsError(f"{path}: unreadable run record ({why}); move it away to go on") from error

    def runs(self) -> list[RunRecord]:
        """All readable run records, newest first; `unreadable_runs` names the others."""
        found = [record for record in map(self._try_run, self._run_names()) if isinstance(record, RunRecord)]
        return sorted(found, key=lambda record: (record.created_unix_ns, record.run), reverse=True)

    def unreadable_runs(self) -> list[Damaged]:
        """Run records that cannot be read, each with the reason."""
        return [damaged for damaged in map(self._try_run, self._run_names()) if isinstance(damaged, Damaged)]

    def publish_replica(self, run: str, cohort: str, replica: int, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Publish one cohort replica, all of it or nothing; False if it was published before, and left as it is.

        `rows` follow MEASUREMENT_SCHEMA; columns left out are null. Raises ValueError on columns the schema does not
        know and on rows that belong elsewhere, ResultsError where writing fails (then nothing is published).
        """
        path = self.part_path(run, cohort, replica)
        return publication.create_exclusively(path, _as_parquet(_measurements(run, cohort, replica, rows)))

    def part_path(self, run: str, cohort: str, replica: int) -> Path:
        """Where a cohort replica is published."""
        return self.root / "measurements" / run / f"{cohort}-{replica}.parquet"

    def has_replica(self, run: str, cohort: str, replica: int) -> bool:
        """Whether a cohort replica is published, sound or not: one look, whatever else there is."""
        return self.part_path(run, cohort, replica).is_file()

    def published(self, run: str) -> dict[tuple[str, int], Path]:
        """The sound parts of a run, by (cohort, replica); `damaged` names the others."""
        sound = [path for path in self._part_paths(run) if self._unsound(path) is None]
        return {_part_name(path): path for path in sound}

    def damaged(self, run: str) -> list[Damaged]:
        """Parts of a run that cannot be read or are not what their name says, with the reason."""
        checked = [(path, self._unsound(path)) for path in self._part_paths(run)]
        return [Damaged(path, why) for path, why in checked if why is not None]

    def set_aside(self, part: Path) -> Path:
        """Rename a damaged part to `_<name>.damaged`, so that its replica can be measured again; the new path.

        The underscore keeps it out of `pandas.read_parquet(folder)`.
        """
        return publication.set_aside(part)

    def measured_runs(self) -> list[str]:
        """Names of the runs that have a folder of measurements, newest first."""
        folder = self.root / "measurements"
        names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
        return sorted((name for name in names if name[0] not in "._"), reverse=True)

    def read_measurements(self, run: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """The measurements of one run, or of all: MEASUREMENT_SCHEMA, or the columns asked for, oldest run first.

        Damaged parts are left out (`damaged` names them). Columns that an older farm did not write are null.
        Raises RequestError where there is no such run.
        """
        if run is not None and run not in self.measured_runs():
            self.run(run)
        names = [run] if run is not None else sorted(self.measured_runs())
        parts = [str(path) for name in names for path in self.published(name).values()]
        if not parts:
            empty = MEASUREMENT_SCHEMA.empty_table()
            return empty.select(list(columns)) if columns is not None else empty
        dataset = ds.dataset(parts, schema=MEASUREMENT_SCHEMA, format="parquet")
        return dataset.to_table(columns=list(columns) if columns is not None else None)

    def write_speedups(self, run: str, table: pa.Table) -> Path:
        """Put a run's derived speedups in place of the former ones, in one step; their path."""
        path = self._speedups_path(run)
        publication.replace(path, _as_parquet(table))
        return path

    def read_speedups(self, run: str) -> pa.Table | None:
        """The stored speedups of a run, metadata included; None where there are none or they cannot be read.

        They are derived from the measurements, so an unreadable file is no loss: it is made again.
        """
        try:
            return pq.read_table(self._speedups_path(run), page_checksum_verification=True, partitioning=None)
        except (OSError, pa.ArrowException):
            return None

    def _run_path(self, run: str) -> Path:
        return self.root / "runs" / f"{run}.json"

    def _speedups_path(self, run: str) -> Path:
        return self.root / "speedups" / f"{run}.parquet"

    def _run_names(self) -> list[str]:
        return sorted(path.stem for path in (self.root / "runs").glob("*.json") if path.name[0] not in "._")

    def _try_run(self, run: str) -> RunRecord | Damaged:
        try:
            return self.run(run)
        except ResultsError as error:
            return Damaged(self._run_path(run), str(error))

    def _part_paths(self, run: str) -> list[Path]:
        folder = self.root / "measurements" / run
        paths = [path for path in folder.glob("*.parquet") if path.name[0] not in "._"]
        return sorted(paths, key=_part_name)

    def _unsound(self, path: Path) -> str | None:
        # Parts never change, so each is read whole (checksums and all) once; a part is small.
        stat = path.stat()
        key = (path, stat.st_size, stat.st_mtime_ns)
        if key not in self._why_unsound:
            self._why_unsound[key] = _why_unsound(path)
        return self._why_unsound[key]


def _measurements(run: str, cohort: str, replica: int, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    if not rows:
        raise ValueError("a replica without rows cannot be published")
    unknown = sorted({name for row in rows for name in row} - set(MEASUREMENT_SCHEMA.names))
    if unknown:
        raise ValueError(f"columns unknown to MEASUREMENT_SCHEMA: {', '.join(unknown)}")
    strangers = [row for row in rows if (row["run"], row["cohort"], row["replica"]) != (run, cohort, replica)]
    if strangers:
        raise ValueError(f"{len(strangers)} rows do not belong to run {run}, cohort {cohort}, replica {replica}")
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=MEASUREMENT_SCHEMA)
    return table.replace_schema_metadata({CONTENT_KEY: _sha256(table.to_pylist())})


def _sha256(rows: list[dict[str, Any]]) -> bytes:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest().encode()


def _as_json(record: RunRecord) -> bytes:
    return record.model_dump_json(indent=2).encode()


def _as_parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue().to_pybytes()


def _part_name(path: Path) -> tuple[str, int]:
    cohort, _, replica = path.stem.rpartition("-")
    return (cohort, int(replica)) if cohort and replica.isdecimal() else (path.stem, -1)


def _why_unsound(path: Path) -> str | None:
    try:
        table = pq.read_table(path, page_checksum_verification=True, partitioning=None)
        rows = table.to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        return str(error).splitlines()[0]
    missing = {"run", "cohort", "replica", "status"} - set(table.column_names)
    if missing or not rows:
        return f"not a part of measurements: without {', '.join(sorted(missing)) or 'rows'}"
    if (table.schema.metadata or {}).get(CONTENT_KEY) != _sha256(rows):
        return "its rows are not those that were written (checksum)"
    identity = {(row["run"], row["cohort"], row["replica"]) for row in rows}
    if identity != {(path.parent.name, *_part_name(path))}:
        return f"holds {identity}, which is not what its name says"
    return None
