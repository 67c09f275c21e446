"""What a cell costs beside its latency, over its replicas, and after how many calls its preparation has paid off."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from farm.gpu_guards import WATCHED
from farm.pairing import Process, Row, over

LEAST_ENERGY_S = 1.0
"""NVML's energy counter moves in steps of some 20 to 100 ms, which a reading is off by at either end: over less than a
second of readings that is a tenth and more of what they differ by."""


def costs_of(processes: Sequence[Process]) -> dict[str, Any]:
    """The columns of costs of one cell; what nobody measured is None."""
    rows = [process.row for process in processes]
    dearest = max(rows, key=lambda row: row.get("prepare_s") or 0.0)
    per_call = [each for process in processes for each in _per_call(process)]
    energies = [energy_j for _, energy_j in per_call if energy_j is not None]
    return {
        "artifact_bytes": over(rows, "artifact_bytes", max),
        "prepare_s": over(rows, "prepare_s", max),
        "prepare_steps": dearest.get("prepare_steps"),
        "load_s": over(rows, "load_s", median),
        "first_call_ns": over(rows, "first_call_ns", median),
        "warmup_calls": over(rows, "warmup_calls", median),
        "peak_rss_bytes": over(rows, "peak_rss_bytes", max),
        "cpu_ns_per_call": median(cpu_ns for cpu_ns, _ in per_call) if per_call else None,
        "energy_j_per_call": median(energies) if energies else None,
    }


def gpu_costs_of(processes: Sequence[Process]) -> dict[str, Any]:
    """The columns of a cell's costs on a GPU, and what its driver did not tell; empty on a CPU."""
    rows = [process.row for process in processes]
    if rows[0].get("device") != "cuda":
        return {}
    energy_j, wall_ns, turn_ns, calls = (sum(each) for each in zip((0, 0, 0, 0), *_gpu_turns(processes), strict=True))
    if wall_ns < LEAST_ENERGY_S * 1e9:
        calls = wall_ns = 0
    clocks = [mhz for row in rows for mhz in row.get("round_gpu_sm_mhz") or () if mhz is not None]
    return {
        "vram_bytes": over(rows, "vram_bytes", max),
        "allocated_vram_bytes": over(rows, "allocated_vram_bytes", max),
        # Sums over all rounds, not medians over single ones: a turn is about as long as a step of the counter.
        "gpu_energy_j_per_call": energy_j * turn_ns / wall_ns / calls if calls else None,
        "gpu_power_w": energy_j / wall_ns * 1e9 if wall_ns else None,
        "gpu_sm_mhz": median(clocks) if clocks else None,
        "unread": [
            words
            for words, name in WATCHED.items()
            if any(row["round"] for row in rows)
            and not any(value is not None for row in rows for value in row.get(f"round_{name}") or ())
        ],
    }


def _gpu_turns(processes: Sequence[Process]) -> Iterator[tuple[float, float, float, int]]:
    """Energy in J, its wall time, the timed calls' time and number, of each turn whose round counts."""
    for process in processes:
        row, (_, turns) = process.row, process.rounds()
        for place, number in enumerate(sorted(turns)):
            read = [_reading(row, name, place) for name in ("round_gpu_energy_j", "round_wall_ns", "round_turn_ns")]
            if number in process.clean_rounds() and None not in read and read[1]:
                yield (*read, len(turns[number]) * (row["calls_per_sample"] or 1))


def _per_call(process: Process) -> Iterator[tuple[float, float | None]]:
    """CPU time in ns and energy in J of a call, in each round that counts."""
    row, (_, turns) = process.row, process.rounds()
    kept = process.clean_rounds()
    for place, number in enumerate(sorted(turns)):
        cpu_ns = _reading(row, "round_cpu_ns", place)
        if number in kept and cpu_ns is not None:
            calls = len(turns[number]) * (row["calls_per_sample"] or 1)
            energy_j, turn_ns, wall_ns = (
                _reading(row, name, place) for name in ("round_energy_j", "round_turn_ns", "round_wall_ns")
            )
            known = energy_j is not None and turn_ns is not None and wall_ns
            # The guards' readings enclose the re-warm too: the timed calls get the share of their time.
            yield cpu_ns / calls, energy_j * turn_ns / wall_ns / calls if known else None


def break_even(row: Mapping[str, Any], processes: Sequence[Process]) -> dict[str, int | None]:
    """`break_even_calls` of a cell, given what is derived of it so far; null unless its verdict is `faster`."""
    if row.get("verdict") != "faster":
        return {"break_even_calls": None}
    baselines = [process.baseline for process in processes if process.baseline is not None]
    baseline = {
        "load_s": over(baselines, "load_s", median),
        "prepare_s": over(baselines, "prepare_s", max),
    }
    extra_s = sum((row[name] or 0.0) - (baseline[name] or 0.0) for name in baseline)
    return {"break_even_calls": break_even_calls(extra_s, row["baseline_p50_ns"], row["latency_p50_ns"])}


def break_even_calls(extra_s: float, baseline_ns: float, method_ns: float) -> int | None:
    """Calls after which `extra_s` seconds more of preparing and loading are won back by shorter calls.

    0 where there is nothing to win back, None (never) where calls are not shorter.
    """
    if method_ns >= baseline_ns:
        return None
    return max(0, math.ceil(extra_s * 1e9 / (baseline_ns - method_ns)))


def _reading(row: Row, column: str, place: int) -> Any:
    """One round's entry of a list; None where the platform gave none."""
    readings = row.get(column) or ()
    return readings[place] if place < len(readings) else None
