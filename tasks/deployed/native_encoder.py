"""Open the compiled encoder with its weights.

It needs NumPy, the system's libgomp and libstdc++, an x86 CPU with AMX, and Linux 5.16 or newer.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

HUGE_PAGE = 2 << 20

LIBRARY, WEIGHTS, SETTINGS = "encoder.so", "weights.bin", "encoder.json"

SPIN_COUNT = "1000"
"""How often GNU's OpenMP looks whether a barrier is open before it sleeps. Its default, 300,000, keeps a core from the
thread that is waited for, where other programs want one: a call then took 200 ms instead of 10."""


class Config(ctypes.Structure):
    """As the library's source declares it."""

    _fields_: ClassVar = [
        *((name, ctypes.c_int64) for name in ("layers", "hidden", "heads", "intermediate", "labels", "tanh_head")),
        *((name, ctypes.c_int64) for name in ("pruned", "padding_id", "threads")),
        ("epsilon", ctypes.c_double),
    ]


class NativeEncoder:
    """The library with its weights in memory, for `threads` threads. Raises OSError where AMX is not to be had."""

    def __init__(self, folder: Path, threads: int, *, pruned: bool) -> None:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        self._labels, self._limits = settings["sizes"]["labels"], settings["limits"]
        self._calling = threading.Lock()
        self._library = _open(folder / LIBRARY)
        self._weights = _in_memory(folder / WEIGHTS)
        config = Config(**settings["sizes"], pruned=pruned, threads=threads)
        offsets = (ctypes.c_int64 * len(settings["offsets"]))(*settings["offsets"])
        begin = ctypes.addressof(ctypes.c_char.from_buffer(self._weights))
        self._encoder = self._library.encoder_create(ctypes.byref(config), begin, offsets)
        if not self._encoder:
            raise MemoryError("no memory for the encoder")
        weakref.finalize(self, self._library.encoder_destroy, self._encoder)

    def __call__(self, inputs: Mapping[str, Any]) -> Any:
        """Logits float32 `[batch, labels]` of arrays `[batch, length]`; token types are all 0 where there are none.

        Calls of several threads take turns. Raises ValueError for what the model has no tables for.
        """
        arrays = {name: np.ascontiguousarray(array, np.int64) for name, array in inputs.items()}
        self._check(arrays)
        batch, length = arrays["input_ids"].shape
        logits = np.empty((batch, self._labels), np.float32)
        ids, mask = arrays["input_ids"].ctypes.data, arrays["attention_mask"].ctypes.data
        types = arrays["token_type_ids"].ctypes.data if "token_type_ids" in arrays else None
        with self._calling:
            refused = self._library.encoder_run(self._encoder, batch, length, ids, mask, types, logits.ctypes.data)
        if refused:
            raise MemoryError(f"no memory for {batch} sequences of {length} tokens")
        return logits

    def _check(self, arrays: Mapping[str, Any]) -> None:
        """The library reads what it is pointed at."""
        shapes = {array.shape for array in arrays.values()}
        batch, length = shapes.pop()
        if shapes or not batch or not 1 <= length <= self._limits["length"]:
            raise ValueError(f"inputs must be of one shape [batch, 1 to {self._limits['length']}]")
        for name, limit in (("input_ids", "vocabulary"), ("token_type_ids", "types")):
            ids = arrays.get(name)
            if ids is not None and (ids.min() < 0 or ids.max() >= self._limits[limit]):
                raise ValueError(f"{name} must be from 0 to {self._limits[limit] - 1}")

    def account(self) -> tuple[int, int, int]:
        """What the last call did: multiply-adds in int8 and in BF16, and threads, which the system may have cut."""
        found = np.zeros(3, np.int64)
        self._library.encoder_account(self._encoder, found.ctypes.data)
        return int(found[0]), int(found[1]), int(found[2])


def load(folder: Path, settings: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    """A call from arrays `[batch, length]` to logits `[batch, labels]`."""
    return NativeEncoder(folder, settings["threads"], pruned=settings["runtime"]["pruned"])


def _open(path: Path) -> Any:
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    library = ctypes.CDLL(str(path))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.encoder_create.restype = pointer
    library.encoder_create.argtypes = [pointer, pointer, pointer]
    library.encoder_run.argtypes = [pointer, number, number, pointer, pointer, pointer, pointer]
    library.encoder_account.argtypes = [pointer, pointer]
    library.encoder_destroy.argtypes = [pointer]
    refused = library.encoder_permission()
    if refused:
        raise OSError(refused, f"the kernel does not let this process use AMX: {os.strerror(refused)}")
    return library


def _in_memory(path: Path) -> mmap.mmap:
    """The file's bytes, on huge pages where the system has them: a page's address is looked up for every line."""
    size = -(-path.stat().st_size // HUGE_PAGE) * HUGE_PAGE
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    with path.open("rb") as source:
        source.readinto(memory)
    return memory
