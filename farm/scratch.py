"""A cohort's folder of temporary files: its own alone, and gone after it, however it ended."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "farm-cohort-"

OWNED = ".owned"
"""A file that the owner holds locked for as long as it lives."""

CLAIMED_S = 60.0
"""A file older than this, and not locked, has lost its owner: between making and locking it lies a moment."""


class Scratch:
    """The folder; `remove` it at the end. Those of owners that were killed are removed by whoever comes next."""

    def __init__(self) -> None:
        _remove_abandoned(Path(tempfile.gettempdir()))
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = FileLock(self.folder / OWNED)
        self._lock.acquire()

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        self._lock.release()
        shutil.rmtree(self.folder, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    for owned in parent.glob(f"{PREFIX}*/{OWNED}"):
        try:
            if time.time() - owned.stat().st_mtime < CLAIMED_S:
                continue
            with FileLock(owned, blocking=False):
                shutil.rmtree(owned.parent, ignore_errors=True)
        except (Timeout, OSError):  # somebody's, or another user's
            continue
