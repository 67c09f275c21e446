"""A product on AMX's tiles and nothing else, as a kernel among those that a machine's ceilings are searched with."""

from __future__ import annotations

import ctypes
import os
import weakref
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.deployed.native_encoder import SPIN_COUNT
from tasks.instruction_sets import cpu_flags
from tasks.native.building import INSTRUCTION_SETS, cached_library
from tasks.native.weights import LINE, PANEL, TILE

SOURCE = "product.cpp"


class TileProduct:
    """Multiplies the same operands in every call, in BF16 or in int8: `[rows, inner]` by `[inner, columns]`.

    Operands are given as the bytes of tiles (`products.hpp` has their order, which does not matter for random numbers).
    """

    def __init__(
        self, left: npt.NDArray[Any], right: npt.NDArray[Any], shape: tuple[int, int, int], threads: int, *, bf16: bool
    ) -> None:
        rows, inner, columns = self._shape = shape
        self._bf16 = bf16
        if rows % TILE or columns % PANEL or inner * (2 if bf16 else 1) % LINE:
            raise ValueError(f"no whole tiles: [{rows}, {inner}] by [{inner}, {columns}]")
        self._library = open_products()
        self._left, self._right = _aligned(left), _aligned(right)
        self._product = self._library.product_create(rows, inner * (2 if bf16 else 1), columns, threads, bf16)
        if not self._product:
            raise MemoryError("no memory for a product on tiles")
        weakref.finalize(self, self._library.product_destroy, self._product)

    def __call__(self) -> None:
        """Multiply once."""
        self._library.product_run(self._product, self._left.ctypes.data, self._right.ctypes.data)

    def results(self) -> npt.NDArray[Any]:
        """What the last call gave, `[rows, columns]`: sums of int8 cut to the range of bytes, of BF16 rounded to it.

        BF16 is returned as FP32.
        """
        rows, _, columns = self._shape
        kind = ctypes.c_uint16 if self._bf16 else ctypes.c_int8
        pointer = ctypes.cast(self._library.product_results(self._product), ctypes.POINTER(kind))
        panels = np.ctypeslib.as_array(pointer, (columns // PANEL, rows, LINE // ctypes.sizeof(kind)))[:, :, :PANEL]
        numbers = (panels.astype(np.uint32) << 16).view(np.float32) if self._bf16 else panels
        return numbers.transpose(1, 0, 2).reshape(rows, columns).copy()


def build() -> None:
    """Compile the library if it is not in the cache. Raises MethodUnsupportedError, or OSError without a compiler."""
    if cpu_flags() >= INSTRUCTION_SETS:
        cached_library(SOURCE)


@cache
def open_products() -> Any:
    """The library; its threads are those of PyTorch where that is loaded. Raises OSError where AMX is not to be had."""
    if not cpu_flags() >= INSTRUCTION_SETS:
        raise OSError(f"this CPU lacks {', '.join(sorted(INSTRUCTION_SETS - cpu_flags()))}")
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    for path in _loaded_openmp():
        # Two pools of threads would take the cores from one another.
        ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(cached_library(SOURCE)))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.product_create.restype = pointer
    library.product_create.argtypes = [number, number, number, number, ctypes.c_int]
    library.product_run.argtypes = [pointer, pointer, pointer]
    library.product_results.restype = pointer
    library.product_results.argtypes = [pointer]
    library.product_destroy.argtypes = [pointer]
    refused = library.product_permission()
    if refused:
        raise OSError(refused, os.strerror(refused))
    return library


def _loaded_openmp() -> list[str]:
    """Files of GNU's OpenMP runtime that this process has loaded: PyTorch brings one under a name of its own."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    paths = {line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6}
    return sorted(path for path in paths if Path(path).name.startswith("libgomp"))


def _aligned(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The array's bytes at a multiple of a cache line."""
    size = array.nbytes
    memory = np.empty(size + 64, np.uint8)
    begin = -memory.ctypes.data % 64
    memory[begin : begin + size] = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
    return memory[begin : begin + size]
