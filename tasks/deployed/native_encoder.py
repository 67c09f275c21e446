"""Open the compiled encoder with its weights; it needs NumPy, an x86 CPU with AMX, and Linux 5.16 or newer."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

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
        self._labels = settings["sizes"]["labels"]
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
        """Logits float32 `[batch, labels]` of arrays `[batch, length]`; token types are all 0 where there are none."""
        arrays = {name: np.ascontiguousarray(array, np.int64) for name, array in inputs.items()}
        batch, length = arrays["input_ids"].shape
        logits = np.empty((batch, self._labels), np.float32)
        ids, mask = arrays["input_ids"].ctypes.data, arrays["attention_mask"].ctypes.data
        types = arrays["token_type_ids"].ctypes.data if "token_type_ids" in arrays else None
        if self._library.encoder_run(self._encoder, batch, length, ids, mask, types, logits.ctypes.data) != 0:
            raise MemoryError(f"no memory for {batch} sequences of {length} tokens")
        return logits

    def account(self) -> tuple[int, int, int]:
        """What the last call did: multiply-adds in int8 and in BF16, and threads."""
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
    memory = mmap.mmap(-1, path.stat().st_size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    with path.open("rb") as source:
        source.readinto(memory)
    return memory
