"""What native code writes to this process's own output and error streams, past `sys.stdout` and `sys.stderr`."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STDOUT = 1
STDERR = 2


@contextmanager
def native_output(stream: int) -> Iterator[Callable[[], list[str]]]:
    """Catch what is written to a stream, by its file descriptor; the lines, once the block has ended."""
    flush = ctypes.CDLL(None).fflush
    flush(None)
    kept = os.dup(stream)
    caught = b""
    with tempfile.TemporaryFile() as target:
        os.dup2(target.fileno(), stream)
        try:
            yield lambda: caught.decode(errors="replace").splitlines()
        finally:
            flush(None)
            os.dup2(kept, stream)
            os.close(kept)
            target.seek(0)
            caught = target.read()
