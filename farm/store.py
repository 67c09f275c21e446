"""Results on disk or in a bucket: run records, measurement parts published exactly once, speedups derived from them.

    <root>/runs/<run>.json                                    what was asked, and of which machine
    <root>/measurements/<run>/<cohort>-<replica>.parquet      the truth: one row per cell; never rewritten
    <root>/speedups/<run>.parquet                             derived; rebuilt from the measurements at any time
    <root>/summaries/<run>/<kind>.parquet                     the same, for queries that ask for no samples

Names that begin with a dot (unfinished writes) or an underscore (damaged parts set aside) are ignored by every
reader here, and by pandas, pyarrow and DuckDB's `*.parquet`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from farm.errors import RequestError, ResultsError
from farm.folders import Entry, Place, open_folder
from farm.inspection import CHECKED_PARQUET, Inspector, by_replica, each, without_doubles
from farm.parts import ReplicaKey, UnsoundPartError, as_parquet, check_part, replica_table
from farm.patience import patiently
from farm.schemas import MEASUREMENT_SCHEMA

PARTS_KEY = b"farm.parts"
"""Key in the speedups file's metadata: the parts it was derived from, and how."""


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
    """Those whose nodes were up when it began, or joined it later."""
    measured_classes: list[str] = []
    """Those of which nothing is missing."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """A file that cannot be used, and why."""

    path: Place
    why: str


class Store:
    """A folder of results, on a disk or in a bucket. All methods raise ResultsError where it cannot be read or written.

    Opening one to write makes the folder and tries it (ResultsError says what to do); opening it `read_only`
    touches nothing and raises RequestError where there are no results.

    Parts are looked at in two ways. `published`, `damaged` and `read_measurements` read each one whole and hold its
    rows against their hash, once: for whoever resumes a run or derives from it. `quick_parts` and `dataset` read its
    footer: for whoever asks many of them a question.
    """

    def __init__(self, root: str | Place, read_only: bool = False) -> None:
        self._folder = open_folder(root)
        self.root: Place = self._folder.root
        self.read_only = read_only
        self._parts = Inspector(self._folder)
        if not read_only:
            self._folder.require_writable()
        elif not any(self._folder.exists(self.root / name) for name in ("runs", "measurements")):
            raise RequestError(f"no results in {self.root}: `farm run` makes them, or name another folder")

    def write_run(self, record: RunRecord) -> None:
        """Record a new run; raises ResultsError if one of that name is there."""
        path = self._run_path(record.run)
        if not self._folder.create_exclusively(path, _as_json(record)):
            raise ResultsError(f"{path}: a run of this name is there already; run the command again for a new name")

    def finish_run(self, run: str, finished_unix_ns: int | None = None) -> RunRecord:
        """Mark a run finished (now, unless a time is given), so that the same command starts a new one."""
        finished = time.time_ns() if finished_unix_ns is None else finished_unix_ns
        record = self.run(run).model_copy(update={"finished_unix_ns": finished})
        self._folder.replace(self._run_path(run), _as_json(record))
        return record

    def note_classes(self, run: str, met: Iterable[str], unfinished: Collection[str]) -> RunRecord:
        """Add hardware classes to a run's record, and note that all is measured of those that are not `unfinished`."""
        record = self.run(run)
        classes = sorted({*record.hardware_classes, *met})
        measured = sorted({*record.measured_classes, *met} - set(unfinished))
        noted = record.model_copy(update={"hardware_classes": classes, "measured_classes": measured})
        if noted != record:
            self._folder.replace(self._run_path(run), _as_json(noted))
        return noted

    def run(self, run: str) -> RunRecord:
        """The record of one run; raises RequestError where there is none, ResultsError where it is unreadable."""
        found = self._try_run(run)
        if isinstance(found, Damaged):
            raise ResultsError(found.why)
        if found is None:
            known = ", ".join(record.run for record in self.runs()[:5]) or "none"
            raise RequestError(f"no run {run} in {self.root}; the newest there: {known}")
        return found

    def runs(self) -> list[RunRecord]:
        """All sound run records, newest first; `unreadable_runs` names the others."""
        found = [
            record for record in each(self._folder, self._try_run, self._run_names()) if isinstance(record, RunRecord)
        ]
        return sorted(found, key=lambda record: (record.created_unix_ns, record.run), reverse=True)

    def unreadable_runs(self) -> list[Damaged]:
        """Run records that cannot be read, each with the reason."""
        tried = each(self._folder, self._try_run, self._run_names())
        return [damaged for damaged in tried if isinstance(damaged, Damaged)]

    def publish_replica(self, run: str, cohort: str, replica: int, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Publish one cohort replica, all of it or nothing; False if it was published before, and left as it is.

        `rows` follow MEASUREMENT_SCHEMA; columns left out are null. Raises ValueError on columns the schema does not
        know and on rows that belong elsewhere, ResultsError where writing fails (then nothing is published).
        """
        path = self.part_path(run, cohort, replica)
        return self._folder.create_exclusively(path, as_parquet(replica_table(run, cohort, replica, rows)))

    def part_path(self, run: str, cohort: str, replica: int) -> Place:
        """Where a cohort replica is published."""
        return self.root / "measurements" / run / f"{cohort}-{replica}.parquet"

    def has_replica(self, run: str, cohort: str, replica: int) -> bool:
        """Whether a cohort replica is published, sound or not: one look, whatever else there is."""
        return self._folder.exists(self.part_path(run, cohort, replica))

    def publish_part(self, path: Place, content: bytes) -> bool:
        """Publish a part that was made elsewhere, whole; False if there is one of its name."""
        return self._folder.create_exclusively(path, content)

    def read_part(self, path: Place) -> bytes:
        """The bytes of a part."""
        return self._folder.read(path)

    def listed(self, run: str) -> list[Entry]:
        """The files of a run's parts, damaged ones too; none is opened."""
        return self._folder.files(f"measurements/{run}", ".parquet")

    def published(self, run: str, cohort: str | None = None) -> dict[ReplicaKey, Place]:
        """The sound parts of a run, or of one cohort of it, by (cohort, replica); `damaged` names the others."""
        return by_replica(self._parts.checked(run), cohort)

    def damaged(self, run: str) -> list[Damaged]:
        """Parts of a run that cannot be read or are not what their name says, with the reason."""
        return [Damaged(part.path, part.why) for part in self._parts.checked(run) if part.why is not None]

    def quick_parts(self, run: str) -> dict[ReplicaKey, Place]:
        """The parts of a run whose footer can be read, by (cohort, replica): one small read for each, and remembered.

        A part that was damaged in the middle is among them; reading it through `dataset` is then an error.
        """
        return by_replica(self._parts.skimmed(run))

    def quick_damaged(self, run: str) -> list[Damaged]:
        """The parts of a run that `quick_parts` leaves out, with the reason."""
        return [Damaged(part.path, part.why) for part in self._parts.skimmed(run) if part.why is not None]

    def dataset(self, runs: Iterable[str] | None = None, columns: Sequence[str] | None = None) -> ds.Dataset:
        """The measurements of some runs, or of all, to be scanned: MEASUREMENT_SCHEMA, or the columns asked for, oldest
        run first. With few columns each part is opened in two thirds of the time.

        Nothing but footers is read before it is scanned; columns that an older farm did not write are null. Pages are
        held against their checksums in the scan, which raises OSError at a damaged one (`damaged` then says which).
        """
        names = sorted(self.measured_runs() if runs is None else runs)
        skimmed = [part for run in names for part in without_doubles(self._parts.skimmed(run))]
        fragments = [part.fragment for part in skimmed if part.fragment is not None]
        _, files = self._folder.for_arrow(self.root)
        chosen = MEASUREMENT_SCHEMA.names if columns is None else columns
        schema = pa.schema([MEASUREMENT_SCHEMA.field(name) for name in chosen])
        return ds.FileSystemDataset(fragments, schema, CHECKED_PARQUET, files)

    def set_aside(self, part: Place) -> Place | None:
        """Rename a damaged part to `_<name>.damaged`, so that its replica can be measured again; the new path.

        None where there is nothing to rename any more: another farm did, and may have measured it again by now.
        The underscore keeps it out of `pandas.read_parquet(folder)`.
        """
        with suppress(FileNotFoundError):
            content = patiently(lambda: self._folder.read(part))
            try:
                check_part(content, part.parent.name, part.name)
            except UnsoundPartError:
                aside: Place = self._folder.set_aside(part)
                return aside
        return None

    def measured_runs(self) -> list[str]:
        """Names of the runs that have a folder of measurements, newest first."""
        return self._folder.folders("measurements")[::-1]

    def read_measurements(
        self, run: str | None = None, columns: Sequence[str] | None = None, cohort: str | None = None
    ) -> pa.Table:
        """The measurements of one run, of one cohort of it, or of all runs: MEASUREMENT_SCHEMA, or the columns asked
        for, oldest run first.

        Damaged parts are left out (`damaged` names them). Columns that an older farm did not write are null.
        Raises RequestError where there is no such run.
        """
        if run is not None and run not in self.measured_runs():
            self.run(run)
        names = [run] if run is not None else sorted(self.measured_runs())
        parts = [path for name in names for path in self.published(name, cohort).values()]
        return self.read_parts(parts, columns, cohort)

    def read_parts(
        self, parts: Iterable[Place], columns: Sequence[str] | None = None, cohort: str | None = None
    ) -> pa.Table:
        """The measurements in sound parts, of one cohort or of all: MEASUREMENT_SCHEMA, or the columns asked for."""
        distinct = dict.fromkeys(parts)
        wanted = list(columns) if columns is not None else None
        if not distinct:
            empty = MEASUREMENT_SCHEMA.empty_table()
            return empty.select(wanted) if wanted is not None else empty
        _, files = self._folder.for_arrow(self.root)
        paths = [self._folder.for_arrow(path)[0] for path in distinct]
        # A part of many replicas holds other cohorts, too.
        own = None if cohort is None else ds.field("cohort") == cohort

        def read() -> pa.Table:
            try:
                dataset = ds.dataset(paths, schema=MEASUREMENT_SCHEMA, format="parquet", filesystem=files)
                return dataset.to_table(columns=wanted, filter=own)
            except OSError as error:
                raise ResultsError(f"{self.root}: measurements cannot be read ({_first_line(error)})") from error

        return patiently(read)

    def write_log(self, run: str, name: str, content: bytes) -> None:
        """Put a log of a run in place, whole."""
        self._folder.replace(self.root / "logs" / run / name, content)

    def logs(self, run: str) -> Iterator[tuple[str, bytes]]:
        """The logs of a run by name, each read when it is asked for."""
        for entry in self._folder.files(f"logs/{run}", ".jsonl"):
            yield entry.place.name, self._folder.read(entry.place)

    def write_speedups(self, run: str, table: pa.Table) -> Place:
        """Put a run's derived speedups in place of the former ones, in one step; their path."""
        path = self._speedups_path(run)
        self._folder.replace(path, as_parquet(table))
        return path

    def read_speedups(self, run: str) -> pa.Table | None:
        """The stored speedups of a run, metadata included; None where there are none that can be read: they are derived
        from the measurements, so that is no loss."""
        return self._read_derived(self._speedups_path(run))

    def write_summary(self, run: str, kind: str, table: pa.Table) -> Place:
        """Put a summary of a run's measurements in place of the former one, in one step; its path."""
        path = self._summary_path(run, kind)
        self._folder.replace(path, as_parquet(table))
        return path

    def read_summary(self, run: str, kind: str) -> pa.Table | None:
        """The stored summary, metadata included; None where there is none that can be read: it is derived, too."""
        return self._read_derived(self._summary_path(run, kind))

    def _read_derived(self, path: Place) -> pa.Table | None:
        try:
            content = pa.BufferReader(self._folder.read(path))
            return pq.read_table(content, page_checksum_verification=True, partitioning=None)
        except (OSError, ResultsError, pa.ArrowException):
            return None

    def _run_path(self, run: str) -> Place:
        return self.root / "runs" / f"{run}.json"

    def _speedups_path(self, run: str) -> Place:
        return self.root / "speedups" / f"{run}.parquet"

    def _summary_path(self, run: str, kind: str) -> Place:
        return self.root / "summaries" / run / f"{kind}.parquet"

    def _run_names(self) -> list[str]:
        return [entry.place.stem for entry in self._folder.files("runs", ".json")]

    def _try_run(self, run: str) -> RunRecord | Damaged | None:
        """None where there is none. Raises ResultsError where the file cannot be read, whatever is in it."""
        path = self._run_path(run)
        try:
            return RunRecord.model_validate_json(patiently(lambda: self._folder.read(path)))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            why = str(error).splitlines()[0]
            return Damaged(path, f"{path}: unreadable run record ({why}); move it away to go on")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _as_json(record: RunRecord) -> bytes:
    return record.model_dump_json(indent=2).encode()
