"""The user's cache folder, and how a finished file or folder appears in it all at once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Where downloads, models and artifacts are kept between runs: $FARM_CACHE, else the platform's cache folder."""
    chosen = os.environ.get("FARM_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return platformdirs.user_cache_path("inference-farm", appauthor=False)


def publish_folder(temporary: Path, final: Path) -> Path:
    """Move the finished folder `temporary` to `final` in one step, so that no reader ever sees half of it.

    Both must be on one file system. Files are flushed first: a timed run must not start while the kernel still
    writes them. If another process published `final` first, that one stays and ours is removed.

    Returns `final`. Raises OSError where the disk is full or not writable.
    """
    _flush_tree(temporary)
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Fails if `final` is a folder that is not empty, which every published folder is.
        temporary.rename(final)
    except OSError:
        if not final.is_dir():
            raise
        shutil.rmtree(temporary)
    _flush(final.parent)
    return final


def publish_file(temporary: Path, final: Path) -> Path:
    """Move the finished file `temporary` to `final` in one step, after flushing it; replaces what was there."""
    _flush(temporary)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary.replace(final)
    _flush(final.parent)
    return final


def _flush_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            _flush(path)
    _flush(folder)


def _flush(path: Path) -> None:
    # A folder cannot be opened for flushing on Windows, where renames are durable without it.
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
