"""Machine snapshots around a turn become reasons to distrust it. Never looks at a latency."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from farm import counters
from farm.counters import Energy, ThreadWaits
from farm.gpu_guards import GPU_ADVICE

FOREIGN_RATIO = 0.05
"""Foreign CPU time above 5 % of slot time taints. Kernel threads and interrupts, which are nobody's, stay below it; of
two cores it is a tenth of one, which every parallel step then waits for."""

STEAL_RATIO = 0.02
"""Stolen time above 2 % taints: less than foreign time does, since the kernel cannot move work away from it."""

ROUNDING_TICKS = 2
"""/proc/stat counts in ticks of 10 ms, each counter of each core rounded down by itself: the difference of two readings
is off by a tick or two. In a short turn those alone exceed the shares above, so it must also be more than these."""

SAMPLING_NS = 4_000_000
"""Most kernels look 250 times a second at what a core is doing and count that for the whole interval (some look up to
1000 times, which is more exact): what a partly idle core has done is a binomial count."""

SAMPLING_ERRORS = 3
"""Foreign time must exceed three standard errors of that count. In simulation two cores at 50 to 80 % seem disturbed in
4 to 8 % of turns of 300 ms without this, in 4 % with two errors, in 1 % with three. A busy core has no such error."""

FREQUENCY_READ_NS = 500_000
"""Where reading the frequency takes over half a millisecond it is not read: some kernels wake up the core that is asked
about and wait 10 ms for its answer."""

ADVICE = {
    "steal": "the host gave this virtual machine's cores to others: measure at another hour or on a dedicated host",
    "foreign-cpu": "other programs used the slot's cores: stop them, or measure where nothing else runs",
    "throttled": "the container's CPU quota ran out: raise or remove it (docker --cpus, Kubernetes limits.cpu)",
    "major-faults": "the cell waited for a disk to bring back its memory: free memory, or compare fewer methods",
}
"""What each reason means and what to change, in the order in which reasons are listed."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The kernel's counters at one instant, of which only differences mean something. None is unknown."""

    taken_ns: int
    cell_cpu_ns: int | None
    major_faults: int | None
    threads: Mapping[int, ThreadWaits] | None
    """Of each of the cell's threads, since a sum would shrink when one ends."""
    busy_ns: tuple[int, ...] | None
    """Of each of the slot's cores."""
    steal_ns: int | None
    own_cpu_ns: Mapping[int, int]
    """Of each of the farm's and Ray's own processes that is there."""
    throttled_ns: int | None
    pressure_ns: int | None
    mhz: float | None
    energy: Sequence[Energy] = ()
    """Of each package and its memory; empty where that cannot be read."""


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What happened beside the cell in one turn. None is what the platform cannot tell: unknown, not fine."""

    wall_ns: int
    slot_ns: int
    """Wall time times cores: what steal and foreign CPU time are shares of."""
    cell_cpu_ns: int | None
    steal_ratio: float | None
    foreign_ratio: float | None
    """CPU time on the slot's cores that is neither the cell's nor the farm's and Ray's own, over slot time."""
    foreign_error_ratio: float | None
    """Standard error of the above, which the kernel's sampling of partly idle cores gives it."""
    own_ratio: float | None
    """The farm's and Ray's own CPU time, wherever on the node it was spent, over one core's time."""
    throttled_ns: int | None
    major_faults: int | None
    involuntary_switches: int | None
    run_delay_ns: int | None
    """Time in which threads of the cell could have run and waited for a core, summed over them."""
    pressure_ratio: float | None
    """Share of the time in which some thread of the machine waited for a core."""
    mhz: float | None
    """Mean frequency of the slot's cores at the end of the turn, as the platform reports it."""
    energy_j: float | None
    """What the machine's packages and their memory used, whoever used it: never a reason, but a cost."""


class Watch:
    """Takes the snapshots of one cohort."""

    def __init__(
        self,
        cores: Sequence[int],
        own_pids: Collection[int] = (),
        root: Path = Path("/"),
        cpu_clock: Callable[[int], int | None] = counters.process_cpu_ns,
    ) -> None:
        """Watch these cores. `root` is where proc/ and sys/ lie; `cpu_clock` gives a process's CPU time in ns."""
        self._cores = tuple(cores)
        self._own_pids = tuple(own_pids)
        self._root = root
        self._cpu_clock = cpu_clock
        self._threads: dict[int, Mapping[int, ThreadWaits]] = {}
        self._throttle_files = counters.throttle_files(root)
        self._energy_folders = counters.energy_folders(root)
        started = time.perf_counter_ns()
        counters.mean_mhz(root, self._cores)
        self._reads_mhz = time.perf_counter_ns() - started <= FREQUENCY_READ_NS

    def own(self, pids: Collection[int]) -> None:
        """Name the farm's and Ray's own processes anew: Ray starts and ends some while a cohort lives."""
        self._own_pids = tuple(pids)

    def snapshot(self, cell_pid: int) -> Snapshot:
        """Read every counter once; those of a cell that has ended are unknown.

        Takes half a millisecond to one for a cell of 50 threads, more the more of them ran since the last time.
        """
        cores = counters.cores_ns(self._root, self._cores)
        threads = counters.thread_waits(self._root, cell_pid, self._threads.get(cell_pid, {}))
        self._threads[cell_pid] = threads or {}
        own = {pid: self._cpu_ns(pid) for pid in self._own_pids if pid != cell_pid}
        return Snapshot(
            taken_ns=time.perf_counter_ns(),
            cell_cpu_ns=self._cpu_ns(cell_pid),
            major_faults=counters.major_faults(self._root, cell_pid),
            threads=threads,
            busy_ns=cores[0] if cores else None,
            steal_ns=cores[1] if cores else None,
            own_cpu_ns={pid: cpu_ns for pid, cpu_ns in own.items() if cpu_ns is not None},
            throttled_ns=counters.throttled_ns(self._throttle_files),
            pressure_ns=counters.pressure_ns(self._root),
            mhz=counters.mean_mhz(self._root, self._cores) if self._reads_mhz else None,
            energy=counters.energy(self._energy_folders),
        )

    def _cpu_ns(self, pid: int) -> int | None:
        cpu_ns = self._cpu_clock(pid)
        return counters.stat_cpu_ns(self._root, pid) if cpu_ns is None else cpu_ns


def disturbance(before: Snapshot, after: Snapshot, cores: int) -> Disturbance:
    """What happened between two snapshots of a cell whose slot has this many cores."""
    wall_ns = max(after.taken_ns - before.taken_ns, 1)
    slot_ns = wall_ns * cores
    own_ns = _growth_of_remaining(before.own_cpu_ns, after.own_cpu_ns)
    cell_cpu_ns = _growth(before.cell_cpu_ns, after.cell_cpu_ns)
    foreign_ns, foreign_error_ns = None, None
    if before.busy_ns is not None and after.busy_ns is not None and cell_cpu_ns is not None:
        busy_ns = [max(late - early, 0) for early, late in zip(before.busy_ns, after.busy_ns, strict=True)]
        foreign_ns = max(sum(busy_ns) - cell_cpu_ns - (own_ns or 0), 0)
        foreign_error_ns = _sampling_error_ns(busy_ns, wall_ns)
    return Disturbance(
        wall_ns=wall_ns,
        slot_ns=slot_ns,
        cell_cpu_ns=cell_cpu_ns,
        steal_ratio=_share(_growth(before.steal_ns, after.steal_ns), slot_ns),
        foreign_ratio=_share(foreign_ns, slot_ns),
        foreign_error_ratio=_share(foreign_error_ns, slot_ns),
        own_ratio=_share(own_ns, wall_ns),
        throttled_ns=_growth(before.throttled_ns, after.throttled_ns),
        major_faults=_growth(before.major_faults, after.major_faults),
        involuntary_switches=_growth_of_threads(before, after, lambda thread: thread.involuntary_switches),
        run_delay_ns=_growth_of_threads(before, after, lambda thread: thread.run_delay_ns),
        pressure_ratio=_share(_growth(before.pressure_ns, after.pressure_ns), wall_ns),
        mhz=after.mhz,
        energy_j=_energy_j(before.energy, after.energy),
    )


def taint_reasons(disturbance: Disturbance) -> tuple[str, ...]:
    """Why a turn is not to be trusted; none if nothing that is known speaks against it.

    Involuntary switches, run delay, pressure and frequency never taint: they are symptoms, and a cell with more
    threads than cores causes the first three itself.
    """
    rounding = ROUNDING_TICKS * counters.TICK_NS / disturbance.slot_ns
    sampling = SAMPLING_ERRORS * (disturbance.foreign_error_ratio or 0)
    checks = {
        "steal": _exceeds(disturbance.steal_ratio, STEAL_RATIO, rounding),
        "foreign-cpu": _exceeds(disturbance.foreign_ratio, FOREIGN_RATIO, rounding, sampling),
        "throttled": bool(disturbance.throttled_ns),
        "major-faults": bool(disturbance.major_faults),
    }
    return tuple(reason for reason, tainted in checks.items() if tainted)


def advice(reason: str) -> str:
    """One sentence for a taint reason: what it means and what to change."""
    return (ADVICE | GPU_ADVICE).get(reason, f"{reason}: recorded by a version of the farm that knows more about it")


def _exceeds(ratio: float | None, *limits: float) -> bool:
    return ratio is not None and ratio > max(limits)


def _sampling_error_ns(busy_ns: Sequence[int], wall_ns: int) -> float:
    """Standard error of the cores' busy time: wall / interval samples of each, with variance p (1 - p) interval²."""
    shares = [min(core_ns / wall_ns, 1) for core_ns in busy_ns]
    return math.sqrt(sum(share * (1 - share) for share in shares) * wall_ns * SAMPLING_NS)


def _share(part_ns: float | None, whole_ns: int) -> float | None:
    return None if part_ns is None else part_ns / whole_ns


def _growth(before: int | None, after: int | None) -> int | None:
    """What was added. Steal is known to step back a little on some hosts: that is nothing."""
    return None if before is None or after is None else max(after - before, 0)


def _energy_j(before: Sequence[Energy], after: Sequence[Energy]) -> float | None:
    """What was used. A counter that has gone back has been full once: that takes minutes, a turn less than one."""
    if not before or len(before) != len(after):
        return None
    grown = ((late.used_uj - early.used_uj) % late.range_uj for early, late in zip(before, after, strict=True))
    return sum(grown) / 1e6


def _growth_of_remaining(before: Mapping[int, int], after: Mapping[int, int]) -> int | None:
    """What was added to the processes that were there both times; None if there were none."""
    both = before.keys() & after.keys()
    return sum(max(after[pid] - before[pid], 0) for pid in both) if both else None


def _growth_of_threads(before: Snapshot, after: Snapshot, count: Callable[[ThreadWaits], int | None]) -> int | None:
    """What was added to the threads that are still there; those born in between began at zero."""
    if before.threads is None or after.threads is None:
        return None
    early = {thread: count(waits) or 0 for thread, waits in before.threads.items()}
    late = {thread: now for thread, waits in after.threads.items() if (now := count(waits)) is not None}
    return sum(max(now - early.get(thread, 0), 0) for thread, now in late.items()) if late else None
