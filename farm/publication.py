"""Files that appear whole or not at all: exclusive creation, atomic replacement, and a folder tried beforehand."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from farm.errors import ResultsError


def require_writable(folder: Path) -> None:
    """Make `folder` and try in it what publishing needs; raises ResultsError that says what to do."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _temporary(folder / "probe", b"") as temporary:
            linked = temporary.with_name(temporary.name + "-link")
            os.link(temporary, linked)
            linked.unlink()
    except OSError as error:
        raise ResultsError(
            f"results folder {folder} cannot be written ({error.strerror or error}): "
            "name another with --results; it must be on a disk that can make hard links"
        ) from error


def create_exclusively(path: Path, content: bytes) -> bool:
    """Create `path` with `content`, whole and flushed to disk; False, and nothing changed, if the name exists.

    Of several processes exactly one succeeds. Raises ResultsError where writing fails; then `path` does not exist.
    """
    with _explained(path):
        _make_folder(path.parent)
        if path.exists():
            return False
        with _temporary(path, content) as temporary:
            created = _link(temporary, path)
        _flush_folder(path.parent)
    return created


def replace(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step: a reader sees the old file or the new one. ResultsError on failure."""
    with _explained(path):
        _make_folder(path.parent)
        with _temporary(path, content) as temporary:
            temporary.replace(path)
        _flush_folder(path.parent)


def set_aside(path: Path) -> Path:
    """Rename `path` to `_<name>.damaged` (or `.damaged2`, ...); the new path. Nothing is overwritten.

    Raises FileNotFoundError where it is gone.
    """
    for number in count(1):
        aside = path.with_name(f"_{path.name}.damaged{number if number > 1 else ''}")
        try:
            with _explained(path):
                if create_name(path, aside):
                    _flush_folder(path.parent)
                    break
        except ResultsError:
            if path.exists():
                raise
            raise FileNotFoundError(path) from None
    return aside


def create_name(path: Path, other: Path) -> bool:
    """Move `path` to `other` unless that name exists."""
    if not _link(path, other):
        return False
    path.unlink()
    return True


def _link(existing: Path, new: Path) -> bool:
    try:
        os.link(existing, new)
    except FileExistsError:
        # A network file system may repeat a request whose answer was lost, and then refuse its own link.
        return new.exists() and new.samefile(existing)
    return True


@contextmanager
def _temporary(path: Path, content: bytes) -> Iterator[Path]:
    """A flushed file beside `path`, of a name no other process uses and no reader looks at; gone afterwards."""
    name = f".{path.name}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
    temporary = path.with_name(name)
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _flush_folder(folder.parent)


def _flush_folder(folder: Path) -> None:
    # A name is safe from power loss only once its folder is flushed, too.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResultsError(
            f"{path} cannot be written ({error.strerror or error}): nothing of it was published. "
            "Free space or mend the folder, then give the same command again: it goes on from what is there"
        ) from error
