"""Results in a bucket (`s3://`, `gs://`, or any file system that fsspec knows): one conditional put for each file.

An object appears whole or not at all by itself. That exactly one of several writers creates a name takes a put on the
condition that there is none yet (S3: `If-None-Match: *`; Google's: generation 0), which fsspec calls `mode="create"`.
A file system that accepts the condition and ignores it would lose results, so it is tried before anything is measured.
One that inherits fsspec's own `pipe_file` (SFTP, SMB, FTP, HDFS) looks first and then writes, which a trial without a
rival does not show: it is refused by its type.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.exceptions import FSTimeoutError
from fsspec.spec import AbstractFileSystem
from upath import UPath

from farm.addresses import EXTRAS
from farm.errors import RequestError, ResultsError
from farm.folders import Entry, is_hidden

READERS = 16
"""Requests at once: a bucket answers each within tens of milliseconds, and takes thousands a second."""

ANSWER_S = 60.0
"""How long one request may take, its retries included. Clients limit connecting and reading, but not every wait: s3fs
waits for ever for a server that takes a connection and does not say that it wants the object."""

_S3 = {"config_kwargs": {"connect_timeout": 5, "read_timeout": 15, "retries": {"total_max_attempts": 1}}}


class ObjectFolder:
    """A folder of objects. Credentials are those of the environment, in the way each cloud's own tools find them."""

    readers = READERS

    def __init__(self, address: str) -> None:
        self.root = _open(address.rstrip("/"))
        self._files: Any = self.root.fs
        asynchronous = isinstance(self._files, AsyncFileSystem)
        self._limits: dict[str, Any] = {"timeout": ANSWER_S} if asynchronous else {}

    def require_writable(self) -> None:
        """Create one object twice: the second time must be refused. Then delete it."""
        if not _has_condition(self._files):
            raise ResultsError(
                f"{self.root} cannot create a file on the condition that there is none: two runs could overwrite each "
                "other's results. Name a folder, which may be a mounted one, or a bucket with --results"
            )
        probe = self.root / f".probe.{uuid.uuid4().hex[:8]}"
        with self._explained(self.root, "written", "name another with --results, or mend the access to it"):
            self._files.pipe_file(probe.path, b"first", mode="create", **self._limits)
            try:
                exclusive = not self._put_if_new(probe, b"second")
            finally:
                self._files.rm_file(probe.path, **self._limits)
        if not exclusive:
            raise ResultsError(
                f"{self.root} replaces an object although told to create it only if there is none: two runs could "
                "overwrite each other's results. Name another place with --results"
            )

    def exists(self, place: UPath) -> bool:
        """Whether there is an object of this name, or any below it."""
        with self._explained(place, "read"):
            return bool(self._files.exists(place.path, **self._limits))

    def files(self, below: str, suffix: str) -> list[Entry]:
        """The objects directly in a folder of the root, from one listing."""
        listed = self._list(below)
        found = [
            Entry(self.root / below / name, int(info["size"] or 0), _version(info))
            for name, info in listed.items()
            if info["type"] == "file" and name.endswith(suffix)
        ]
        return sorted(found, key=lambda entry: entry.place.name)

    def folders(self, below: str) -> list[str]:
        """Names of the folders directly in a folder of the root."""
        return sorted(name for name, info in self._list(below).items() if info["type"] == "directory")

    def read(self, place: UPath) -> bytes:
        """An object's content."""
        with self._explained(place, "read"):
            return bytes(self._files.cat_file(place.path, **self._limits))

    def create_exclusively(self, place: UPath, content: bytes) -> bool:
        """Create an object; False if there is one of that name."""
        with self._explained(
            place,
            "written",
            "nothing of it was published. Mend the access, then give the same "
            "command again: it goes on from what is there",
        ):
            return self._put_if_new(place, content)

    def replace(self, place: UPath, content: bytes) -> None:
        """Put an object in place of what was there."""
        with self._explained(place, "written"):
            self._files.pipe_file(place.path, content, **self._limits)

    def set_aside(self, place: UPath) -> UPath:
        """Copy a damaged object to a name of its own, then delete it."""
        content = self.read(place)
        for number in count(1):
            aside = place.with_name(f"_{place.name}.damaged{number if number > 1 else ''}")
            if self.create_exclusively(aside, content):
                break
        with self._explained(place, "deleted"):
            self._files.rm_file(place.path, **self._limits)
        return aside

    def for_arrow(self, place: UPath) -> tuple[str, Any]:
        """A path and the pyarrow file system it is meant for."""
        from pyarrow import fs

        handler: Any = fs.FSSpecHandler
        return place.path, fs.PyFileSystem(handler(self._files))

    def _put_if_new(self, place: UPath, content: bytes) -> bool:
        try:
            self._files.pipe_file(place.path, content, mode="create", **self._limits)
        except OSError:
            # Refused, or done and the answer lost, so that the request was repeated and met its own object. Stores
            # differ in how they word a refusal, so what is there decides.
            if not self._files.exists(place.path, **self._limits):
                raise
            return bool(self._files.cat_file(place.path, **self._limits) == content)
        return True

    def _list(self, below: str) -> dict[str, dict[str, Any]]:
        folder = self.root / below
        with self._explained(folder, "read"):
            try:
                listed = self._files.ls(folder.path, detail=True, **self._limits)
            except FileNotFoundError:
                return {}
        named = {info["name"].rstrip("/").rpartition("/")[2]: info for info in listed}
        return {name: info for name, info in named.items() if not is_hidden(name)}

    @contextmanager
    def _explained(self, place: UPath, done: str, remedy: str = "") -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, ResultsError) as error:
            if isinstance(error, ResultsError) or done == "read":
                raise
            raise ResultsError(_message(place, done, error, remedy)) from error
        except FSTimeoutError as error:
            silent = TimeoutError(f"no answer within {ANSWER_S:.0f} s")
            raise ResultsError(_message(place, done, silent, remedy)) from error
        except Exception as error:  # each file system has exceptions of its own, and no common ancestor of them
            raise ResultsError(_message(place, done, error, remedy)) from error


def _has_condition(files: Any) -> bool:
    """Whether a file system has a way of its own to put an object, rather than fsspec's `exists()`, then `open()`."""
    kind = type(files)
    if isinstance(files, AsyncFileSystem):
        return kind._pipe_file is not AsyncFileSystem._pipe_file
    return kind.pipe_file is not AbstractFileSystem.pipe_file


def _message(place: UPath, done: str, error: Exception, remedy: str) -> str:
    why = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{place} cannot be {done} ({why})" + (f": {remedy}" if remedy else "")


def _open(address: str) -> UPath:
    """A place that `named_place` let through."""
    scheme = address.partition("://")[0]
    # Listings change while others write: a remembered one would miss their parts.
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if EXTRAS.get(scheme) == "s3":
        options |= _S3
    logging.getLogger("asyncio").addFilter(_RAISED_TOO)
    settled = {key: value for key, value in options.items() if key not in fsspec.config.conf.get(scheme, {})}
    try:
        root = UPath(address, **settled)
        root.fs  # noqa: B018 - the file system is made when it is first asked for
    except Exception as error:  # each file system has exceptions of its own, and no common ancestor of them
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RequestError(f"{address}: cannot be opened ({why}). Known: a folder, s3://, gs://, ...") from error
    return root


class _RaisedTooFilter(logging.Filter):
    """asyncio prints a traceback of what a task inside an HTTP client met, which the request itself raises as well."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record says what nobody else does."""
        error = record.exc_info[1] if record.exc_info else None
        return not type(error).__module__.startswith("aiohttp.")


_RAISED_TOO = _RaisedTooFilter()


def _version(info: dict[str, Any]) -> str:
    """What tells one content of a name from another: a tag of the content, or when it was written."""
    known = next((info[key] for key in ("ETag", "etag", "generation") if info.get(key)), None)
    return str(known or info.get("LastModified") or info.get("created") or info.get("mtime"))
