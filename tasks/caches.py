"""What the processor's caches hold, as Linux describes them in /sys."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

USUAL_BYTES = 32 << 20
"""Bytes of last-level cache assumed where the system does not say."""


@dataclass(frozen=True, slots=True)
class _Cache:
    level: int
    kind: str
    cpus: str
    size_bytes: int


def last_level_bytes(root: Path = Path("/")) -> int:
    """Size of the largest cache that the first processor sees."""
    return max((cache.size_bytes for cache in _caches(0, root)), default=USUAL_BYTES)


def held_bytes(cores: Collection[int], root: Path = Path("/")) -> int:
    """What all caches of these cores hold together, each counted once: as if no level repeated another's lines."""
    distinct = {cache for core in cores for cache in _caches(core, root) if cache.kind != "Instruction"}
    return sum(cache.size_bytes for cache in distinct) or USUAL_BYTES


def _caches(core: int, root: Path) -> Iterator[_Cache]:
    for folder in sorted((root / f"sys/devices/system/cpu/cpu{core}/cache").glob("index*")):
        try:
            level, kind, cpus, size = (
                (folder / name).read_text().strip() for name in ("level", "type", "shared_cpu_list", "size")
            )
            yield _Cache(int(level), kind, cpus, int(size.removesuffix("K")) << 10)
        except (OSError, ValueError):
            continue
