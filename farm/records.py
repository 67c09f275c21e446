"""What flows through the farm, from the plan to the rows. Imports nothing of the farm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["baseline", "twin", "candidate"]
Status = Literal["ok", "failed", "unsupported", "invalid"]
Device = Literal["cpu", "cuda"]
Pooling = Literal["first", "mean"]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model in a local folder, identified by the hash of its files."""

    name: str
    sha256: str
    folder: str
    family: str
    max_length: int
    input_names: tuple[str, ...]
    labels: tuple[str, ...]
    weight_bytes: int
    pooling: Pooling = "first"
    """What the classification head reads of the last layer: the first token, or the mean over all."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A CUDA device as its driver describes it. What the driver does not tell is None or empty: unknown."""

    name: str
    uuid: str
    memory_bytes: int
    capability: tuple[int, int] | None = None
    """CUDA's compute capability, such as (9, 0), which decides what the chip can multiply in."""
    near_cpus: tuple[int, ...] = ()
    """Logical CPUs on the side of the machine that the GPU is attached to."""
    driver_cuda: int | None = None
    """The newest major version of CUDA that the driver serves."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a node is made of. `instruction_sets` holds CPU flags as /proc/cpuinfo spells them."""

    hostname: str
    system: str
    cpu_model: str
    sockets: int
    physical_cores: int
    logical_cpus: int
    usable_cpus: tuple[int, ...]
    smt_siblings: tuple[tuple[int, ...], ...]
    memory_bytes: int
    instruction_sets: tuple[str, ...]
    gpus: tuple[str, ...]
    hardware_class: str
    gpu_devices: tuple[Gpu, ...] = ()
    """More about each of `gpus`, in their order."""
    no_gpu: str = ""
    """Why there is none, in the driver's words."""
    numa_nodes: tuple[tuple[int, ...], ...] = ()
    """The usable CPUs of each NUMA node that has any; empty where the platform does not tell."""
    software: Mapping[str, str] = field(default_factory=dict)
    """Python, the platform, and the libraries that decide how fast a method is, by name: their versions there."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What one cell is asked to run: shape, device, threads and the method's own options."""

    device: Device
    threads: int
    batch_size: int
    length: int
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cell:
    """One method at one workload, inside one cohort."""

    cell: str
    role: Role
    name: str
    method: str
    precision: str
    workload: Workload
    unsupported: str | None = None


@dataclass(frozen=True, slots=True)
class Cohort:
    """Cells that are compared with one another: all alive on one slot, one running at any moment."""

    cohort: str
    hardware_class: str
    cells: tuple[Cell, ...]
    seed: int

    @property
    def baseline(self) -> Cell:
        """The cell every other one is compared with."""
        return self.cells[0]

    @property
    def workload(self) -> Workload:
        """The shape, device and threads that all cells of the cohort share."""
        return self.cells[0].workload


@dataclass(frozen=True, slots=True)
class Slot:
    """The physical resource that one cohort has to itself: cores of one node, and at most one GPU.

    `ray_cpus` are the CPUs, as Ray counts them, that are held while it is used: all of the node's unless it is
    `packed`, which is to say that other slots of the node measure at the same time.
    """

    slot: str
    node_id: str
    hostname: str
    hardware_class: str
    cores: tuple[int, ...]
    ray_cpus: float
    memory_bytes: int
    gpu: str | None = None
    gpu_index: int = 0
    """Its place among the GPUs that Ray gives out on the node."""
    gpu_uuid: str | None = None
    gpu_memory_bytes: int | None = None
    ray_gpus: float = 1.0
    """GPUs to take from Ray: all of the node unless the slot is packed; cells see one."""
    packed: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    """The Ray node's labels, by name."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of one cell: consecutive timed calls after a discarded re-warm.

    `latency_ns` holds one entry per sample; a sample is `calls_per_sample` calls, divided by their number. `wall_ns`
    and `cpu_ns` are of the timed calls alone, `rewarm_ns` of those thrown away before.
    """

    latency_ns: tuple[int, ...]
    calls_per_sample: int
    wall_ns: int
    cpu_ns: int
    rewarm_ns: int = 0
    device_ns: tuple[int, ...] = ()
    """Of each sample: time by the device's own clock from a call's first copy to its last; none on a CPU."""
    disturbance: Mapping[str, Any] = field(default_factory=dict)
    """What the guards read around the turn, by the names of guards.Disturbance."""
    taint_reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What a cell reports when it is ready to be timed. `logits` holds one `[batch, labels]` list per timed input."""

    load_s: float
    first_call_ns: int
    calls: int
    steady: bool
    call_ns: float
    logits: tuple[tuple[tuple[float, ...], ...], ...]
    proof: Mapping[str, Any]
    precisions: Mapping[str, str] = field(default_factory=dict)
    """What each kind of matrix product runs in."""
    vram_bytes: int | None = None
    """By how much loading and warming up made the GPU's used memory grow, as its driver counts it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a cell has no result: its status, one sentence, and the end of its own error output."""

    status: Status
    reason: str
    tail: str = ""


@dataclass(frozen=True, slots=True)
class Round:
    """One round of a cohort: every living cell's turn, and the order they ran in."""

    number: int
    started_unix_ns: int
    order: tuple[str, ...]
    turns: Mapping[str, Turn]
    wall_ns: int
    rates: Mapping[str, float] = field(default_factory=dict)
    """What the sentinel reached at the start of the round, by rate."""

    @property
    def taint_reasons(self) -> tuple[str, ...]:
        """Why the round is not to be trusted: what disturbed any of its turns."""
        return tuple(sorted({reason for turn in self.turns.values() for reason in turn.taint_reasons}))
