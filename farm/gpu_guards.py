"""What a GPU's driver says around a turn becomes reasons to distrust it. Never looks at a latency."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from farm.gpus import GpuMeter, Reading

LEAST_CLOCK_SHARE = 0.75
"""An SM clock below three quarters of the default taints: boost clocks of a loaded chip move by a tenth, a power or
temperature limit, or a chip that has gone to sleep between calls, takes more."""

GPU_ADVICE = {
    "gpu-foreign": "another process computes on this GPU: end it, or measure where nobody else does (nvidia-smi)",
    "gpu-throttled": "power or temperature forced the GPU's clock down: cool it, raise its limit, or let it rest",
    "gpu-clock": "the GPU's SM clock was below 75 % of its default: something keeps it low, or it sleeps between calls",
    "gpu-errors": "the GPU reported a memory or driver error (nvidia-smi -q, dmesg): do not trust this chip's results",
}
"""What each reason means and what to change, in the order in which reasons are listed."""

WATCHED = {
    "other processes on the GPU": "gpu_foreign",
    "why its clock was lowered": "gpu_throttle",
    "its SM clock": "gpu_sm_mhz",
    "its memory's errors": "gpu_uncorrected_errors",
    "its driver's errors (Xid)": "gpu_xid_errors",
}
"""What is watched, in words, and the reading that tells it."""

GPU_READINGS = (*WATCHED.values(), "gpu_corrected_errors", "gpu_energy_j", "gpu_temperature_c")
"""What is published of each turn, in columns named `round_` and this."""


@dataclass(frozen=True, slots=True)
class GpuDisturbance:
    """What a GPU did beside the cell in one turn. None is what the driver does not tell: unknown, not fine."""

    gpu_foreign: int | None
    """Processes of others that held it."""
    gpu_throttle: tuple[str, ...] | None
    gpu_sm_mhz: float | None
    """In the middle of the turn."""
    gpu_uncorrected_errors: int | None
    gpu_xid_errors: int | None
    gpu_corrected_errors: int | None
    """Of its memory: mended by themselves, never a reason."""
    gpu_energy_j: float | None
    """What the whole board used between the readings around the turn: never a reason, but a cost."""
    gpu_temperature_c: float | None


class OwnProcesses:
    """Which of the processes that the driver lists are the farm's.

    In a container the driver may number processes in another way than the kernel does there. Then cells are told by
    when they come: they are loaded one at a time, so the one process that is new by then is the cell's.
    """

    def __init__(self, before: Collection[int] | None) -> None:
        """`before` is what was listed before any cell was started; None where nothing is listed."""
        self._before = None if before is None else frozenset(before)
        self._own: set[int] = set()
        self._seen = before is not None

    def arrived(self, pid: int, listed: Collection[int] | None) -> None:
        """A cell has loaded, its process being `pid` here; `listed` is what the driver lists now."""
        if listed is None or self._before is None:
            self._seen = False
            return
        new = set(listed) - self._before - self._own
        if pid in listed:
            self._own.add(pid)
        elif len(new) == 1:
            self._own |= new
        else:  # none: it does not list ours, and so perhaps nobody's; several: no telling which is whose
            self._seen = False

    def foreign(self, listed: Collection[int] | None) -> int | None:
        """How many others there are; None where that cannot be told."""
        return None if listed is None or not self._seen else len(set(listed) - self._own)


class GpuWatch:
    """Takes one cohort's readings of its GPU."""

    def __init__(self, meter: GpuMeter) -> None:
        self._meter = meter
        self._own = OwnProcesses(meter.read().processes)
        self.default_mhz = meter.default_mhz

    def arrived(self, pid: int) -> None:
        """Take the process that has just loaded for one of the farm's."""
        self._own.arrived(pid, self._meter.read().processes)

    def read(self) -> Reading:
        """The GPU at this instant."""
        return self._meter.read()

    def read_clock(self) -> Reading:
        """Its clock at this instant, and why that is low."""
        return self._meter.read_clock()

    def memory_used_bytes(self) -> int | None:
        """Memory in use on the GPU, whoever uses it."""
        return self._meter.memory_used_bytes()

    def disturbance(self, before: Reading, during: Reading | None, after: Reading) -> GpuDisturbance:
        """What happened between two readings around a turn; clock and throttling are those of its middle."""
        loaded = during or after
        listed = [self._own.foreign(each.processes) for each in (before, after)]
        energy_mj = _growth(before.energy_mj, after.energy_mj)
        return GpuDisturbance(
            gpu_foreign=None if None in listed else max(count or 0 for count in listed),
            gpu_throttle=loaded.throttle,
            gpu_sm_mhz=loaded.sm_mhz,
            gpu_uncorrected_errors=_growth(before.uncorrected_errors, after.uncorrected_errors),
            gpu_xid_errors=_growth(before.xid_errors, after.xid_errors),
            gpu_corrected_errors=_growth(before.corrected_errors, after.corrected_errors),
            gpu_energy_j=None if energy_mj is None else energy_mj / 1e3,
            gpu_temperature_c=after.temperature_c,
        )


def gpu_taint_reasons(seen: GpuDisturbance, default_mhz: float | None) -> tuple[str, ...]:
    """Why a turn on a GPU is not to be trusted; none if nothing that is known speaks against it."""
    slow = seen.gpu_sm_mhz is not None and default_mhz is not None and seen.gpu_sm_mhz < LEAST_CLOCK_SHARE * default_mhz
    checks = {
        "gpu-foreign": bool(seen.gpu_foreign),
        "gpu-throttled": bool(seen.gpu_throttle),
        "gpu-clock": slow,
        "gpu-errors": bool(seen.gpu_uncorrected_errors) or bool(seen.gpu_xid_errors),
    }
    return tuple(reason for reason, tainted in checks.items() if tainted)


def _growth(before: int | None, after: int | None) -> int | None:
    """What was added; a counter that went back was set to zero, by a reset that is nobody's measurement."""
    return None if before is None or after is None else max(after - before, 0)
