"""Each counter is read from where containers and virtual machines keep it; what is not there is unknown."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from farm.counters import TICK_NS
from farm.guards import Snapshot, Watch, disturbance

CELL, OWN = 40, 50


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_cores(root: Path, *rows: str) -> None:
    """One row of counters for each CPU: user nice system idle iowait irq softirq steal guest guest_nice."""
    lines = [f"cpu{number} {row}" for number, row in enumerate(rows)]
    write(root, "proc/stat", "\n".join(["cpu  999 999 999 999 999 999 999 999 0 0", *lines, "intr 5 0 0", ""]))


def write_process(root: Path, pid: int, *, faults: int = 0, user: int = 0, system: int = 0) -> None:
    numbers = [0] * 8 + [faults, 0, user, system] + [0] * 38
    write(root, f"proc/{pid}/stat", f"{pid} (a ) (b) S {' '.join(map(str, numbers))}\n")


def write_thread(root: Path, thread: int, *, switches: int, delay_ns: int, arrivals: int = 1) -> None:
    folder = f"proc/{CELL}/task/{thread}"
    write(root, f"{folder}/status", f"Name:\tx\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t{switches}\n")
    write(root, f"{folder}/schedstat", f"123 {delay_ns} {arrivals}\n")


def watch(root: Path, cores: tuple[int, ...] = (0, 1)) -> Watch:
    return Watch(cores, [OWN], root, cpu_clock=lambda _: None)


def test_busy_and_stolen_time_are_those_of_the_slots_cores_alone(tmp_path: Path) -> None:
    write_cores(tmp_path, "1 2 3 50 60 4 5 6 1 0", "100 0 0 0 0 0 0 100 0 0", "10 20 30 500 600 40 50 60 0 0")
    seen = watch(tmp_path, (0, 2)).snapshot(CELL)
    assert seen.busy_ns == ((1 + 2 + 3 + 4 + 5) * TICK_NS, (10 + 20 + 30 + 40 + 50) * TICK_NS)
    assert seen.steal_ns == 66 * TICK_NS


def test_a_core_that_is_not_shown_makes_the_slots_time_unknown(tmp_path: Path) -> None:
    write_cores(tmp_path, "1 2 3 50 60 4 5 6 0 0")
    assert watch(tmp_path, (0, 1)).snapshot(CELL).busy_ns is None


def test_counters_that_never_moved_are_a_sandboxs_and_unknown(tmp_path: Path) -> None:
    write_cores(tmp_path, "0 0 0 0 0 0 0 0 0 0", "0 0 0 0 0 0 0 0 0 0")
    seen = watch(tmp_path).snapshot(CELL)
    assert (seen.busy_ns, seen.steal_ns) == (None, None)


def test_a_process_is_read_whatever_its_name(tmp_path: Path) -> None:
    write_process(tmp_path, CELL, faults=3, user=20, system=5)
    write_process(tmp_path, OWN, user=1, system=1)
    seen = watch(tmp_path).snapshot(CELL)
    assert (seen.major_faults, seen.cell_cpu_ns, seen.own_cpu_ns) == (3, 25 * TICK_NS, {OWN: 2 * TICK_NS})


def test_a_cell_counted_among_the_farms_own_is_not_counted_twice(tmp_path: Path) -> None:
    write_process(tmp_path, OWN, user=20)
    assert watch(tmp_path).snapshot(OWN).own_cpu_ns == {}


def test_waits_are_added_over_threads_that_come_and_go(tmp_path: Path) -> None:
    write_thread(tmp_path, 40, switches=100, delay_ns=1_000)
    write_thread(tmp_path, 41, switches=900, delay_ns=9_000)
    guard = watch(tmp_path)
    before = guard.snapshot(CELL)
    for name in ("status", "schedstat"):
        (tmp_path / f"proc/{CELL}/task/41/{name}").unlink()  # listed, but gone when it is read
    write_thread(tmp_path, 40, switches=103, delay_ns=1_500, arrivals=2)
    write_thread(tmp_path, 42, switches=2, delay_ns=70)
    seen = disturbance(before, guard.snapshot(CELL), 2)
    assert (seen.involuntary_switches, seen.run_delay_ns) == (5, 570)


def test_switches_of_a_thread_that_was_on_no_core_are_not_read_again(tmp_path: Path) -> None:
    write_thread(tmp_path, 40, switches=100, delay_ns=1_000)
    guard = watch(tmp_path)
    before = guard.snapshot(CELL)
    write_thread(tmp_path, 40, switches=555, delay_ns=1_000)
    assert disturbance(before, guard.snapshot(CELL), 2).involuntary_switches == 0


@pytest.mark.parametrize(("missing", "known"), [("schedstat", (3, None)), ("status", (None, 60))])
def test_switches_and_delay_are_known_without_one_another(
    tmp_path: Path, missing: str, known: tuple[int | None, int | None]
) -> None:
    guard = watch(tmp_path)
    snapshots = []
    for switches, delay_ns in ((1, 10), (4, 70)):
        write_thread(tmp_path, 40, switches=switches, delay_ns=delay_ns, arrivals=switches)
        (tmp_path / f"proc/{CELL}/task/40/{missing}").unlink()
        snapshots.append(guard.snapshot(CELL))
    seen = disturbance(*snapshots, cores=2)
    assert (seen.involuntary_switches, seen.run_delay_ns) == known


@pytest.mark.parametrize(
    ("told", "name", "text"),
    [
        ("0::/jobs/farm\n", "sys/fs/cgroup/jobs/farm/cpu.stat", "usage_usec 9\nnr_throttled 2\nthrottled_usec 5\n"),
        ("0::/jobs/farm\n", "sys/fs/cgroup/jobs/cpu.stat", "throttled_usec 5\n"),
        ("0::/../elsewhere\n", "sys/fs/cgroup/cpu.stat", "throttled_usec 5\n"),
        ("", "sys/fs/cgroup/cpu.stat", "throttled_usec 5\n"),
        ("4:cpu,cpuacct:/box\n0::/\n", "sys/fs/cgroup/cpu/box/cpu.stat", "nr_throttled 1\nthrottled_time 5000\n"),
        ("4:cpuacct,cpu:/docker/9f\n", "sys/fs/cgroup/cpu/cpu.stat", "nr_throttled 1\nthrottled_time 5000\n"),
    ],
    ids=["own", "above", "container", "untold", "version-1", "version-1-container"],
)
def test_throttling_is_found_in_either_cgroup_version(tmp_path: Path, told: str, name: str, text: str) -> None:
    write(tmp_path, "proc/self/cgroup", told)
    write(tmp_path, name, text)
    assert watch(tmp_path).snapshot(CELL).throttled_ns == 5_000


def test_a_cgroup_that_counts_no_throttling_leaves_it_unknown(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write(tmp_path, "sys/fs/cgroup/cpu.stat", "usage_usec 9\nuser_usec 5\n")
    assert watch(tmp_path).snapshot(CELL).throttled_ns is None


def test_pressure_is_the_time_in_which_some_thread_waited(tmp_path: Path) -> None:
    some, full = "some avg10=0.73 avg60=0.72 avg300=1.24 total=2807", "full avg10=0.00 avg60=0.00 avg300=0.00 total=1"
    write(tmp_path, "proc/pressure/cpu", f"{some}\n{full}\n")
    assert watch(tmp_path).snapshot(CELL).pressure_ns == 2_807_000


def test_the_frequency_is_the_mean_of_the_slots_cores(tmp_path: Path) -> None:
    for core, khz in enumerate((9_000_000, 2_000_000, 3_000_000)):
        write(tmp_path, f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", f"{khz}\n")
    assert watch(tmp_path, (1, 2)).snapshot(CELL).mhz == 2_500


def test_the_frequency_comes_from_cpuinfo_where_no_driver_tells_it(tmp_path: Path) -> None:
    cores = [f"processor\t: {core}\ncpu MHz\t\t: {mhz}\n" for core, mhz in enumerate((9000.0, 2000.5, 3000.5))]
    write(tmp_path, "proc/cpuinfo", "\n".join(cores))
    assert watch(tmp_path, (1, 2)).snapshot(CELL).mhz == 2_500.5


def test_what_no_file_tells_is_unknown_not_fine(tmp_path: Path) -> None:
    seen = watch(tmp_path).snapshot(CELL)
    assert seen == Snapshot(seen.taken_ns, None, None, None, None, None, {}, None, None, None)
    told = asdict(disturbance(seen, seen, 2))
    assert {name for name, value in told.items() if value is not None} == {"wall_ns", "slot_ns"}


def write_energy(root: Path, folder: str, name: str, used_uj: int, range_uj: int = 1_000_000) -> None:
    for file, content in {"name": name, "energy_uj": used_uj, "max_energy_range_uj": range_uj}.items():
        write(root, f"sys/class/powercap/{folder}/{file}", f"{content}\n")


def test_energy_is_that_of_packages_and_their_memory(tmp_path: Path) -> None:
    write_energy(tmp_path, "intel-rapl:0", "package-0", 100)
    write_energy(tmp_path, "intel-rapl:0:0", "core", 50)
    write_energy(tmp_path, "intel-rapl:0:1", "dram", 7)
    write_energy(tmp_path, "intel-rapl:1", "psys", 500)
    write_energy(tmp_path, "intel-rapl-mmio:0", "package-0", 100)
    assert sorted(reading.used_uj for reading in watch(tmp_path).snapshot(CELL).energy) == [7, 100]


def test_an_energy_counter_that_started_over_has_gone_on(tmp_path: Path) -> None:
    write_energy(tmp_path, "intel-rapl:0", "package-0", 900_000)
    write_energy(tmp_path, "intel-rapl:0:0", "dram", 10_000)
    watching = watch(tmp_path)
    before = watching.snapshot(CELL)
    write_energy(tmp_path, "intel-rapl:0", "package-0", 200_000)
    write_energy(tmp_path, "intel-rapl:0:0", "dram", 60_000)
    assert disturbance(before, watching.snapshot(CELL), 2).energy_j == pytest.approx(0.35)


def test_energy_that_only_root_may_read_is_unknown(tmp_path: Path) -> None:
    write(tmp_path, "sys/class/powercap/intel-rapl:0/name", "package-0\n")
    watching = watch(tmp_path)
    before = watching.snapshot(CELL)
    assert before.energy == ()
    assert disturbance(before, watching.snapshot(CELL), 2).energy_j is None
