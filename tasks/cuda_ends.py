"""Both ends of a call on a GPU without PyTorch: one copy there, one copy back, a stream, and events on it.

What `torch_ends` does for PyTorch, for runtimes that run without it: token ids go from pinned memory to fixed places on
the device in one copy, logits come back into pinned memory, and the call returns when they are there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.method import Arrays
from tasks.torch_ends import MOST_CALLS

IDS = np.dtype(np.int64)


class CudaError(RuntimeError):
    """A call of CUDA's runtime failed."""


def cuda_runtime() -> Any:
    """CUDA's runtime in Python (cuda-bindings). Raises ImportError where it is not installed."""
    from cuda.bindings import runtime

    return runtime


def checked(result: tuple[Any, ...]) -> Any:
    """What a call of the runtime returned after its error code. Raises CudaError for any other than success."""
    code, *values = result
    if int(code) != 0:
        raise CudaError(f"CUDA says {code.name if hasattr(code, 'name') else code}")
    return values[0] if len(values) == 1 else values


class EventClock:
    """Events around each call on one stream since the clock was last asked."""

    def __init__(self, runtime: Any, stream: Any) -> None:
        self._runtime = runtime
        self._stream = stream
        self._pairs: list[tuple[Any, Any]] = []
        self._used = 0

    def began(self) -> None:
        """A call begins."""
        if self._used == MOST_CALLS:
            self._used = 0
        if self._used == len(self._pairs):
            create = self._runtime.cudaEventCreate
            self._pairs.append((checked(create()), checked(create())))
        checked(self._runtime.cudaEventRecord(self._pairs[self._used][0], self._stream))

    def ended(self) -> None:
        """All work of the call has been handed to the device."""
        checked(self._runtime.cudaEventRecord(self._pairs[self._used][1], self._stream))
        self._used += 1

    def collect(self) -> int:
        """Nanoseconds of all calls since it was last asked. Their ends were waited for."""
        finished, self._used = self._pairs[: self._used], 0
        return sum(int(checked(self._runtime.cudaEventElapsedTime(*pair)) * 1e6) for pair in finished)


class DeviceEnds:
    """Fixed buffers for one shape of inputs and one of logits, on a stream of its own."""

    def __init__(
        self, input_names: Sequence[str], shape: tuple[int, int], labels: int, runtime: Any | None = None
    ) -> None:
        """`shape` is that of each input, batch and length; logits are FP32 `[batch, labels]`.

        `runtime` is CUDA's, or something that behaves like it. Raises CudaError where the device refuses.
        """
        self._runtime = runtime = runtime or cuda_runtime()
        self._names = tuple(input_names)
        self.shape = shape
        self.logits_shape = (shape[0], labels)
        # Whatever a library puts on the default stream does not make this one wait.
        self.stream = checked(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))
        self.clock = EventClock(runtime, self.stream)
        self._each_bytes = shape[0] * shape[1] * IDS.itemsize
        self._in_bytes = self._each_bytes * len(self._names)
        self._out_bytes = shape[0] * labels * np.dtype(np.float32).itemsize
        self._host_in = int(checked(runtime.cudaMallocHost(self._in_bytes)))
        self._host_out = int(checked(runtime.cudaMallocHost(self._out_bytes)))
        self._device_in = int(checked(runtime.cudaMalloc(self._in_bytes)))
        self.logits_address = int(checked(runtime.cudaMalloc(self._out_bytes)))
        self._ids = _array_at(self._host_in, IDS, (len(self._names), *shape))
        self._logits = _array_at(self._host_out, np.dtype(np.float32), self.logits_shape)

    @property
    def addresses(self) -> Mapping[str, int]:
        """Where each input lies on the device."""
        return {name: self._device_in + place * self._each_bytes for place, name in enumerate(self._names)}

    @property
    def stream_address(self) -> int:
        """The stream as other libraries take it."""
        return int(self.stream)

    def receive(self, inputs: Arrays) -> None:
        """Copy all inputs at once to their places on the device, without waiting."""
        for place, name in enumerate(self._names):
            self._ids[place] = inputs[name]
        self.clock.began()
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        checked(self._runtime.cudaMemcpyAsync(self._device_in, self._host_in, self._in_bytes, kind, self.stream))

    def send(self) -> np.ndarray:
        """Copy the logits back, wait for everything, and return them."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        checked(self._runtime.cudaMemcpyAsync(self._host_out, self.logits_address, self._out_bytes, kind, self.stream))
        self.clock.ended()
        checked(self._runtime.cudaStreamSynchronize(self.stream))
        return np.array(self._logits)


def _array_at(address: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Memory that CUDA owns, as an array."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = (ctypes.c_byte * size).from_address(address)
    return np.frombuffer(memoryview(memory), dtype).reshape(shape)
