"""Results as lines of a job's log: how a run comes home from a cluster of which only the dashboard can be reached.

Every file is a line of its own with its hash. Files are created where they are not there yet, so bringing a run home
again, or a second time at once, does no harm.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from farm.errors import ResultsError
from farm.folders import Folder, open_folder

MARK = "@file "
MORE = "@more"

MOST_BYTES = 48 * 2**20
"""What one delivery carries: its log is fetched and held whole, here and in the cluster's dashboard."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """Files of one kind: where they lie, and whether a newer one takes the place of an older one."""

    below: str
    suffix: str
    replaced: bool


def at_home(results: str, run: str) -> list[str]:
    """Names of the files of a run that need not be sent again: those that never change."""
    folder = open_folder(results)
    return [name for name, _, kind in _files(folder, run) if not kind.replaced]


def lines_of(results: str, run: str, at_home: Collection[str]) -> Iterator[str]:
    """The files of a run that are not at home, a line each, up to `MOST_BYTES`; `MORE` last where that was not all."""
    folder = open_folder(results)
    sent = 0
    for name, place, _ in _files(folder, run):
        if name in at_home:
            continue
        content = folder.read(place)
        if sent and sent + len(content) > MOST_BYTES:
            yield MORE
            return
        sent += len(content)
        yield f"{MARK}{name} {hashlib.sha256(content).hexdigest()} {base64.b64encode(content).decode()}"


class Unpacked(NamedTuple):
    """What a delivery brought, by name, and whether there is more to ask for."""

    names: list[str]
    more: bool


def unpack(lines: Iterable[str], results: str, run: str) -> Unpacked:
    """Put the files of a log into `results`.

    Raises ResultsError where they cannot be written, or a line did not arrive as it was sent.
    """
    folder = open_folder(results)
    folder.require_writable()
    told = list(lines)
    names = [_take(folder, run, line) for line in told if line.startswith(MARK)]
    return Unpacked(names, more=MORE in map(str.strip, told))


def _take(folder: Folder[Any], run: str, line: str) -> str:
    name, _, rest = line.removeprefix(MARK).partition(" ")
    sha256, _, encoded = rest.strip().partition(" ")
    kind = next((kind for kind in _kinds(run) if _holds(kind, name)), None)
    with suppress(ValueError):  # not base64: the line was cut
        content = base64.b64decode(encoded)
        if kind is not None and hashlib.sha256(content).hexdigest() == sha256:
            return _put(folder, name, content, kind.replaced)
    raise ResultsError(f"{name} did not arrive as it was sent; attach to the job again to bring it home")


def _put(folder: Folder[Any], name: str, content: bytes, replaced: bool) -> str:
    if replaced:
        folder.replace(folder.root / name, content)
    else:
        folder.create_exclusively(folder.root / name, content)
    return name


def _kinds(run: str) -> tuple[_Kind, ...]:
    return (
        _Kind(f"measurements/{run}", ".parquet", replaced=False),
        _Kind("speedups", ".parquet", replaced=True),
        _Kind(f"summaries/{run}", ".parquet", replaced=True),
        _Kind(f"logs/{run}", ".jsonl", replaced=True),
        _Kind("runs", ".json", replaced=True),  # last: a run that is listed at home has its measurements there
    )


def _files(folder: Folder[Any], run: str) -> Iterator[tuple[str, Any, _Kind]]:
    for kind in _kinds(run):
        for entry in folder.files(kind.below, kind.suffix):
            if kind.below.endswith(f"/{run}") or entry.place.stem == run:
                yield f"{kind.below}/{entry.place.name}", entry.place, kind


def _holds(kind: _Kind, name: str) -> bool:
    """Whether a name is one of a file of this kind and nothing else: a log must not be able to write elsewhere."""
    below, _, file = name.rpartition("/")
    return below == kind.below and file.endswith(kind.suffix) and not file.startswith((".", "_"))
