"""Where results live: a folder on a disk or in a bucket, with the few operations that a store needs of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, Union

from farm import publication
from farm.addresses import named_place
from farm.errors import ResultsError

if TYPE_CHECKING:
    from upath import UPath

Place: TypeAlias = Union[Path, "UPath"]
"""A file or folder: a path of this machine, or of a file system that fsspec knows. They are used alike."""

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as it was listed; `version` changes whenever its content may have."""

    place: Place
    size_bytes: int
    version: str


class Folder(Protocol[P]):
    """A folder of results. Everything raises ResultsError where it cannot be read or written."""

    root: P
    readers: int
    """Files that are worth reading at once: a footer of a local one takes a millisecond of a core, outside Python's
    lock; a bucket answers each after a while."""

    def require_writable(self) -> None:
        """Try what publishing needs; the error says what to do."""

    def exists(self, place: P) -> bool:
        """Whether there is a file or folder of this name."""

    def files(self, below: str, suffix: str) -> list[Entry]:
        """The files directly in a folder of the root, sorted by name; unfinished and damaged ones are left out."""

    def folders(self, below: str) -> list[str]:
        """Names of the folders directly in a folder of the root, sorted."""

    def read(self, place: P) -> bytes:
        """A file's content; FileNotFoundError where it is not there."""

    def create_exclusively(self, place: P, content: bytes) -> bool:
        """Create a file, whole; False, and nothing changed, if the name exists."""

    def replace(self, place: P, content: bytes) -> None:
        """Put content in place of what was there, in one step."""

    def set_aside(self, place: P) -> P:
        """Rename a file to `_<name>.damaged` (or `.damaged2`, ...), overwriting nothing; the new path.

        FileNotFoundError where it is not there any more.
        """

    def for_arrow(self, place: P) -> tuple[str, Any]:
        """A path and the pyarrow file system it is meant for."""


def open_folder(root: str | Place) -> Folder[Any]:
    """The folder that a user named: `scheme://` is a file system of fsspec's, anything else a local path.

    Raises RequestError where there can be no results, as `named_place` does.
    """
    place = named_place(str(root))
    if "://" in place:
        from farm.objects import ObjectFolder

        return ObjectFolder(place)
    return LocalFolder(Path(place))


def is_hidden(name: str) -> bool:
    """Whether a name is of an unfinished write or of a damaged part: not a result."""
    return name[:1] in ("", ".", "_")


class LocalFolder:
    """A folder on a disk or a mounted file system."""

    readers = min(8, os.cpu_count() or 1)

    def __init__(self, root: Path) -> None:
        self.root = root

    def require_writable(self) -> None:
        """Make the folder, and try in it what publishing needs."""
        publication.require_writable(self.root)

    def exists(self, place: Path) -> bool:
        """Whether there is a file or folder of this name."""
        return place.exists()

    def files(self, below: str, suffix: str) -> list[Entry]:
        """The files directly in a folder of the root."""
        with _explained(self.root / below):
            found = [path for path in (self.root / below).glob(f"*{suffix}") if not is_hidden(path.name)]
            entries = [entry for path in found if (entry := _entry(path))]
        return sorted(entries, key=lambda entry: entry.place.name)

    def folders(self, below: str) -> list[str]:
        """Names of the folders directly in a folder of the root."""
        folder = self.root / below
        with _explained(folder):
            names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
        return sorted(name for name in names if not is_hidden(name))

    def read(self, place: Path) -> bytes:
        """A file's content."""
        with _explained(place):
            return place.read_bytes()

    def create_exclusively(self, place: Path, content: bytes) -> bool:
        """Create a file, whole and flushed to disk."""
        return publication.create_exclusively(place, content)

    def replace(self, place: Path, content: bytes) -> None:
        """Put content in place of what was there."""
        publication.replace(place, content)

    def set_aside(self, place: Path) -> Path:
        """Rename a damaged file."""
        return publication.set_aside(place)

    def for_arrow(self, place: Path) -> tuple[str, Any]:
        """A path and the pyarrow file system it is meant for."""
        from pyarrow.fs import LocalFileSystem

        return str(place), LocalFileSystem()


def _entry(path: Path) -> Entry | None:
    """None where the file was moved away since its name was read."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return Entry(path, stat.st_size, str(stat.st_mtime_ns))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ResultsError(f"{path} cannot be read ({error.strerror or error})") from error
