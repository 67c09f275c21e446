"""Who measures on which cores of this machine: locks that every farm on it sees, whatever Ray it belongs to."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

LOCK_NAME = "inference-farm"
"""Lock files of this name lie in the folder for temporary files, which all farms on a machine share."""


class CoreClaim:
    """The cores of one slot. A slot with the machine to itself excludes every other one: they would share its caches
    and memory bandwidth. Packed slots exclude those that need the whole machine, and one another where cores overlap.

    The kernel releases a claim with the process that made it.
    """

    def __init__(self, cores: Sequence[int], whole_machine: bool) -> None:
        self._cores = tuple(sorted(cores))
        self._whole_machine = whole_machine
        self._held: list[int] = []

    def take(self) -> bool:
        """Claim all the cores now, or none of them: false while somebody holds any."""
        if self._held:
            return True
        machine = fcntl.LOCK_EX if self._whole_machine else fcntl.LOCK_SH
        taken = self._lock(f"{LOCK_NAME}.lock", machine) and all(
            self._lock(f"{LOCK_NAME}-core{core}.lock", fcntl.LOCK_EX) for core in self._own_locks()
        )
        if not taken:
            self.give_up()
        return taken

    def give_up(self) -> None:
        """Release what is held."""
        while self._held:
            os.close(self._held.pop())

    def _own_locks(self) -> tuple[int, ...]:
        return () if self._whole_machine else self._cores

    def _lock(self, name: str, kind: int) -> bool:
        descriptor = _open(Path(tempfile.gettempdir()) / name)
        self._held.append(descriptor)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _open(path: Path) -> int:
    """Open a lock file to read: another user's farm may have made it, and only needs to be excluded.

    It is made only where it is not there: the kernel refuses to open another user's file in a shared folder with
    O_CREAT (fs.protected_regular).
    """
    while True:
        try:
            return os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            with suppress(FileExistsError):
                descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL)
                os.fchmod(descriptor, 0o644)  # whatever this user's umask is
                return descriptor
