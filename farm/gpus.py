"""NVIDIA GPUs as their driver shows them (NVML): what there is, and one reading of what may change under a cell.

The library is reached through `Nvml` alone, so that everything above it can be tried without a GPU. Whatever the
driver does not tell, or not to this user or container, is None: unknown, not fine. Nothing here sets anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pynvml

from farm.records import Gpu

Value = TypeVar("Value")

BITS_OF_WORD = 64
"""CPUs in one word of the driver's affinity mask."""

THROTTLE_BITS = {
    "power-cap": pynvml.nvmlClocksEventReasonSwPowerCap,
    "hardware-slowdown": pynvml.nvmlClocksEventReasonHwSlowdown,
    "thermal": pynvml.nvmlClocksEventReasonSwThermalSlowdown,
    "hardware-thermal": pynvml.nvmlClocksEventReasonHwThermalSlowdown,
    "power-brake": pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
}
"""Reasons for a lower clock that something forced. An idle GPU, and clocks that an administrator has set, are none."""

APPLICATION_XIDS = frozenset({13, 31, 43, 45})
"""Errors that an application brings upon itself, or leaves where it was killed: they say nothing of the chip
(https://docs.nvidia.com/deploy/xid-errors/)."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one GPU's driver says at one instant. None is unknown."""

    processes: tuple[int, ...] | None = None
    """Ids of the processes that compute on it, by the driver's own numbering, which need not be a container's."""
    throttle: tuple[str, ...] | None = None
    sm_mhz: float | None = None
    energy_mj: int | None = None
    """Since the driver was loaded."""
    corrected_errors: int | None = None
    uncorrected_errors: int | None = None
    """Of its memory, since the driver was loaded."""
    xid_errors: int | None = None
    """Errors the driver has reported since this object watches."""
    temperature_c: float | None = None


@contextmanager
def nvml(library: Any = pynvml) -> Iterator[Any]:
    """The library, initialized. Raises its NVMLError where there is no driver, or none that answers."""
    library.nvmlInit()
    try:
        yield library
    finally:
        library.nvmlShutdown()


def find_gpus(library: Any = pynvml, visible: str | None = None) -> tuple[tuple[Gpu, ...], str]:
    """The GPUs that `visible` (CUDA_VISIBLE_DEVICES; None: all) leaves, in its order, and why there are none."""
    try:
        with nvml(library):
            count = library.nvmlDeviceGetCount()
            gpus = tuple(_describe(library, library.nvmlDeviceGetHandleByIndex(number)) for number in range(count))
    except library.NVMLError as error:
        return (), str(error)
    if not gpus:
        return (), "the driver reports no GPU"
    chosen = gpus if visible is None else _chosen(gpus, visible)
    return chosen, "" if chosen else _why_hidden(visible or "", len(gpus))


def identify(visible: str, index: int, library: Any = pynvml) -> str:
    """The UUID of the GPU that stands at `index` in `visible`, a list of numbers or UUIDs as Ray hands it out.

    CUDA may count in another order than the driver; a UUID names the same GPU to both. Where the driver cannot be
    asked, the entry itself is returned.
    """
    entries = _entries(visible)
    if not entries:
        return ""
    entry = entries[index if index < len(entries) else 0]
    if not entry.isdecimal():
        return entry
    with suppress(library.NVMLError), nvml(library):
        return str(library.nvmlDeviceGetUUID(library.nvmlDeviceGetHandleByIndex(int(entry))))
    return entry


class GpuMeter:
    """Reads one GPU again and again; the library stays initialized as long as this object lives."""

    def __init__(self, uuid: str, library: Any = pynvml) -> None:
        """Raises the library's NVMLError where there is no such GPU."""
        self._library = library
        library.nvmlInit()
        find = library.nvmlDeviceGetHandleByIndex if uuid.isdecimal() else library.nvmlDeviceGetHandleByUUID
        self._handle = find(int(uuid) if uuid.isdecimal() else uuid)
        self._xids = 0
        self._events = self._known(self._watch_errors)

    @property
    def default_mhz(self) -> float | None:
        """The clock that the SMs run at unless something keeps them: the default for applications, else the highest."""
        library = self._library
        told = self._known(lambda: library.nvmlDeviceGetDefaultApplicationsClock(self._handle, library.NVML_CLOCK_SM))
        return told or self._known(lambda: library.nvmlDeviceGetMaxClockInfo(self._handle, library.NVML_CLOCK_SM))

    def read_clock(self) -> Reading:
        """What a running turn alone can tell: its clock, and why that is low. All else would disturb it for longer."""
        library, handle = self._library, self._handle
        reasons = self._known(lambda: library.nvmlDeviceGetCurrentClocksEventReasons(handle))
        return Reading(
            throttle=None if reasons is None else throttle_names(reasons),
            sm_mhz=self._known(lambda: float(library.nvmlDeviceGetClockInfo(handle, library.NVML_CLOCK_SM))),
        )

    def read(self) -> Reading:
        """Everything at this instant; some tenths of a millisecond."""
        library, handle = self._library, self._handle
        return replace(
            self.read_clock(),
            processes=self._known(self._processes),
            energy_mj=self._known(lambda: int(library.nvmlDeviceGetTotalEnergyConsumption(handle))),
            corrected_errors=self._known(lambda: self._errors(library.NVML_MEMORY_ERROR_TYPE_CORRECTED)),
            uncorrected_errors=self._known(lambda: self._errors(library.NVML_MEMORY_ERROR_TYPE_UNCORRECTED)),
            xid_errors=self._count_xids(),
            temperature_c=self._known(
                lambda: float(library.nvmlDeviceGetTemperature(handle, library.NVML_TEMPERATURE_GPU))
            ),
        )

    def memory_used_bytes(self) -> int | None:
        """Memory in use on the GPU, whoever uses it."""
        return self._known(lambda: int(self._library.nvmlDeviceGetMemoryInfo(self._handle).used))

    def _processes(self) -> tuple[int, ...]:
        # By its version: the plain name turns a driver that is too old (before 510) into an error of no kind of NVML's.
        listed = self._library.nvmlDeviceGetComputeRunningProcesses_v3(self._handle)
        return tuple(sorted(int(process.pid) for process in listed))

    def _errors(self, kind: int) -> int:
        since_start = self._library.NVML_VOLATILE_ECC
        return int(self._library.nvmlDeviceGetTotalEccErrors(self._handle, kind, since_start))

    def _watch_errors(self) -> Any:
        events = self._library.nvmlEventSetCreate()
        self._library.nvmlDeviceRegisterEvents(self._handle, self._library.nvmlEventTypeXidCriticalError, events)
        return events

    def _count_xids(self) -> int | None:
        """Errors so far; the driver queues them, and waiting for 0 ms takes one out of the queue or times out."""
        if self._events is None:
            return None
        while True:
            try:
                event = self._library.nvmlEventSetWait_v2(self._events, 0)
            except self._library.NVMLError as error:
                return self._xids if getattr(error, "value", None) == self._library.NVML_ERROR_TIMEOUT else None
            self._xids += int(event.eventData) not in APPLICATION_XIDS

    def _known(self, ask: Callable[[], Value]) -> Value | None:
        """The answer, or None where the driver has none, or not for us."""
        try:
            return ask()
        except self._library.NVMLError:
            return None


def throttle_names(reasons: int) -> tuple[str, ...]:
    """What of a mask of reasons for a lower clock was forced upon the GPU."""
    return tuple(name for name, bit in THROTTLE_BITS.items() if reasons & bit)


def visible_to_cuda() -> str | None:
    """What CUDA may see in this process; None where it may see everything."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    # Some versions of Ray empty it for work that reserved no GPU, such as looking at a node.
    return None if not visible and "RAY_RAYLET_PID" in os.environ else visible


def _describe(library: Any, handle: Any) -> Gpu:
    def known(ask: Callable[[], Value]) -> Value | None:
        try:
            return ask()
        except library.NVMLError:
            return None

    memory = known(lambda: int(library.nvmlDeviceGetMemoryInfo(handle).total))
    capability = known(lambda: library.nvmlDeviceGetCudaComputeCapability(handle))
    words = known(lambda: library.nvmlDeviceGetCpuAffinity(handle, -(-(os.cpu_count() or 1) // BITS_OF_WORD)))
    driver = known(library.nvmlSystemGetCudaDriverVersion)
    return Gpu(
        name=str(library.nvmlDeviceGetName(handle)),
        uuid=str(library.nvmlDeviceGetUUID(handle)),
        memory_bytes=memory or 0,
        capability=None if capability is None else (int(capability[0]), int(capability[1])),
        near_cpus=() if words is None else tuple(cpus_of(words)),
        driver_cuda=None if driver is None else int(driver) // 1000,
    )


def cpus_of(words: Sequence[int]) -> list[int]:
    """The CPUs of an affinity mask, 64 a word, the lowest first."""
    return [
        place * BITS_OF_WORD + bit for place, word in enumerate(words) for bit in range(BITS_OF_WORD) if word >> bit & 1
    ]


def _entries(visible: str | None) -> list[str]:
    return [entry.strip() for entry in (visible or "").split(",") if entry.strip()]


def _chosen(gpus: Sequence[Gpu], visible: str) -> tuple[Gpu, ...]:
    """As CUDA does: everything after an entry that names no GPU is hidden too."""
    chosen: list[Gpu] = []
    for entry in _entries(visible):
        found = [gpu for number, gpu in enumerate(gpus) if _is(gpu, number, entry)]
        if not found:
            break
        chosen += found[:1]
    return tuple(chosen)


def _why_hidden(visible: str, count: int) -> str:
    if not _entries(visible):
        return "CUDA_VISIBLE_DEVICES is empty, which hides every GPU"
    if visible.strip().startswith("MIG"):
        return f"CUDA_VISIBLE_DEVICES={visible} is a part of a GPU (MIG), and only whole ones are measured"
    return f"CUDA_VISIBLE_DEVICES={visible} hides every GPU: it begins with none of the driver's {count}"


def _is(gpu: Gpu, number: int, entry: str) -> bool:
    return number == int(entry) if entry.isdecimal() else gpu.uuid.startswith(entry)
