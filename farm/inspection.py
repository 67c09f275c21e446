"""Which parts of a run there are, and whether they can be used: read whole, or by their footers alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.dataset as ds

from farm.errors import ResultsError
from farm.folders import Folder, Place
from farm.parts import ReplicaKey, UnsoundPartError, check_part, replicas_in
from farm.patience import patiently

CHECKED_PARQUET = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)
"""Holds every page against its checksum in a scan; a damaged one is an OSError."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """A part that was looked at: which replicas it holds, or why it is not used."""

    path: Place
    keys: Sequence[ReplicaKey] = ()
    why: str | None = None
    fragment: Any = None


class Inspector:
    """Looks at parts, at each one once: parts never change. Remembers them by their size and version.

    What cannot be read is not damaged: it is read again, and then ResultsError is raised and nothing remembered.
    A part that somebody moved away since it was listed is none.
    """

    def __init__(self, folder: Folder[Any]) -> None:
        self._folder = folder
        self._whole: dict[tuple[str, int, str], Part] = {}
        self._footers: dict[tuple[str, int, str], Part] = {}

    def checked(self, run: str) -> list[Part]:
        """Every part of a run, read whole once: parts never change."""
        return self._looked_at(run, self._whole, self._read)

    def skimmed(self, run: str) -> list[Part]:
        """Every part of a run, its footer read once."""
        return self._looked_at(run, self._footers, self._skim)

    def _looked_at(
        self, run: str, known: dict[tuple[str, int, str], Part], look: Callable[[Place], Part]
    ) -> list[Part]:
        entries = patiently(lambda: self._folder.files(f"measurements/{run}", ".parquet"))
        keys = {(str(entry.place), entry.size_bytes, entry.version): entry for entry in entries}

        def remember(key: tuple[str, int, str]) -> None:
            with suppress(FileNotFoundError):
                known[key] = patiently(lambda: look(keys[key].place))

        each(self._folder, remember, [key for key in keys if key not in known])
        there = [known[key] for key in keys if key in known]
        return sorted(there, key=lambda part: (part.keys or [(part.path.name, -1)])[0])

    def _read(self, path: Place) -> Part:
        try:
            return Part(path, check_part(self._folder.read(path), path.parent.name, path.name))
        except UnsoundPartError as error:
            return Part(path, why=str(error).splitlines()[0])

    def _skim(self, path: Place) -> Part:
        name, files = self._folder.for_arrow(path)
        try:
            fragment = CHECKED_PARQUET.make_fragment(name, files)
            metadata = fragment.physical_schema.metadata
            return Part(path, replicas_in(path.name, metadata), fragment=fragment)
        except UnsoundPartError as error:
            return Part(path, why=str(error).splitlines()[0])
        except (OSError, pa.ArrowException) as error:
            # Arrow words a broken footer like a store that does not answer; the content tells which it was.
            part = self._read(path)
            if part.why is None:
                raise ResultsError(f"{path} cannot be read ({str(error).splitlines()[0]})") from error
            return part


def each(folder: Folder[Any], look: Callable[[Any], T], things: Sequence[Any]) -> list[T]:
    """What `look` gives for each thing, in their order; so many at once as are worth it in that folder."""
    if folder.readers == 1 or len(things) < 2:
        return list(map(look, things))
    with ThreadPoolExecutor(folder.readers) as pool:
        return list(pool.map(look, things))


def by_replica(parts: Iterable[Part], cohort: str | None = None) -> dict[ReplicaKey, Place]:
    """Where each replica is, in their order: of all cohorts, or of one."""
    found = [(key, part.path) for part in without_doubles(parts) for key in part.keys]
    return dict(sorted((key, path) for key, path in found if cohort in (None, key[0])))


def without_doubles(parts: Iterable[Part]) -> list[Part]:
    """Sound parts, none of which holds what another one does: where a folder was copied over its compacted self, the
    parts of many replicas count."""
    chosen: list[Part] = []
    held: set[ReplicaKey] = set()
    for part in sorted(parts, key=lambda each: -len(each.keys)):
        if part.why is None and held.isdisjoint(part.keys):
            chosen.append(part)
            held.update(part.keys)
    return sorted(chosen, key=lambda each: each.keys[0])
