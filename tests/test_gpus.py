"""What there is and what changes on a GPU, as its driver tells it: what it does not tell stays unknown."""

from __future__ import annotations

from dataclasses import replace

import pynvml
import pytest
from fake_nvml import NOT_FOUND, PERMISSION, UNSUPPORTED, Board, FakeNvml
from made_up import MACHINE, SLOT

from farm.gpu_cohort import GpuSide
from farm.gpu_guards import GPU_ADVICE, GpuDisturbance, GpuWatch, OwnProcesses, gpu_taint_reasons
from farm.gpus import GpuMeter, cpus_of, find_gpus, identify, throttle_names, visible_to_cuda
from farm.guards import advice
from farm.nodes import Node
from farm.slots import near, shares_of_gpus, slots_of

POWER, IDLE, SET_BY_SOMEBODY, HOT = (
    pynvml.nvmlClocksEventReasonSwPowerCap,
    pynvml.nvmlClocksEventReasonGpuIdle,
    pynvml.nvmlClocksEventReasonApplicationsClocksSetting,
    pynvml.nvmlClocksEventReasonHwThermalSlowdown,
)
TWO = (Board(uuid="GPU-a"), Board(uuid="GPU-b", name="Other"))


def test_gpus_are_described_and_the_library_is_closed_again() -> None:
    library = FakeNvml(*TWO)
    (first, second), why = find_gpus(library)
    assert (first.name, first.uuid, first.capability, first.driver_cuda) == ("Made Up H200", "GPU-a", (9, 0), 13)
    assert (second.uuid, why, library.open) == ("GPU-b", "", 0)


@pytest.mark.parametrize(
    ("visible", "found"),
    [("1", ["GPU-b"]), ("GPU-b,GPU-a", ["GPU-b", "GPU-a"]), ("1,-1,0", ["GPU-b"]), (None, ["GPU-a", "GPU-b"])],
)
def test_only_what_cuda_may_see_is_there(visible: str | None, found: list[str]) -> None:
    gpus, why = find_gpus(FakeNvml(*TWO), visible)
    assert [gpu.uuid for gpu in gpus] == found
    assert not why


@pytest.mark.parametrize(
    ("visible", "reason"),
    [
        ("", "CUDA_VISIBLE_DEVICES is empty, which hides every GPU"),
        ("-1", "CUDA_VISIBLE_DEVICES=-1 hides every GPU: it begins with none of the driver's 2"),
        ("GPU-gone,0", "CUDA_VISIBLE_DEVICES=GPU-gone,0 hides every GPU"),
        ("MIG-4c1e", "CUDA_VISIBLE_DEVICES=MIG-4c1e is a part of a GPU"),
    ],
)
def test_where_cuda_may_see_none_it_is_said_why(visible: str, reason: str) -> None:
    gpus, why = find_gpus(FakeNvml(*TWO), visible)
    assert gpus == ()
    assert reason in why


def test_what_ray_hides_from_work_without_a_gpu_is_there_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("RAY_RAYLET_PID", raising=False)
    assert visible_to_cuda() == ""
    monkeypatch.setenv("RAY_RAYLET_PID", "7")
    assert visible_to_cuda() is None


def test_without_a_driver_there_are_none_and_the_driver_says_why() -> None:
    gpus, why = find_gpus(FakeNvml(refused={"nvmlInit": NOT_FOUND}))
    assert (gpus, why) == ((), "NVML Shared Library Not Found")


def test_what_a_driver_does_not_tell_of_a_gpu_is_unknown() -> None:
    refused = {"nvmlDeviceGetCpuAffinity": UNSUPPORTED, "nvmlDeviceGetCudaComputeCapability": UNSUPPORTED}
    ((gpu,), _) = find_gpus(FakeNvml(Board(), refused=refused))
    assert (gpu.near_cpus, gpu.capability) == ((), None)


def test_affinity_words_hold_64_cpus_each() -> None:
    assert cpus_of([0b101, 1 << 63]) == [0, 2, 127]


def test_a_gpu_is_named_by_its_uuid_whatever_number_ray_gives_it() -> None:
    library = FakeNvml(*TWO)
    assert [identify("0,1", place, library) for place in (0, 1)] == ["GPU-a", "GPU-b"]
    assert identify("GPU-b", 0, library) == "GPU-b"
    assert identify("1", 0, FakeNvml(refused={"nvmlInit": NOT_FOUND})) == "1"


def test_a_slot_takes_the_cores_on_its_gpus_side_and_says_which_gpu() -> None:
    gpus, _ = find_gpus(FakeNvml(Board(affinity=(0b0011,)), Board(uuid="GPU-far", affinity=(0b1100,))))
    machine = replace(MACHINE, gpus=("a", "b"), gpu_devices=gpus)
    first, second = slots_of(Node("node", 4.0, 2.0, machine), ["cuda"], "idle")
    assert (first.cores, second.cores) == ((0, 1), (2, 3))
    assert (first.gpu_uuid, second.gpu_uuid, second.gpu_index, second.ray_gpus) == ("GPU-0", "GPU-far", 1, 2.0)


@pytest.mark.parametrize("near_cpus", [(), (90, 91)])
def test_a_gpu_that_is_near_none_of_the_cores_gets_them_all(near_cpus: tuple[int, ...]) -> None:
    ((gpu,), _) = find_gpus(FakeNvml(Board()))
    assert near(replace(gpu, near_cpus=near_cpus), (0, 1)) == (0, 1)


def test_gpus_that_measure_at_the_same_time_share_the_cores_on_their_own_side() -> None:
    cores = tuple(range(8))
    gpus, _ = find_gpus(FakeNvml(*(Board(affinity=(mask,)) for mask in (0xF0, 0x0F, 0xF0))))
    assert shares_of_gpus(gpus, cores) == [(4, 5), (0, 1, 2, 3), (6, 7)]
    machine = replace(MACHINE, usable_cpus=cores, smt_siblings=tuple((core,) for core in cores), gpu_devices=gpus)
    slots = slots_of(Node("node", 8.0, 3.0, replace(machine, gpus=("a",) * 3)), ["cuda"], "use", "slot")
    assert [slot.cores for slot in slots] == [(4, 5), (1, 2, 3), (6, 7)]  # the first core keeps house
    untold = [replace(gpus[0], near_cpus=()), gpus[1]]
    assert shares_of_gpus(untold, cores) == [(0, 1, 2, 3), (4, 5, 6, 7)]


# Readings


def test_everything_is_read_at_once() -> None:
    board = Board(processes=[7, 5], reasons=POWER | IDLE, sm_mhz=1500, energy_mj=12, errors={0: 2, 1: 1}, xids=[79, 94])
    read = GpuMeter("GPU-0", FakeNvml(board)).read()
    assert (read.processes, read.throttle, read.sm_mhz, read.energy_mj) == ((5, 7), ("power-cap",), 1500, 12)
    assert (read.corrected_errors, read.uncorrected_errors, read.xid_errors) == (2, 1, 2)


@pytest.mark.parametrize(
    ("function", "field"),
    [
        ("nvmlDeviceGetComputeRunningProcesses_v3", "processes"),
        ("nvmlDeviceGetCurrentClocksEventReasons", "throttle"),
        ("nvmlDeviceGetClockInfo", "sm_mhz"),
        ("nvmlDeviceGetTotalEnergyConsumption", "energy_mj"),
        ("nvmlDeviceGetTotalEccErrors", "uncorrected_errors"),
        ("nvmlEventSetCreate", "xid_errors"),
        ("nvmlDeviceRegisterEvents", "xid_errors"),
        ("nvmlDeviceGetTemperature", "temperature_c"),
    ],
)
def test_a_missing_permission_leaves_one_reading_unknown_and_no_other(function: str, field: str) -> None:
    read = GpuMeter("GPU-0", FakeNvml(Board(), refused={function: PERMISSION})).read()
    assert getattr(read, field) is None


def test_what_a_killed_application_leaves_in_the_drivers_log_is_no_error_of_the_chips() -> None:
    assert GpuMeter("GPU-0", FakeNvml(Board(xids=[45, 31, 79, 43]))).read().xid_errors == 1


@pytest.mark.parametrize("function", ["nvmlDeviceGetComputeRunningProcesses_v3", "nvmlEventSetWait_v2"])
def test_the_librarys_functions_have_these_names(function: str) -> None:
    assert callable(getattr(pynvml, function))


def test_the_default_clock_is_the_highest_where_a_board_has_no_default() -> None:
    board = Board(default_mhz=1700, max_mhz=2100)
    assert GpuMeter("GPU-0", FakeNvml(board)).default_mhz == 1700
    refused = {"nvmlDeviceGetDefaultApplicationsClock": UNSUPPORTED}
    assert GpuMeter("GPU-0", FakeNvml(board, refused=refused)).default_mhz == 2100


def test_an_idle_gpu_and_clocks_that_somebody_set_are_not_throttled() -> None:
    assert throttle_names(IDLE | SET_BY_SOMEBODY) == ()
    assert throttle_names(POWER | HOT) == ("power-cap", "hardware-thermal")


# Whose processes


def test_a_process_of_the_same_numbering_is_known_by_its_id() -> None:
    own = OwnProcesses(before=[3])
    own.arrived(10, [3, 10])
    assert own.foreign([3, 10]) == 1
    assert own.foreign([10]) == 0


def test_in_a_container_cells_are_known_by_when_they_come() -> None:
    own = OwnProcesses(before=[])
    own.arrived(10, [4711])
    own.arrived(11, [4711, 4712])
    assert own.foreign([4711, 4712]) == 0
    assert own.foreign([4711, 4712, 9]) == 1


@pytest.mark.parametrize("listed", [[], [1, 2], None])
def test_where_a_cell_cannot_be_told_from_others_nothing_is_claimed(listed: list[int] | None) -> None:
    own = OwnProcesses(before=[])
    own.arrived(10, listed)
    assert own.foreign([1, 2, 3]) is None


def test_a_driver_that_lists_no_processes_leaves_them_unknown() -> None:
    own = OwnProcesses(before=None)
    own.arrived(10, [10])
    assert own.foreign([10, 11]) is None


# Turns


def quiet(**changes: object) -> GpuDisturbance:
    """A turn with everything known and nothing wrong, changed as asked."""
    usual = {"gpu_foreign": 0, "gpu_throttle": (), "gpu_sm_mhz": 1980.0, "gpu_uncorrected_errors": 0}
    more = {"gpu_xid_errors": 0, "gpu_corrected_errors": 0, "gpu_energy_j": 1.0, "gpu_temperature_c": 60.0}
    return GpuDisturbance(**{**usual, **more, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, ()),
        ({"gpu_foreign": 1}, ("gpu-foreign",)),
        ({"gpu_throttle": ("thermal",)}, ("gpu-throttled",)),
        ({"gpu_sm_mhz": 1486.0}, ()),
        ({"gpu_sm_mhz": 1484.0}, ("gpu-clock",)),
        ({"gpu_uncorrected_errors": 1}, ("gpu-errors",)),
        ({"gpu_xid_errors": 1}, ("gpu-errors",)),
        ({"gpu_corrected_errors": 5, "gpu_temperature_c": 90.0}, ()),
        (dict.fromkeys(GpuDisturbance.__dataclass_fields__), ()),
    ],
)
def test_a_turn_on_a_gpu_is_distrusted_for_what_is_known(changes: dict[str, object], reasons: tuple[str, ...]) -> None:
    assert gpu_taint_reasons(quiet(**changes), default_mhz=1980) == reasons


def test_a_clock_without_a_default_to_hold_it_against_never_taints() -> None:
    assert gpu_taint_reasons(quiet(gpu_sm_mhz=10.0), default_mhz=None) == ()


def test_every_reason_of_a_gpu_comes_with_advice() -> None:
    assert all(":" in advice(reason) and reason not in advice(reason) for reason in GPU_ADVICE)


def test_a_turn_is_judged_by_its_middle_and_counted_over_its_whole() -> None:
    board = Board()
    watch = GpuWatch(GpuMeter("GPU-0", FakeNvml(board)))
    side = GpuSide(replace(SLOT, gpu="Made Up H200"), lambda _: watch)
    board.processes = [1]
    side.arrived(1)
    side.before_turn()
    board.sm_mhz, board.reasons, board.energy_mj = 900, POWER, 500
    side.amid_turn(0.0)
    board.sm_mhz, board.reasons, board.energy_mj, board.errors = 1980, IDLE, 30_000, {0: 0, 1: 1}
    seen, reasons = side.after_turn()
    assert (seen["gpu_sm_mhz"], seen["gpu_throttle"], seen["gpu_energy_j"]) == (900, ("power-cap",), 30.0)
    assert reasons == ("gpu-throttled", "gpu-clock", "gpu-errors")


def test_amid_a_turn_only_the_clock_is_asked_for_and_processes_are_those_around_it() -> None:
    board = Board()
    library = FakeNvml(board)
    watch = GpuWatch(GpuMeter("GPU-0", library))
    side = GpuSide(replace(SLOT, gpu="x"), lambda _: watch)
    side.before_turn()
    library.asked.clear()
    side.amid_turn(0.0)
    assert library.asked == ["nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetClockInfo"]
    board.processes = [99]
    seen, reasons = side.after_turn()
    assert (seen["gpu_foreign"], reasons) == (1, ("gpu-foreign",))


def test_what_a_cell_takes_of_a_gpus_memory_is_by_how_much_its_use_grew() -> None:
    board = Board(used_bytes=5)
    side = GpuSide(replace(SLOT, gpu="x"), lambda _: GpuWatch(GpuMeter("GPU-0", FakeNvml(board))))
    with side.growth() as grown:
        board.used_bytes = 12
    board.used_bytes = 99
    assert grown() == 7


def test_without_a_gpu_nothing_is_read_and_nothing_is_waited_for() -> None:
    side = GpuSide(SLOT)
    side.before_turn()
    side.amid_turn(1e9)
    assert side.after_turn() == ({}, ())
    with side.growth() as grown:
        pass
    assert grown() is None
