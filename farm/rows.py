"""From what a cohort reported to the rows that are published. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from farm.gpu_guards import GPU_READINGS
from farm.machine import describe_environment
from farm.quality import Quality, largest_difference
from farm.rates import RATES
from farm.records import Cell, Cohort, Failure, Machine, ModelInfo, Round, Slot, WarmUp
from farm.schemas import SCHEMA_VERSION
from tasks.artifacts import Artifact
from tasks.calibration import DEMO_TEXTS, FOREIGN_TEXTS, calibration_source
from tasks.method import find_method
from tasks.operations import BYTES, Architecture, count_work
from tasks.sentinels import state, usual

DEMO_MODEL = "demo"

GUARD_READINGS = (
    *("steal_ratio", "foreign_ratio", "own_ratio", "throttled_ns", "major_faults", "involuntary_switches"),
    *("run_delay_ns", "pressure_ratio", "mhz", "wall_ns", "energy_j"),
    *GPU_READINGS,
)
"""What is published of each guards.Disturbance and gpu_guards.GpuDisturbance."""


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """What all rows of a run share."""

    run: str
    suite: str
    inputs: str
    model: ModelInfo
    environment: Mapping[str, Any]
    """The driver's; a row's own is that of the node it was measured on."""
    architecture: Architecture | None = None
    """Of the model, to count its operations by; None where they cannot be counted."""
    inputs_sha256: Mapping[tuple[int, int], str] = field(default_factory=dict)
    """Of the timed inputs, by length and batch size."""


@dataclass
class ReplicaLog:
    """Everything that is known of one cohort replica, filled in as it is measured."""

    cohort: Cohort
    replica: int
    attempt: int
    slot: Slot
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    quality: dict[str, Quality] = field(default_factory=dict)
    ready: dict[str, WarmUp] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)
    peaks: dict[str, Mapping[str, int | None]] = field(default_factory=dict)
    """Of each cell's memory, by column."""
    ceilings: Mapping[str, Any] | None = None
    machine: Machine | None = None
    """What the slot's node is made of, and the libraries there; None where it was not asked, or before it was."""

    def living(self) -> list[Cell]:
        """Cells that are loaded and have not failed."""
        return [cell for cell in self.cohort.cells if cell.cell in self.ready and cell.cell not in self.failures]


def logits_of(ready: WarmUp) -> np.ndarray:
    """Logits on all timed inputs, `[inputs x batch, labels]`."""
    return np.concatenate([np.asarray(one) for one in ready.logits])


def build_rows(log: ReplicaLog, identity: RunIdentity) -> list[dict[str, Any]]:
    """One row per cell of the cohort, in its order, following MEASUREMENT_SCHEMA."""
    return [
        _identity(cell, log, identity)
        | _place(cell, log)
        | _outcome(cell, log, identity.model)
        | _samples(cell, log.rounds)
        | _guards(cell, log.rounds)
        | _machine_state(cell, log)
        | _work(cell, log, identity)
        | _costs(cell, log)
        | _quality(cell, log)
        for cell in log.cohort.cells
    ]


def _identity(cell: Cell, log: ReplicaLog, identity: RunIdentity) -> dict[str, Any]:
    shape = cell.workload
    environment = identity.environment if log.machine is None else describe_environment(log.machine)
    return {
        "run": identity.run,
        "suite": identity.suite,
        "cohort": log.cohort.cohort,
        "cell": cell.cell,
        "replica": log.replica,
        "attempt": log.attempt,
        "role": cell.role,
        "name": cell.name,
        "method": cell.method,
        "options": json.dumps(dict(shape.options), sort_keys=True),
        "precision": cell.precision,
        "model": identity.model.name,
        "model_sha256": identity.model.sha256,
        "length": shape.length,
        "batch_size": shape.batch_size,
        "device": shape.device,
        "threads": shape.threads,
        "inputs": identity.inputs,
        "inputs_sha256": identity.inputs_sha256.get((shape.length, shape.batch_size)),
        "environment": json.dumps(environment, sort_keys=True),
        "schema_version": SCHEMA_VERSION,
    }


def _place(cell: Cell, log: ReplicaLog) -> dict[str, Any]:
    ready = log.ready.get(cell.cell)
    return {
        "node_id": log.slot.node_id,
        "hostname": log.slot.hostname,
        "hardware_class": log.slot.hardware_class,
        "cores": list(log.slot.cores),
        "gpu": log.slot.gpu,
        # What CUDA was allowed to see is the GPU's UUID: the one Ray gave, whichever the plan had in mind.
        "gpu_uuid": (ready.proof.get("visible_gpus") or log.slot.gpu_uuid) if ready and log.slot.gpu else None,
        "packed": log.slot.packed,
        "pid": ready.proof["pid"] if ready else None,
        "proof": json.dumps(ready.proof, sort_keys=True, default=str) if ready else None,
    }


def _outcome(cell: Cell, log: ReplicaLog, model: ModelInfo) -> dict[str, Any]:
    failure = log.failures.get(cell.cell)
    quality = log.quality.get(cell.cell)
    reasons = [failure.reason] if failure else []
    ready = log.ready.get(cell.cell)
    if ready and not failure:
        reasons += [] if ready.steady else ["not steady when timing began"]
        # What a method does without for this model, in its own words.
        reasons += ready.proof["method"].get("remarks", [])
        source = calibration_source(find_method(cell.method).Options, cell.workload.options)
        reasons += [FOREIGN_TEXTS] if source == DEMO_TEXTS and model.name != DEMO_MODEL else []
    return {
        "status": failure.status if failure else "ok",
        "reasons": reasons,
        "gate": quality.gate if quality else None,
        "error_tail": failure.tail or None if failure else None,
    }


def _samples(cell: Cell, rounds: Sequence[Round]) -> dict[str, Any]:
    mine = [entry for entry in rounds if cell.cell in entry.turns]
    turns = [entry.turns[cell.cell] for entry in mine]
    return {
        "round": [entry.number for entry, turn in zip(mine, turns, strict=True) for _ in turn.latency_ns],
        "latency_ns": [latency for turn in turns for latency in turn.latency_ns],
        "device_ns": [on_device for turn in turns for on_device in turn.device_ns] or None,
        "tainted": [
            bool(entry.taint_reasons) for entry, turn in zip(mine, turns, strict=True) for _ in turn.latency_ns
        ],
        "calls_per_sample": turns[0].calls_per_sample if turns else None,
        "round_started_unix_ns": [entry.started_unix_ns for entry in mine],
        "round_position": [entry.order.index(cell.cell) for entry in mine],
        "round_cpu_ns": [turn.cpu_ns for turn in turns],
        "round_turn_ns": [turn.wall_ns for turn in turns],
        "round_rewarm_ns": [turn.rewarm_ns for turn in turns],
    }


def _guards(cell: Cell, rounds: Sequence[Round]) -> dict[str, Any]:
    """What the guards read around each of the cell's turns; the reasons are those of the whole round."""
    mine = [entry for entry in rounds if cell.cell in entry.turns]
    read = {
        f"round_{name}": [entry.turns[cell.cell].disturbance.get(name) for entry in mine] for name in GUARD_READINGS
    }
    return {"round_taint_reasons": [list(entry.taint_reasons) for entry in mine], **read}


def _machine_state(cell: Cell, log: ReplicaLog) -> dict[str, Any]:
    """The sentinel's rates in each round the cell took part in, and the state they put the machine in."""
    mine = [entry for entry in log.rounds if cell.cell in entry.turns]
    usually = usual([entry.rates for entry in log.rounds if entry.rates])
    return {
        "round_state": [state(entry.rates, usually) if entry.rates else None for entry in mine],
        **{rate.column: [entry.rates.get(name) for entry in mine] for name, rate in RATES.items()},
        "ceilings": json.dumps(log.ceilings, sort_keys=True) if log.ceilings else None,
    }


def _work(cell: Cell, log: ReplicaLog, identity: RunIdentity) -> dict[str, Any]:
    """What a call must do by the model's configuration; nothing for cells that never ran or did something else."""
    method, shape, ready = find_method(cell.method), cell.workload, log.ready.get(cell.cell)
    if identity.architecture is None or ready is None or not method.computes_all(shape, identity.inputs == "padded"):
        return {}
    work = count_work(identity.architecture, shape.batch_size, shape.length, pruned=method.prunes_last_layer)
    weights = BYTES.get(ready.precisions["linear"])
    return {
        "operations": work.operations,
        "operations_by_precision": json.dumps(work.by_precision(_precision_shares(ready)), sort_keys=True),
        "bytes_read": None if weights is None else work.numbers_read * weights,
    }


def _precision_shares(ready: WarmUp) -> dict[str, Mapping[str, float]]:
    """By kind of product the shares of the precisions it ran in: as the method declares, unless its proof saw more."""
    declared = {product: {precision: 1.0} for product, precision in ready.precisions.items()}
    return {**declared, **ready.proof.get("method", {}).get("precision_shares", {})}


def _costs(cell: Cell, log: ReplicaLog) -> dict[str, Any]:
    artifact, ready = log.artifacts.get(cell.cell), log.ready.get(cell.cell)
    return {
        "prepare_s": artifact.prepare_s if artifact else None,
        "prepare_steps": json.dumps(dict(artifact.steps)) if artifact else None,
        "prepare_cached": artifact.cached if artifact else None,
        "artifact_key": artifact.key if artifact else None,
        "artifact_bytes": artifact.size_bytes if artifact else None,
        "load_s": ready.load_s if ready else None,
        "first_call_ns": ready.first_call_ns if ready else None,
        "warmup_calls": ready.calls if ready else None,
        "steady": ready.steady if ready else None,
        "peak_rss_bytes": log.peaks.get(cell.cell, {}).get("peak_rss_bytes"),
        "vram_bytes": ready.vram_bytes if ready else None,
        "allocated_vram_bytes": log.peaks.get(cell.cell, {}).get("allocated_vram_bytes"),
    }


def _quality(cell: Cell, log: ReplicaLog) -> dict[str, Any]:
    quality, ready = log.quality.get(cell.cell), log.ready.get(cell.cell)
    baseline = log.ready.get(log.cohort.baseline.cell)
    difference = largest_difference(logits_of(baseline), logits_of(ready)) if ready and baseline else None
    return {
        "max_abs_logit_diff": difference,
        "agreement": quality.agreement if quality else None,
        "agreement_n": quality.agreement_n if quality else None,
        "accuracy": quality.accuracy if quality else None,
        "accuracy_n": quality.accuracy_n if quality else None,
        "baseline_right_only": quality.baseline_right_only if quality else None,
        "method_right_only": quality.method_right_only if quality else None,
        "max_drop_points": quality.max_drop_points if quality else None,
    }
