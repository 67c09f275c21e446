"""The model's files travel to the nodes that measure: each that lacks them gets them once, through Ray's object store.

Nodes never build or choose a model; they find it by the folder that the driver names, whose content is known by hash.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from farm.errors import FarmError

CHUNK_BYTES = 64 * 2**20
"""Files travel in pieces, so that a node's object store need not hold a model whole."""

LEFT_S = 3600.0
"""After this long nobody writes any more into a folder that is not in its place: who did was killed."""

Files = Mapping[str, tuple[int, str]]
"""By name within the folder: size in bytes and SHA-256."""


class Cargo:
    """A folder that other nodes may need, such as a model's; its path there is the same, or `there`."""

    def __init__(self, folder: str, there: str | None = None) -> None:
        self._folder = Path(folder)
        self._there = there or folder
        self._files: Files | None = None
        self._brought: dict[str, asyncio.Future[None]] = {}

    async def bring(self, node_id: str) -> None:
        """Make sure that the node has the folder, with the same content.

        Raises FarmError where the node cannot keep it, RayError where the node goes away.
        """
        on_its_way = self._brought.get(node_id)
        if on_its_way is None or _failed(on_its_way):
            on_its_way = self._brought[node_id] = asyncio.ensure_future(self._bring(node_id))
            # Whoever waits may be cancelled when the node goes: then nobody asks how this ended.
            on_its_way.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        await asyncio.shield(on_its_way)

    async def _bring(self, node_id: str) -> None:
        if node_id == ray.get_runtime_context().get_node_id():
            return
        if self._files is None:
            self._files = await asyncio.to_thread(describe, self._folder)
        strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
        options = {"num_cpus": 0, "scheduling_strategy": strategy, "max_retries": 0}
        if await ray.remote(has).options(**options).remote(self._there, self._files):
            return
        receiver = ray.remote(Receiver).options(num_cpus=0, scheduling_strategy=strategy).remote(self._there)
        try:
            for name, (size, _) in self._files.items():
                for begin in range(0, max(size, 1), CHUNK_BYTES):
                    piece = await asyncio.to_thread(_piece, self._folder / name, begin)
                    await receiver.take.remote(name, piece)
            problem = await receiver.finish.remote(self._files)
        finally:
            ray.kill(receiver, no_restart=True)
        if problem:
            raise FarmError(f"the model could not be brought to node {node_id}: {problem}")


class Receiver:
    """On a node: collects the pieces of a folder's files and puts the folder in its place, whole or not at all."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        for left in self._folder.parent.glob(f".{self._folder.name}.*"):
            if time.time() - _last_written_s(left) > LEFT_S:
                shutil.rmtree(left, ignore_errors=True)
        self._made = self._folder.with_name(f".{self._folder.name}.{uuid.uuid4().hex[:8]}")

    def take(self, name: str, piece: bytes) -> None:
        """Append a piece to a file."""
        path = self._made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(piece)

    def finish(self, files: Files) -> str:
        """Check every file and flush it to the disk, then name the folder; what is wrong, or nothing."""
        if describe(self._made) != files:
            return "its files did not arrive as they were sent"
        for name in files:
            with (self._made / name).open("rb") as file:
                os.fsync(file.fileno())  # or the kernel would write it while something is timed
        with contextlib.suppress(OSError):
            self._made.rename(self._folder)
        shutil.rmtree(self._made, ignore_errors=True)
        return "" if has(str(self._folder), files) else f"{self._folder} is there with other content; move it away"


def describe(folder: Path) -> Files:
    """The files of a folder, sizes and hashes; those whose name begins with a dot are no part of it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            with path.open("rb") as file:
                found[str(name)] = (path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
    return found


def has(folder: str, files: Files) -> bool:
    """Whether this node has a folder with these files, content and all."""
    path = Path(folder)
    sizes = {name: size for name, (size, _) in files.items()}
    same_size = path.is_dir() and all(
        (path / name).is_file() and (path / name).stat().st_size == size for name, size in sizes.items()
    )
    return same_size and {name: each for name, each in describe(path).items() if name in files} == dict(files)


def _last_written_s(folder: Path) -> float:
    """When anything in a folder was written last; infinite where somebody else is removing it."""
    with contextlib.suppress(FileNotFoundError):
        return max(path.stat().st_mtime for path in [folder, *folder.rglob("*")])
    return math.inf


def _failed(ended: asyncio.Future[None]) -> bool:
    return ended.done() and (ended.cancelled() or ended.exception() is not None)


def _piece(path: Path, begin: int) -> Any:
    with path.open("rb") as file:
        file.seek(begin)
        return ray.put(file.read(CHUNK_BYTES))
