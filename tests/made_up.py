"""A made-up model, machine, slot, plan and table, for tests that need no hardware and no measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from farm.errors import MethodUnsupportedError
from farm.plan import Plan, Support, make_plan
from farm.records import Device, Machine, ModelInfo, Slot
from farm.suite import Suite, parse_suite

FEWEST_COLUMNS = (
    *("run", "suite", "hardware_class", "cohort", "cell", "role", "name", "method", "precision", "model"),
    *("model_sha256", "length", "batch_size", "device", "threads", "inputs", "status", "reasons", "gate", "baseline"),
    *("replicas", "rounds", "samples", "latency_p50_ns", "baseline_p50_ns", "speedup", "speedup_low", "speedup_high"),
    *("interval", "log_ratios", "verdict", "accuracy", "accuracy_n", "accuracy_drop_points", "agreement"),
    *("max_abs_logit_diff", "artifact_bytes", "prepare_s", "load_s", "first_call_ns", "peak_rss_bytes"),
)
"""Columns of speedups where nothing is known of guards, sentinels, p values and the bootstrap."""

GIB = 1024**3

MODEL = ModelInfo("made-up", "a" * 64, "/nowhere", "distilbert", 512, ("input_ids",), ("no", "yes"), 268_000_000)

MACHINE = Machine(
    hostname="here",
    system="Linux",
    cpu_model="Made Up",
    sockets=1,
    physical_cores=4,
    logical_cpus=4,
    usable_cpus=(0, 1, 2, 3),
    smt_siblings=((0,), (1,), (2,), (3,)),
    memory_bytes=64 * GIB,
    instruction_sets=(),
    gpus=(),
    hardware_class="plain",
)

SLOT = Slot("here-cpu0", "node", "here", "plain", (0, 1, 2, 3), 4.0, 64 * GIB)
GPU_SLOT = replace(SLOT, slot="here-cuda0", gpu="Made Up GPU")

METHODS = ("control-null", "control-work", "control-wrong")


def suite_of(**keys: Any) -> Suite:
    """A suite of control methods at two lengths, with some keys set."""
    return parse_suite({"methods": list(METHODS), "lengths": [64, 128], **keys})


def supports_all(
    method_id: str, machine: Machine, device: Device, model: ModelInfo, options: Mapping[str, Any]
) -> None:
    """Whatever is asked for runs."""
    del method_id, machine, device, model, options


def supports_all_but(*missing: str) -> Support:
    """These methods lack something, all others run."""

    def check(method_id: str, machine: Machine, device: Device, model: ModelInfo, options: Mapping[str, Any]) -> None:
        del machine, device, model, options
        if method_id in missing:
            raise MethodUnsupportedError(f"{method_id} needs what is not here")

    return check


def plan_of(
    suite: Suite | None = None,
    slots: tuple[Slot, ...] = (SLOT,),
    model: ModelInfo = MODEL,
    supported: Support = supports_all,
    machines: Mapping[str, Machine] | None = None,
) -> Plan:
    """The plan of a suite (two lengths of three methods unless given) on made-up slots."""
    known = machines or {slot.hardware_class: replace(MACHINE, hardware_class=slot.hardware_class) for slot in slots}
    return make_plan(suite or suite_of(), model, slots, known, supported)


def speedup_row(name: str, length: int = 64, **changes: Any) -> dict[str, Any]:
    """A sound row of speedups with 30 rounds in five replicas and nothing to remark on, changed as asked.

    `pytorch` is the baseline, `pytorch~twin` its twin; others are twice as fast. Replicas differ by a few per mille.
    """
    role = {"pytorch": "baseline", "pytorch~twin": "twin"}.get(name, "candidate")
    speedup = 2.0 if role == "candidate" else 1.0
    judged = role != "baseline"
    centre = math.log(speedup)
    row: dict[str, Any] = dict.fromkeys(FEWEST_COLUMNS) | {
        "suite": "made-up",
        "hardware_class": "Made Up",
        "cohort": f"cpu-b1-l{length}",
        "cell": f"{name}-l{length}",
        "role": role,
        "name": name,
        "length": length,
        "batch_size": 1,
        "device": "cpu",
        "threads": 2,
        "status": "ok",
        "reasons": [],
        "replicas": 5,
        "rounds": 30,
        "latency_p50_ns": 1e6 * length / speedup,
        "speedup": speedup,
        "speedup_low": 0.996 * speedup if judged else None,
        "speedup_high": 1.004 * speedup if judged else None,
        "interval": "replicas" if judged else None,
        "verdict": {"candidate": "faster", "twin": "same"}.get(role),
        "log_ratios": [[centre + offset] * 6 for offset in (-0.003, 0.002, 0.0, -0.001, 0.002)] if judged else None,
    }
    return row | changes


def speedup_rows(*lengths: int) -> list[dict[str, Any]]:
    """The baseline, its twin and two methods at each length."""
    names = ("pytorch", "pytorch~twin", "onnxruntime", "quantized")
    return [speedup_row(name, length) for length in lengths for name in names]


def with_changes(rows: Sequence[Mapping[str, Any]], name: str, length: int, **changes: Any) -> list[dict[str, Any]]:
    """The same rows, those of one method at one length changed as asked."""
    return [{**row, **(changes if (row["name"], row["length"]) == (name, length) else {})} for row in rows]


def state(name: str | None, rounds: int, speedup: float | None = None) -> dict[str, Any]:
    """A state of the machine as in `states`, with a speedup of +- 2 % or none."""
    ends = (None, None) if speedup is None else (0.98 * speedup, 1.02 * speedup)
    return {"state": name, "rounds": rounds, "speedup": speedup, "low": ends[0], "high": ends[1]}
