"""What caches hold is read from where Linux tells it; what it does not tell is assumed."""

from __future__ import annotations

from pathlib import Path

from tasks.caches import USUAL_BYTES, held_bytes, last_level_bytes


def write_cache(root: Path, cpu: int, index: int, *, level: int, size: str, shared: str, kind: str = "Unified") -> None:
    folder = root / f"sys/devices/system/cpu/cpu{cpu}/cache/index{index}"
    folder.mkdir(parents=True)
    for name, text in {"level": level, "type": kind, "size": size, "shared_cpu_list": shared}.items():
        (folder / name).write_text(f"{text}\n")


def test_a_shared_cache_counts_once_and_instructions_do_not(tmp_path: Path) -> None:
    for cpu in (0, 1):
        write_cache(tmp_path, cpu, 0, level=1, size="32K", shared=str(cpu), kind="Data")
        write_cache(tmp_path, cpu, 1, level=1, size="32K", shared=str(cpu), kind="Instruction")
        write_cache(tmp_path, cpu, 2, level=2, size="1024K", shared=str(cpu))
        write_cache(tmp_path, cpu, 3, level=3, size="8192K", shared="0-1")
    assert held_bytes([0, 1], tmp_path) == (2 * 32 + 2 * 1024 + 8192) << 10
    assert held_bytes([0], tmp_path) == (32 + 1024 + 8192) << 10
    assert last_level_bytes(tmp_path) == 8192 << 10


def test_caches_that_are_not_told_are_assumed(tmp_path: Path) -> None:
    assert held_bytes([0, 1], tmp_path) == last_level_bytes(tmp_path) == USUAL_BYTES
