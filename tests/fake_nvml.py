"""A GPU's driver that says what a test tells it to: the part of NVML that the farm asks, without a GPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

PERMISSION, UNSUPPORTED, NOT_FOUND = (
    pynvml.NVML_ERROR_NO_PERMISSION,
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
)


@dataclass
class Board:
    """One GPU; its fields are what the driver says at the moment."""

    name: str = "Made Up H200"
    uuid: str = "GPU-0"
    memory_bytes: int = 140_000_000_000
    used_bytes: int = 1_000_000_000
    capability: tuple[int, int] = (9, 0)
    affinity: tuple[int, ...] = (0b1111_0000, 0)
    processes: list[int] = field(default_factory=list)
    reasons: int = 0
    sm_mhz: int = 1980
    default_mhz: int = 1980
    max_mhz: int = 1980
    energy_mj: int = 0
    errors: dict[int, int] = field(default_factory=lambda: {0: 0, 1: 0})
    xids: list[int] = field(default_factory=list)
    temperature: int = 50


class FakeNvml:
    """Answers for its boards; `refused` names functions that fail, with the driver's error for each."""

    NVMLError = pynvml.NVMLError
    NVML_ERROR_TIMEOUT = pynvml.NVML_ERROR_TIMEOUT
    NVML_ERROR_FUNCTION_NOT_FOUND = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
    NVML_CLOCK_SM = pynvml.NVML_CLOCK_SM
    NVML_TEMPERATURE_GPU = pynvml.NVML_TEMPERATURE_GPU
    NVML_MEMORY_ERROR_TYPE_CORRECTED = pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
    NVML_VOLATILE_ECC = pynvml.NVML_VOLATILE_ECC
    nvmlEventTypeXidCriticalError = pynvml.nvmlEventTypeXidCriticalError  # noqa: N815 - the library's name

    def __init__(self, *boards: Board, refused: dict[str, int] | None = None) -> None:
        self.boards = list(boards)
        self.refused = refused or {}
        self.open = 0
        self.asked: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and not name.startswith("nvmlEventType"):
            object.__getattribute__(self, "asked").append(name)
        if name.startswith("nvml") and name in object.__getattribute__(self, "refused"):
            error = self.refused[name]

            def refuse(*_: Any) -> Any:
                raise pynvml.NVMLError(error)

            return refuse
        return object.__getattribute__(self, name)

    def nvmlInit(self) -> None:  # noqa: N802
        """Open the library."""
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        """Close it."""
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        """How many boards there are."""
        return len(self.boards)

    def nvmlDeviceGetHandleByIndex(self, number: int) -> Board:  # noqa: N802
        """The board itself is its handle."""
        return self.boards[number]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Board:  # noqa: N802
        """The board with this UUID."""
        found = [board for board in self.boards if board.uuid == uuid]
        if not found:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return found[0]

    def nvmlEventSetCreate(self) -> list[Board]:  # noqa: N802
        """Boards whose errors are waited for."""
        return []

    def nvmlDeviceRegisterEvents(self, board: Board, _kinds: int, events: list[Board]) -> None:  # noqa: N802
        """Wait for this board's errors."""
        events.append(board)

    def nvmlEventSetWait_v2(self, events: list[Board], _milliseconds: int) -> Any:  # noqa: N802
        """One error out of the queue, or none in time."""
        for board in events:
            if board.xids:
                return SimpleNamespace(eventData=board.xids.pop())
        raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)

    def nvmlDeviceGetComputeRunningProcesses_v3(self, board: Board) -> list[Any]:  # noqa: N802
        """By the driver's numbering."""
        return [SimpleNamespace(pid=pid) for pid in board.processes]

    def nvmlDeviceGetMemoryInfo(self, board: Board) -> Any:  # noqa: N802
        """Total and used."""
        return SimpleNamespace(total=board.memory_bytes, used=board.used_bytes)

    def nvmlDeviceGetTotalEccErrors(self, board: Board, kind: int, _counter: int) -> int:  # noqa: N802
        """Of one kind."""
        return board.errors[kind]

    def nvmlDeviceGetCpuAffinity(self, board: Board, words: int) -> tuple[int, ...]:  # noqa: N802
        """As many words as asked for."""
        return (*board.affinity, *(0,) * words)[:words]

    def nvmlSystemGetCudaDriverVersion(self) -> int:  # noqa: N802
        """13.0."""
        return 13000


def _tells(name: str, attribute: str) -> None:
    setattr(FakeNvml, name, lambda _self, board, *_: getattr(board, attribute))


for _name, _attribute in {
    "nvmlDeviceGetName": "name",
    "nvmlDeviceGetUUID": "uuid",
    "nvmlDeviceGetCudaComputeCapability": "capability",
    "nvmlDeviceGetCurrentClocksEventReasons": "reasons",
    "nvmlDeviceGetClockInfo": "sm_mhz",
    "nvmlDeviceGetDefaultApplicationsClock": "default_mhz",
    "nvmlDeviceGetMaxClockInfo": "max_mhz",
    "nvmlDeviceGetTotalEnergyConsumption": "energy_mj",
    "nvmlDeviceGetTemperature": "temperature",
}.items():
    _tells(_name, _attribute)
