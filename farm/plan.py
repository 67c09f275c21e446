"""From suite and slots to cohorts of cells, with stable ids and seeds. Pure."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, Protocol

from farm.errors import MethodUnsupportedError, RequestError
from farm.hardware import admits, nothing_fits
from farm.records import Cell, Cohort, Device, Machine, ModelInfo, Role, Slot, Workload
from farm.suite import MethodChoice, Suite
from tasks.method import find_method

MEMORY_SHARE = 0.7
"""Cells of a pack may fill 70 % of the free memory: the rest is for page cache, Ray and the kernel."""

PROCESS_BYTES = 700_000_000
COPIES_OF_WEIGHTS = 2.5
"""What a cell is expected to need: a runtime with its libraries, and weights in the file's and the runtime's layout
beside activations. Generous, as a pack that is too small costs minutes and one that is too large costs the run."""

GPU_MEMORY_SHARE = 0.9
GPU_PROCESS_BYTES = 1_200_000_000
GPU_COPIES_OF_WEIGHTS = 3.0
GPU_SENTINEL_BYTES = 5_000_000_000
"""The same for a GPU's memory. A process takes 300 to 600 MB for CUDA and its libraries' code before it holds anything,
and matrix libraries add workspaces; parked cells keep all of it. The sentinel holds its operands beside them."""

DEVICES: tuple[Device, ...] = ("cpu", "cuda")

TWIN_SUFFIX = "~twin"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will measure: cohorts in the order that gives early answers, short ones first."""

    suite: Suite
    model: ModelInfo
    cohorts: tuple[Cohort, ...]
    left_out: Mapping[str, str]
    """What is here but is done without, with the reason: devices that `auto` may leave out, and, where several
    hardware classes are measured, what does not fit one of them."""

    @property
    def unsupported(self) -> Mapping[str, str]:
        """Methods that cannot run here, by name, with the reason."""
        return {cell.name: cell.unsupported for c in self.cohorts for cell in c.cells if cell.unsupported}


class Support(Protocol):
    """Raises MethodUnsupportedError where a method cannot run on a machine's device, or cannot run the model."""

    def __call__(
        self, method_id: str, machine: Machine, device: Device, model: ModelInfo, options: Mapping[str, Any]
    ) -> None: ...


def check_support(
    method_id: str, machine: Machine, device: Device, model: ModelInfo, options: Mapping[str, Any]
) -> None:
    """Raise MethodUnsupportedError where the method cannot run on this machine, or so, or cannot run this model."""
    method = find_method(method_id)
    method.check_supported(machine, device)
    method.check_options(machine, device, options)
    method.check_model(model)


def resolve_devices(suite: Suite, machines: Sequence[Machine]) -> tuple[Device, ...]:
    """The devices the suite asks for, `auto` being all that the nodes have.

    Raises RequestError where the suite names a device that no node has.
    """
    has_gpu = any(machine.gpus for machine in machines)
    if "auto" in suite.devices:
        return ("cpu", "cuda") if has_gpu else ("cpu",)
    if "cuda" in suite.devices and not has_gpu:
        told = next((f" ({machine.no_gpu})" for machine in machines if machine.no_gpu), "")
        raise RequestError(
            f"devices: the suite asks for cuda, but no node has a CUDA GPU that its driver reports{told}. It takes an "
            "NVIDIA GPU with its driver, a PyTorch built for CUDA, and pip install 'inference-farm[gpu]'. "
            "Use --device cpu, or an --address whose cluster has one"
        )
    return tuple(device for device in suite.devices if device != "auto")


def check_lengths(suite: Suite, model: ModelInfo) -> None:
    """Raise RequestError for a length that the model has no positions for."""
    too_long = [length for length in suite.lengths if length > model.max_length]
    if too_long:
        raise RequestError(
            f"lengths: {too_long[0]} is over the {model.max_length} positions of model '{model.name}'. "
            f"Use lengths up to {model.max_length}"
        )


def make_plan(
    suite: Suite,
    model: ModelInfo,
    slots: Sequence[Slot],
    machines: Mapping[str, Machine],
    supported: Support = check_support,
    *,
    late: bool = False,
) -> Plan:
    """Lay out the cohorts for the hardware classes that the suite means (`machines` is keyed by class).

    With `hardware: any` that is the class which holds most slots of a device; else every class that the suite admits.
    Classes that come `late` are planned for as one of several, as they would have been from the beginning.
    Raises RequestError for a request that no slot fits: too long, too many threads, or a baseline that cannot run.
    """
    check_lengths(suite, model)
    can_run = partial(supported, model=model)
    found = _places(suite, slots, late)
    left_out = _left_out(suite, found, machines, can_run)
    places = [place for place in found if place.name not in left_out]
    cohorts: list[Cohort] = []
    for length, batch_size, threads in product(sorted(suite.lengths), sorted(suite.batch_sizes), suite.threads):
        for place in places:
            if place.lacks_threads(threads) and (late or len(places) > 1):
                cores = len(place.slot.cores)
                told = f"it has {cores} core{'s' if cores > 1 else ''}"
                left_out[f"{threads} threads on {place.slot.hardware_class}"] = told
                continue
            workload = Workload(place.device, _threads(threads, place.slot), batch_size, length)
            check = partial(can_run, machine=machines[place.slot.hardware_class], device=place.device)
            cells = _cells(suite, workload, check)
            cohorts += [
                _cohort(pack, place.slot, suite.inputs) for pack in _packs(cells, suite.compare, model, place.slot)
            ]
    if not cohorts:
        reasons = [f"{what}: {why}" for what, why in left_out.items()]
        raise RequestError("; ".join(reasons) or nothing_fits(suite.hardware, machines))
    return Plan(suite, model, tuple(cohorts), left_out)


def round_order(cohort: Cohort, replica: int, number: int, living: Sequence[str]) -> tuple[str, ...]:
    """The order of one round: seeded random in even rounds, its reverse in the odd round that follows.

    A pair of rounds puts every cell at the same mean position, so a drift that is linear in time cancels.
    """
    ranked = sorted(living, key=lambda cell: _digest([cohort.seed, replica, number // 2, cell]))
    return tuple(ranked if number % 2 == 0 else reversed(ranked))


@dataclass(frozen=True, slots=True)
class _Place:
    """A device of a hardware class: one of its slots stands for all. `name` tells it from the other places."""

    device: Device
    slot: Slot
    name: str

    def lacks_threads(self, asked: Any) -> bool:
        return asked != "auto" and int(asked) > len(self.slot.cores)


def _places(suite: Suite, slots: Sequence[Slot], late: bool) -> list[_Place]:
    """Where the suite is to be measured, devices first; with `any`, for each the class that has most slots."""
    places = []
    for device in DEVICES:
        fitting = [s for s in slots if (s.gpu is not None) == (device == "cuda") and admits(suite.hardware, s)]
        by_class = {s.hardware_class: s for s in sorted(fitting, key=lambda s: s.slot)}
        if suite.hardware == "any" and by_class:
            counts = Counter(s.hardware_class for s in fitting)
            most = max(by_class, key=lambda name: (counts[name], name))
            by_class = {most: by_class[most]}
        several = late or len(by_class) > 1
        places += [_Place(device, by_class[c], f"{device} on {c}" if several else device) for c in sorted(by_class)]
    return places


def _left_out(
    suite: Suite, found: Sequence[_Place], machines: Mapping[str, Machine], can_run: Callable[..., None]
) -> dict[str, str]:
    """Places that nobody asked for by name and on which the baseline cannot run: a reason to go on without them."""
    left_out: dict[str, str] = {}
    for place in found:
        if place.name == place.device and (place.device == "cpu" or place.device in suite.devices):
            continue
        machine, baseline = machines[place.slot.hardware_class], suite.baseline_choice
        try:
            can_run(baseline.method_id(place.device), machine=machine, device=place.device, options=baseline.options)
        except MethodUnsupportedError as error:
            left_out[place.name] = str(error)
    return left_out


def _threads(asked: Any, slot: Slot) -> int:
    threads = len(slot.cores) if asked == "auto" else int(asked)
    if threads > len(slot.cores):
        raise RequestError(
            f"threads: {threads} is more than the {len(slot.cores)} cores that a slot has here. "
            f"Use at most {len(slot.cores)}, or 'auto'"
        )
    return threads


def _cells(suite: Suite, workload: Workload, check: Callable[..., None]) -> list[Cell]:
    """Baseline, twin, then the other methods in the suite's order; unsupported ones carry their reason."""
    baseline = _cell(suite.baseline_choice, "baseline", workload, inputs=suite.inputs, check=check)
    if baseline.unsupported:
        raise RequestError(f"baseline: {baseline.unsupported}. Name another one with --set baseline=NAME")
    others = [choice for choice in suite.methods if choice.name != suite.baseline]
    twin = replace(baseline, role="twin", name=suite.baseline + TWIN_SUFFIX, cell=_twin_id(baseline, suite.baseline))
    candidates = [_cell(choice, "candidate", workload, inputs=suite.inputs, check=check) for choice in others]
    return [baseline, twin, *candidates]


def _cell(choice: MethodChoice, role: Role, workload: Workload, *, inputs: str, check: Callable[..., None]) -> Cell:
    method_id = choice.method_id(workload.device)
    workload = replace(workload, options=dict(choice.options))
    reason = None
    try:
        check(method_id, options=workload.options)
    except MethodUnsupportedError as error:
        reason = str(error)
    shape = f"{workload.device}-t{workload.threads}-b{workload.batch_size}-l{workload.length}"
    digest = _digest([method_id, dict(choice.options), inputs])[:6]
    precision = find_method(method_id).precision
    return Cell(f"{choice.name}-{shape}-{digest}", role, choice.name, method_id, precision, workload, reason)


def _twin_id(baseline: Cell, name: str) -> str:
    return f"{name}{TWIN_SUFFIX}{baseline.cell.removeprefix(name)}"


def _packs(cells: Sequence[Cell], compare: Sequence[Sequence[str]], model: ModelInfo, slot: Slot) -> list[list[Cell]]:
    """Split a cohort whose cells do not fit the memory together; each pack has the baseline and its twin.

    Methods that the suite compares directly stay together. Raises RequestError where they do not fit together.
    """
    pair, others = list(cells[:2]), cells[2:]
    size = max(1, _most_alive(model, slot) - 2)
    packs: list[list[Cell]] = []
    for group in _groups(others, compare):
        if _alive(group) > size:
            raise RequestError(
                f"compare: {_alive(group)} methods do not fit into the memory here together, only {size} do; "
                "compare fewer of them at once"
            )
        if not packs or _alive(packs[-1]) + _alive(group) > size:
            packs.append([])
        packs[-1] += group
    return [pair + pack for pack in packs] or [pair]


def _alive(cells: Sequence[Cell]) -> int:
    """How many of the cells become processes."""
    return sum(cell.unsupported is None for cell in cells)


def _most_alive(model: ModelInfo, slot: Slot) -> int:
    """How many cells of a model fit the slot's memory together, the GPU's too where there is one."""
    most = int(slot.memory_bytes * MEMORY_SHARE / (PROCESS_BYTES + COPIES_OF_WEIGHTS * model.weight_bytes))
    if slot.gpu_memory_bytes is None:
        return most
    free_bytes = slot.gpu_memory_bytes * GPU_MEMORY_SHARE - GPU_SENTINEL_BYTES
    return min(most, int(free_bytes / (GPU_PROCESS_BYTES + GPU_COPIES_OF_WEIGHTS * model.weight_bytes)))


def _groups(cells: Sequence[Cell], compare: Sequence[Sequence[str]]) -> list[list[Cell]]:
    """Cells that must not be separated, in the order of their first: those compared directly, others alone."""
    groups: list[list[Cell]] = []
    for cell in cells:
        partners = {name for names in compare if cell.name in names for name in names}
        joined = [group for group in groups if partners & {each.name for each in group}]
        rest = [group for group in groups if group not in joined]
        groups = [*rest, [*(each for group in joined for each in group), cell]]
    order = list(cells)
    return sorted(groups, key=lambda group: order.index(group[0]))


def _cohort(cells: Sequence[Cell], slot: Slot, inputs: str) -> Cohort:
    digest = _digest([[cell.cell for cell in cells], inputs, slot.hardware_class])
    shape = cells[0].workload
    name = f"{shape.device}-t{shape.threads}-b{shape.batch_size}-l{shape.length}-{digest[:6]}"
    return Cohort(name, slot.hardware_class, tuple(cells), seed=int(digest[:8], 16))


def _digest(identity: Any) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
