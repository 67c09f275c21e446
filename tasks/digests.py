"""SHA-256 of large files, remembered as long as a file's size and modification time stay the same."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from tasks.cache import cache_folder


def file_sha256(path: Path) -> str:
    """Hash of the file's content, hexadecimal. Raises OSError where the file cannot be read."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remembered_sha256(path: Path) -> str:
    """`file_sha256`, but reading the file only if its size or modification time changed since it was last read."""
    path = path.resolve()
    status = path.stat()
    stamp = {"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    memory = cache_folder() / "digests" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    remembered = _read(memory)
    if {name: remembered.get(name) for name in stamp} == stamp and isinstance(remembered.get("sha256"), str):
        return str(remembered["sha256"])
    sha256 = file_sha256(path)
    _remember(memory, stamp | {"sha256": sha256})
    return sha256


def _read(memory: Path) -> dict[str, object]:
    try:
        content = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _remember(memory: Path, content: dict[str, object]) -> None:
    # A cache that cannot be written costs time, not correctness.
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        temporary = memory.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(memory)
    except OSError:
        return
