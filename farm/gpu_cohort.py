"""A cohort's look at its GPU: before, amid and after each turn, and the memory that loading took. Idle on a CPU."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from pynvml import NVMLError

from farm.gpu_guards import GpuWatch, gpu_taint_reasons
from farm.gpus import GpuMeter, Reading, identify
from farm.records import Slot

AMID = 0.5
"""A turn's clock, and nothing else, is read when half of its usual time is over: afterwards an idle GPU lowers it
within milliseconds."""


def watch_slot(slot: Slot) -> GpuWatch | None:
    """The watch over the GPU that Ray named to this process; None without one, or where NVML does not answer."""
    if slot.gpu is None:
        return None
    name = identify(os.environ.get("CUDA_VISIBLE_DEVICES", ""), slot.gpu_index) or slot.gpu_uuid or "0"
    try:
        return GpuWatch(GpuMeter(name))
    except NVMLError:
        return None


class GpuSide:
    """Everything here does nothing, and knows nothing, where there is no GPU to read."""

    def __init__(self, slot: Slot, watch: Callable[[Slot], GpuWatch | None] = watch_slot) -> None:
        self._watch = watch(slot)
        self._before: Reading | None = None
        self._during: Reading | None = None

    def arrived(self, pid: int) -> None:
        """A process of the farm's has loaded: it is nobody else's."""
        if self._watch is not None:
            self._watch.arrived(pid)

    @contextmanager
    def growth(self) -> Iterator[Callable[[], int | None]]:
        """Yields what tells, once the block has ended, by how many bytes the GPU's used memory grew in it.

        Nobody else runs meanwhile, so that this is what the one cell took: its share of CUDA's own memory included,
        which no framework's allocator counts.
        """
        watch = self._watch
        before = watch.memory_used_bytes() if watch else None
        found: list[int | None] = [None]
        yield lambda: found[0]
        after = watch.memory_used_bytes() if watch else None
        found[0] = None if before is None or after is None else max(after - before, 0)

    def before_turn(self) -> None:
        """Read the GPU; the cell is about to be woken."""
        self._during = None
        self._before = self._watch.read() if self._watch else None

    def amid_turn(self, turn_s: float) -> None:
        """Wait for half of the turn's usual time and read the clock of the GPU at work."""
        if self._watch is not None:
            time.sleep(AMID * turn_s)
            self._during = self._watch.read_clock()

    def after_turn(self) -> tuple[dict[str, Any], tuple[str, ...]]:
        """What happened on the GPU in the turn, by column, and the reasons to distrust it."""
        if self._watch is None or self._before is None:
            return {}, ()
        seen = self._watch.disturbance(self._before, self._during, self._watch.read())
        return asdict(seen), gpu_taint_reasons(seen, self._watch.default_mhz)
