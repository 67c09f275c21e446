"""What the kernel counts: one function for each file of /proc and /sys, None where the platform does not tell.

Files are read with os.open, not through Path: a snapshot may read a hundred, and this takes a quarter of the time.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

TICK_NS = 1_000_000_000 // (os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100)
"""The unit of CPU time in /proc: 10 ms on every Linux."""

CPUCLOCK_SCHED = 2
"""The kernel's number for the clock of a process's CPU time (include/linux/posix-timers.h)."""

PIECE_BYTES = 1 << 16
SHORT_BYTES = 2_048
"""A file of /proc that comes in pieces comes in pieces of nearly a page of 4 KiB, never less than half of one."""

FREQUENCY_CORES = 8
"""The frequency is read from at most 8 of the cores: each reading may ask the core itself."""


def process_cpu_ns(pid: int) -> int | None:
    """CPU time of a process in all its threads, ended ones too; None without such a process or such a clock.

    The clock's id is what clock_getcpuclockid(3) returns. One system call, exact to the nanosecond, where the
    process's stat counts in ticks and its threads' files lose those that have ended.
    """
    if sys.platform != "linux":
        return None
    try:
        return time.clock_gettime_ns((~pid << 3) | CPUCLOCK_SCHED)
    except OSError:
        return None


def stat_cpu_ns(root: Path, pid: int) -> int | None:
    """CPU time of a process as its stat has it, in whole ticks: for platforms without its clock."""
    fields = _process_stat(root, pid)
    return (int(fields[11]) + int(fields[12])) * TICK_NS if fields else None


def major_faults(root: Path, pid: int) -> int | None:
    """Page faults of a process that had to wait for a disk."""
    fields = _process_stat(root, pid)
    return int(fields[9]) if fields else None


class ThreadWaits(NamedTuple):
    """What the kernel counts about a thread's way to a core."""

    arrivals: int | None
    """How often it was put on a core."""
    run_delay_ns: int | None
    """How long it was ready to run and waited for one."""
    involuntary_switches: int | None
    """How often it was taken off one before it was done."""


def thread_waits(root: Path, pid: int, known: Mapping[int, ThreadWaits]) -> dict[int, ThreadWaits] | None:
    """The waits of each thread of a process; `known` are those of an earlier reading.

    Switches stand in a long file that takes the kernel twice as long as all else here, so it is not read again for a
    thread that has not been on a core since. Threads may end while they are being listed.
    """
    folder = f"{root}/proc/{pid}/task"
    try:
        threads = os.listdir(folder)  # noqa: PTH208 - see the module's docstring
    except OSError:
        return None
    waits = {}
    for name in threads:
        schedstat = _read(f"{folder}/{name}/schedstat").split()
        delay_ns, arrivals = (int(schedstat[1]), int(schedstat[2])) if len(schedstat) == 3 else (None, None)
        earlier = known.get(int(name))
        if earlier is None or arrivals is None or earlier.arrivals != arrivals:
            _, _, switches = _read(f"{folder}/{name}/status").rpartition(b"\nnonvoluntary_ctxt_switches:")
            waits[int(name)] = ThreadWaits(arrivals, delay_ns, int(switches) if switches else None)
        else:
            waits[int(name)] = earlier._replace(run_delay_ns=delay_ns)
    return waits


def cores_ns(root: Path, cores: Collection[int]) -> tuple[tuple[int, ...], int] | None:
    """Busy time of each of these cores and their stolen time summed; None unless all are shown and ever counted.

    Columns of proc_stat(5): user nice system idle iowait irq softirq steal; a guest's time is in user.
    """
    labels = {f"cpu{core}".encode() for core in cores}
    told = (line.split() for line in _read(f"{root}/proc/stat").splitlines())
    rows = [[int(count) for count in fields[1:9]] for fields in told if fields and fields[0] in labels]
    # A sandbox may show fewer CPUs than there are, or CPUs whose every counter stays at zero.
    if len(rows) < len(labels) or any(len(row) < 8 or not any(row) for row in rows):
        return None
    busy = tuple((sum(row[:3]) + row[5] + row[6]) * TICK_NS for row in rows)
    return busy, sum(row[7] for row in rows) * TICK_NS


def pressure_ns(root: Path) -> int | None:
    """Time in which some thread of the machine waited for a core (kernel: accounting/psi.rst; in microseconds)."""
    some, _, _ = _read(f"{root}/proc/pressure/cpu").partition(b"\n")
    _, _, total = some.partition(b"total=")
    return int(total) * 1_000 if total else None


def mean_mhz(root: Path, cores: Sequence[int]) -> float | None:
    """Mean current frequency of these cores, as the platform reports it; in many virtual machines a constant."""
    sampled = cores[:: -(-len(cores) // FREQUENCY_CORES) or 1]
    names = [f"{root}/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq" for core in sampled]
    found = [int(khz) / 1e3 for name in names if (khz := _read(name))] or _cpuinfo_mhz(root, sampled)
    return sum(found) / len(found) if found else None


def _cpuinfo_mhz(root: Path, cores: Collection[int]) -> list[float]:
    found, core = [], -1
    for line in _read(f"{root}/proc/cpuinfo").splitlines():
        key, _, value = line.partition(b":")
        if key.startswith(b"processor"):
            core = int(value)
        elif key.startswith(b"cpu MHz") and core in cores:
            found.append(float(value))
    return found


class Energy(NamedTuple):
    """What one part of the machine has used, and where its counter starts again at zero; in microjoules."""

    used_uj: int
    range_uj: int


def energy_folders(root: Path) -> tuple[str, ...]:
    """The folders of the packages' and their memories' energy, as far as this process may read them; often root alone.

    Kernel: power/powercap/powercap.rst. `intel-rapl:0` (AMD's too) is a package, `intel-rapl:0:1` a part: cores and
    uncore lie within the package, memory beside it. `psys` and intel-rapl-mmio count the same energy once more.
    """
    folders = [str(path) for path in sorted((root / "sys/class/powercap").glob("intel-rapl:*"))]
    named = [(folder, _read(f"{folder}/name")) for folder in folders]
    found = [folder for folder, name in named if name.startswith(b"package") or name.strip() == b"dram"]
    return tuple(folder for folder in found if energy([folder]))


def energy(folders: Sequence[str]) -> tuple[Energy, ...]:
    """The counters of these folders, in their order; none unless all can be read."""
    texts = [(_read(f"{folder}/energy_uj"), _read(f"{folder}/max_energy_range_uj")) for folder in folders]
    return tuple(Energy(int(used), int(most)) for used, most in texts) if all(map(all, texts)) else ()


def throttle_files(root: Path) -> tuple[str, ...]:
    """The cpu.stat files that count throttling of this process: its cgroup's and those above it, as far as visible.

    A container sees its own cgroup at the root of the mount, whatever path the kernel tells it.
    """
    found = []
    told = _read(f"{root}/proc/self/cgroup").decode().splitlines() or ["0::/", "1:cpu:/"]
    for line in told:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        inner = PurePosixPath(*(part for part in PurePosixPath(path).parts if part not in {"/", ".."}))
        # Version 2 has one tree; version 1 one for each controller, the CPU's by convention under this name.
        tree = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        names = [f"{tree / folder}/cpu.stat" for folder in (inner, *inner.parents)]
        found += [name for name in names if throttled_ns([name]) is not None]
    return tuple(found)


def throttled_ns(files: Sequence[str]) -> int | None:
    """Time for which the cgroups of these cpu.stat files were throttled: version 2 counts in µs, version 1 in ns."""
    known = []
    for name in files:
        counts = dict(fields for line in _read(name).splitlines() if len(fields := line.split()) == 2)
        if b"throttled_usec" in counts:
            known.append(int(counts[b"throttled_usec"]) * 1_000)
        elif b"throttled_time" in counts:
            known.append(int(counts[b"throttled_time"]))
    return sum(known) if known else None


def _process_stat(root: Path, pid: int) -> list[bytes]:
    """Fields of a process's stat from its state on; the name before that may hold spaces and parentheses."""
    return _read(f"{root}/proc/{pid}/stat").rpartition(b")")[2].split()


def _read(name: str) -> bytes:
    """A file's content; nothing where it is missing, may not be read, or its process has ended."""
    try:
        descriptor = os.open(name, os.O_RDONLY)
    except OSError:
        return b""
    try:
        content = piece = os.read(descriptor, PIECE_BYTES)
        # The kernel gives a short file whole, a long one in pieces; asking for the end of each costs a fifth.
        while len(piece) >= SHORT_BYTES:
            piece = os.read(descriptor, PIECE_BYTES)
            content += piece
        return content
    except OSError:
        return b""
    finally:
        os.close(descriptor)
