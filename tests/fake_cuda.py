"""CUDA's runtime on a machine without CUDA: memory is the host's, and the stream does everything at once."""

from __future__ import annotations

import ctypes
import time
from enum import IntEnum
from typing import Any


class Code(IntEnum):
    """What a call returns first."""

    cudaSuccess = 0  # noqa: N815 - CUDA's names, here and below
    cudaErrorMemoryAllocation = 2  # noqa: N815


class Kind(IntEnum):
    """Which way a copy goes."""

    cudaMemcpyHostToDevice = 1  # noqa: N815
    cudaMemcpyDeviceToHost = 2  # noqa: N815


class FakeCuda:
    """What `tasks.cuda_ends` asks of CUDA; `log` has the name of every call in order."""

    cudaMemcpyKind = Kind  # noqa: N815 - the library's name, and the next
    cudaStreamNonBlocking = 1  # noqa: N815

    def __init__(self, memory_bytes: int = 1 << 30) -> None:
        self.log: list[str] = []
        self._left = memory_bytes
        self._held: list[Any] = []

    def _allocate(self, size: int) -> tuple[Any, ...]:
        if size > self._left:
            return (Code.cudaErrorMemoryAllocation, None)
        self._left -= size
        self._held.append(ctypes.create_string_buffer(size))
        return (Code.cudaSuccess, ctypes.addressof(self._held[-1]))

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:  # noqa: N802
        """Memory of the device."""
        self.log.append("malloc")
        return self._allocate(size)

    def cudaMallocHost(self, size: int) -> tuple[Any, ...]:  # noqa: N802
        """Pinned memory."""
        self.log.append("malloc-host")
        return self._allocate(size)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:  # noqa: N802
        """A stream is a number here."""
        self.log.append("non-blocking stream" if flags == self.cudaStreamNonBlocking else "stream")
        return (Code.cudaSuccess, 1)

    def cudaStreamSynchronize(self, _stream: Any) -> tuple[Any, ...]:  # noqa: N802
        """Everything is done already."""
        self.log.append("synchronize")
        return (Code.cudaSuccess,)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: Kind, _stream: Any) -> tuple[Any, ...]:  # noqa: N802
        """Copy at once."""
        self.log.append("to-device" if kind is Kind.cudaMemcpyHostToDevice else "to-host")
        ctypes.memmove(target, source, size)
        return (Code.cudaSuccess,)

    def cudaEventCreate(self) -> tuple[Any, ...]:  # noqa: N802
        """An event is a list that holds its time."""
        return (Code.cudaSuccess, [])

    def cudaEventRecord(self, event: list[float], _stream: Any) -> tuple[Any, ...]:  # noqa: N802
        """Note the time."""
        self.log.append("event")
        event[:] = [time.perf_counter()]
        return (Code.cudaSuccess,)

    def cudaEventElapsedTime(self, first: list[float], last: list[float]) -> tuple[Any, ...]:  # noqa: N802
        """Milliseconds, as CUDA has them."""
        return (Code.cudaSuccess, (last[0] - first[0]) * 1e3)
