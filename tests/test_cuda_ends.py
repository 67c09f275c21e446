"""Both ends of a call on a GPU, with memory that is the host's: what is copied, in which order, and how timed."""

from __future__ import annotations

import ctypes
import time

import numpy as np
import pytest
from fake_cuda import FakeCuda

from tasks.cuda_ends import CudaError, DeviceEnds

NAMES = ("input_ids", "attention_mask")
INPUTS = {"input_ids": np.arange(8).reshape(2, 4), "attention_mask": np.ones((2, 4), np.int64)}


def at(address: int, count: int, kind: type) -> np.ndarray:
    """What lies on the device."""
    return np.frombuffer((kind * count).from_address(address), np.dtype(kind)).copy()


def test_a_call_is_one_copy_there_one_back_and_one_wait_between_two_events() -> None:
    runtime = FakeCuda()
    ends = DeviceEnds(NAMES, (2, 4), 3, runtime)
    runtime.log.clear()
    ends.receive(INPUTS)
    ends.send()
    assert runtime.log == ["event", "to-device", "to-host", "event", "synchronize"]


def test_its_stream_waits_for_no_other() -> None:
    runtime = FakeCuda()
    DeviceEnds(NAMES, (2, 4), 3, runtime)
    assert runtime.log[0] == "non-blocking stream"


def test_every_input_lies_where_its_address_says_and_logits_come_back() -> None:
    ends = DeviceEnds(NAMES, (2, 4), 3, FakeCuda())
    ends.receive(INPUTS)
    for name, address in ends.addresses.items():
        np.testing.assert_array_equal(at(address, 8, ctypes.c_int64), INPUTS[name].ravel())
    answer = np.arange(6, dtype=np.float32)
    ctypes.memmove(ends.logits_address, answer.ctypes.data, answer.nbytes)
    np.testing.assert_array_equal(ends.send(), answer.reshape(2, 3))


def test_an_answer_is_not_overwritten_by_the_next_call() -> None:
    ends = DeviceEnds(NAMES, (2, 4), 3, FakeCuda())
    ends.receive(INPUTS)
    first = ends.send()
    ctypes.memset(ends.logits_address, 1, 24)
    ends.receive(INPUTS)
    assert (ends.send() != first).all()


def test_an_input_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        DeviceEnds(NAMES, (2, 4), 3, FakeCuda()).receive({name: np.ones((2, 5)) for name in NAMES})


def test_a_device_without_memory_says_so() -> None:
    with pytest.raises(CudaError, match="cudaErrorMemoryAllocation"):
        DeviceEnds(NAMES, (2, 4), 3, FakeCuda(memory_bytes=100))


def test_the_devices_clock_counts_every_call_once() -> None:
    ends = DeviceEnds(NAMES, (2, 4), 3, FakeCuda())
    for _ in range(3):
        ends.receive(INPUTS)
        time.sleep(0.002)
        ends.send()
    assert 6_000_000 <= ends.clock.collect() < 600_000_000
    assert ends.clock.collect() == 0
