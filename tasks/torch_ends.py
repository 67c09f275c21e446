"""Both ends of a call in PyTorch: token ids from the host to the device, logits back, and the device's clock between.

On a GPU all inputs of a call travel in one copy from pinned memory, the logits come back into pinned memory, and the
call returns when they are there: what a caller waits for, and the same for every runtime (`cuda_ends` does it for
those that run without PyTorch).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from farm.records import Device
from tasks.method import Arrays

MOST_CALLS = 1_000
"""Calls of which a clock keeps the events. A turn asks after each sample, which is a hundred calls at most; nobody asks
while a cell warms up, and the events of those calls are used again."""


class Ends(Protocol):
    """Where a call's inputs and outputs change sides."""

    @property
    def clock(self) -> TorchClock | None:
        """The device's; None on a CPU."""

    def receive(self, inputs: Arrays) -> dict[str, Any]:
        """Token ids on the host -> tensors on the device, which the next call may overwrite."""

    def send(self, logits: Any) -> np.ndarray:
        """Logits on the device -> FP32 on the host, when all work of the call is done."""


def ends_of(input_names: Sequence[str], device: Device) -> Ends:
    """The ends of a device."""
    return CudaEnds(input_names) if device == "cuda" else HostEnds(input_names)


class HostEnds:
    """On a CPU both sides are the same memory."""

    clock: TorchClock | None = None

    def __init__(self, input_names: Sequence[str]) -> None:
        self._input_names = input_names

    def receive(self, inputs: Arrays) -> dict[str, Any]:
        """The same memory as tensors."""
        import torch

        return {name: torch.from_numpy(inputs[name]) for name in self._input_names}

    def send(self, logits: Any) -> np.ndarray:
        """The same memory as an array, or FP32 numbers of another precision's."""
        import torch

        return np.asarray(logits.to("cpu", torch.float32).numpy())


@dataclass(frozen=True)
class _Buffers:
    """Of one shape of inputs: pinned memory, as an array and as a tensor, and memory on the device, by name too."""

    array: np.ndarray
    pinned: Any
    on_device: Any
    by_name: Mapping[str, Any]


class CudaEnds:
    """Buffers are made once for each shape; a call's tensors lie at the same addresses every time.

    On another device than a GPU nothing is pinned and nothing is timed: the same copies, for looking at them.
    """

    def __init__(self, input_names: Sequence[str], device: str = "cuda") -> None:
        self.clock: TorchClock | None = TorchClock() if device == "cuda" else None
        self._device = device
        self._input_names = tuple(input_names)
        self._buffers: dict[tuple[int, ...], _Buffers] = {}
        self._answers: dict[tuple[int, ...], Any] = {}

    def receive(self, inputs: Arrays) -> dict[str, Any]:
        """Copy all inputs at once, from pinned memory, without waiting."""
        shape = inputs[self._input_names[0]].shape
        buffers = self._buffers.get(shape) or self._make(shape)
        for place, name in enumerate(self._input_names):
            buffers.array[place] = inputs[name]
        if self.clock is not None:
            self.clock.began()
        buffers.on_device.copy_(buffers.pinned, non_blocking=True)
        return dict(buffers.by_name)

    def send(self, logits: Any) -> np.ndarray:
        """Copy into pinned memory and wait for it; FP32 it becomes on the device."""
        import torch

        shape = tuple(logits.shape)
        if shape not in self._answers:
            self._answers[shape] = torch.empty(shape, dtype=torch.float32, pin_memory=self._device == "cuda")
        answer = self._answers[shape]
        answer.copy_(logits.float(), non_blocking=True)
        if self.clock is not None:
            self.clock.ended()
            torch.cuda.current_stream().synchronize()
        return np.array(answer.numpy())

    def _make(self, shape: tuple[int, ...]) -> _Buffers:
        import torch

        on_gpu = self._device == "cuda"
        pinned = torch.zeros((len(self._input_names), *shape), dtype=torch.int64, pin_memory=on_gpu)
        on_device = torch.zeros_like(pinned, device=self._device)
        by_name = {name: on_device[place] for place, name in enumerate(self._input_names)}
        self._buffers[shape] = _Buffers(pinned.numpy(), pinned, on_device, by_name)
        return self._buffers[shape]


class TorchClock:
    """CUDA events on the current stream around each call since the clock was last asked."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Any, Any]] = []
        self._used = 0

    def began(self) -> None:
        """A call begins."""
        import torch

        if self._used == MOST_CALLS:
            self._used = 0
        if self._used == len(self._pairs):
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self._pairs.append((first, last))
        self._pairs[self._used][0].record()

    def ended(self) -> None:
        """All work of the call has been handed to the device."""
        self._pairs[self._used][1].record()
        self._used += 1

    def collect(self) -> int:
        """Nanoseconds of all calls since it was last asked. Their ends were waited for."""
        finished, self._used = self._pairs[: self._used], 0
        return sum(int(first.elapsed_time(last) * 1e6) for first, last in finished)
