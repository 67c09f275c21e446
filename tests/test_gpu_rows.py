"""What rows and tables say of a GPU: its own clock, memory, energy, and what its driver does not tell."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made_up import GPU_SLOT, MODEL, plan_of, speedup_rows, suite_of
from measured import RUN, as_table, measured_row, run_record

from farm.caveats import unread_lines
from farm.events import Silent
from farm.query import query
from farm.records import Failure, Round, Turn, WarmUp
from farm.rendering import to_text
from farm.replica import BaselineLostError, _add_proof
from farm.rows import ReplicaLog, RunIdentity, build_rows
from farm.speedups import derive_speedups
from farm.store import Store
from farm.tables import speedup_table
from tasks.operations import Architecture

GPU_TURN = {
    "gpu_foreign": 0,
    "gpu_throttle": ("power-cap",),
    "gpu_sm_mhz": 1980.0,
    "gpu_energy_j": 40.0,
    "gpu_uncorrected_errors": 0,
}


def on_gpu(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    """Derived rows of a run on a GPU: three rounds of five calls of 1 ms, a turn of 0.1 s in 0.4 s of wall time."""
    usual = {
        "device": "cuda",
        "round_gpu_energy_j": [1.0, 3.0, 2.0],
        "round_wall_ns": [400_000_000] * 3,
        "round_turn_ns": [100_000_000] * 3,
        "round_gpu_sm_mhz": [1980.0] * 3,
        "round_gpu_foreign": [None] * 3,
        "device_ns": [800_000] * 15,
    }
    made = [measured_row("c", number, "pytorch", 1.0, **usual | row) for number, row in enumerate(rows or ({},))]
    return derive_speedups(as_table(made), 0.03).to_pylist()


def test_energy_of_a_gpu_is_summed_over_rounds_and_shared_out_by_time() -> None:
    (row,) = on_gpu()
    assert row["gpu_power_w"] == pytest.approx(6.0 / 1.2)
    assert row["gpu_energy_j_per_call"] == pytest.approx(6.0 * (0.3 / 1.2) / 15)
    assert row["gpu_sm_mhz"] == 1980.0


def test_over_less_than_a_second_the_counters_steps_are_too_coarse_for_energy() -> None:
    (row,) = on_gpu({"round_wall_ns": [320_000_000] * 3})
    assert row["gpu_power_w"] is row["gpu_energy_j_per_call"] is None
    assert "Energy and power are left out" in " ".join(unread_lines([row]))
    assert "Energy" not in " ".join(unread_lines(on_gpu()))


def test_energy_that_the_driver_does_not_tell_is_unknown() -> None:
    (row,) = on_gpu({"round_gpu_energy_j": [None] * 3})
    assert row["gpu_power_w"] is row["gpu_energy_j_per_call"] is None


def test_what_the_driver_does_not_tell_is_said_once_under_the_table() -> None:
    (row,) = on_gpu()
    assert "other processes on the GPU" in row["unread"]
    assert "its SM clock" not in row["unread"]
    text = " ".join(to_text(speedup_table([row | {"unread": ["other processes on the GPU"]}] * 2)).split())
    assert text.count("Unknown, not fine: the GPU's driver does not tell other processes on the GPU here") == 1


def test_the_median_of_the_devices_own_time_stands_beside_the_latency() -> None:
    (row,) = on_gpu({"device_ns": [700_000] * 5 + [900_000] * 10})
    assert row["device_p50_ns"] == 900_000
    assert row["latency_p50_ns"] == pytest.approx(1e6)


def test_memory_of_a_gpu_is_the_largest_over_replicas() -> None:
    (row,) = on_gpu({"vram_bytes": 5, "allocated_vram_bytes": 3}, {"vram_bytes": 9, "allocated_vram_bytes": None})
    assert (row["vram_bytes"], row["allocated_vram_bytes"]) == (9, 3)


def test_rows_of_a_cpu_have_none_of_it() -> None:
    (row,) = derive_speedups(as_table([measured_row("c", 0, "pytorch", 1.0)]), 0.03).to_pylist()
    assert not [name for name in row if "gpu" in name and row[name] is not None]
    assert row["device_p50_ns"] is row["vram_bytes"] is row["unread"] is None


def test_the_table_has_a_gpus_costs_and_keeps_its_width() -> None:
    known = {"load_s": 0.6, "first_call_ns": 9e6, "cpu_ns_per_call": 1e6, "peak_rss_bytes": 9e8, "prepare_s": 20.0}
    costs = {"device_p50_ns": 250_000.0, "vram_bytes": 900_000_000, "gpu_energy_j_per_call": 0.05, "gpu_power_w": 210.0}
    text = to_text(speedup_table([row | known | costs for row in speedup_rows(64, 128)]))
    words = " ".join(text.split())
    for column in ("GPU ms per call", "GPU MB", "GPU mJ per call", "GPU W"):
        assert all(word in words for word in column.split())
    assert {"0.250", "900", "50.0", "210"} <= set(words.split())
    assert "by the GPU's own clock" in words
    assert max(map(len, text.splitlines())) <= 100


# Rows of a replica


IDENTITY = RunIdentity("run", "suite", "full", MODEL, {}, Architecture(6, 768, 3072, 2, 30522, 768))


def log_of(disturbance: dict[str, Any], device_ns: tuple[int, ...]) -> ReplicaLog:
    """One replica on a GPU whose cells took one turn each."""
    suite = suite_of(baseline="pytorch-fp32", methods=["pytorch-fp32", "pytorch-tf32"], lengths=[64], devices=["cuda"])
    log = ReplicaLog(plan_of(suite, slots=(GPU_SLOT,)).cohorts[0], 0, 1, GPU_SLOT)
    turns = {}
    for cell in log.cohort.cells:
        proof = {"pid": 1, "method": {}, "visible_gpus": "GPU-given-by-ray"}
        precisions = {"linear": cell.precision, "attention": cell.precision}
        log.ready[cell.cell] = WarmUp(
            *(1.0, 1, 1, True, 1.0, (((0.0, 1.0),),), proof, precisions), vram_bytes=800_000_000
        )
        log.peaks[cell.cell] = {"peak_rss_bytes": 7, "allocated_vram_bytes": 300_000_000}
        turns[cell.cell] = Turn((10, 20), 1, 30, 30, 5, device_ns, disturbance)
    rates = {"fp32": 50_000.0, "tf32": 400_000.0, "memory": 4_000.0}
    log.rounds = [Round(0, 1, tuple(turns), turns, 100, rates)]
    log.ceilings = {rate: {"value": value, "sentinel": value} for rate, value in rates.items()}
    return log


def rows_of(disturbance: dict[str, Any], device_ns: tuple[int, ...]) -> list[dict[str, Any]]:
    """The rows of such a replica."""
    return build_rows(log_of(disturbance, device_ns), IDENTITY)


UNHEARD: Any = SimpleNamespace(listener=Silent())
"""All that is asked of a bench here: somebody to tell of a failure."""


def test_what_is_proved_after_the_last_call_stands_beside_what_was_before_it() -> None:
    log = log_of(GPU_TURN, (8, 18))
    _, _, tf32 = log.cohort.cells
    _add_proof(log, UNHEARD, tf32, {"kernels_per_call": 70, "remarks": ["something to know"]})
    row = build_rows(log, IDENTITY)[2]
    assert json.loads(row["proof"])["method"]["kernels_per_call"] == 70
    assert (row["status"], row["reasons"]) == ("ok", ["something to know"])


def test_a_method_that_is_found_out_after_its_last_call_gets_no_speedup() -> None:
    log = log_of(GPU_TURN, (8, 18))
    baseline, _, tf32 = log.cohort.cells
    _add_proof(log, UNHEARD, tf32, Failure("invalid", "products ran in another arithmetic than promised"))
    row = derive_speedups(as_table(build_rows(log, IDENTITY)), 0.03).to_pylist()[2]
    assert (row["status"], row["speedup"]) == ("invalid", None)
    with pytest.raises(BaselineLostError):
        _add_proof(log, UNHEARD, baseline, Failure("invalid", "products ran elsewhere"))


def test_a_row_says_which_gpu_its_process_saw_and_what_it_took_of_it() -> None:
    row = rows_of(GPU_TURN, (8, 18))[0]
    assert (row["gpu"], row["gpu_uuid"]) == ("Made Up GPU", "GPU-given-by-ray")
    assert (row["vram_bytes"], row["allocated_vram_bytes"], row["peak_rss_bytes"]) == (800_000_000, 300_000_000, 7)
    assert row["device_ns"] == [8, 18]
    assert row["round_gpu_throttle"] == [("power-cap",)]
    assert row["round_gpu_xid_errors"] == [None]


def test_rows_of_a_gpu_fit_the_schema() -> None:
    table = as_table(rows_of(GPU_TURN, (8, 18)))
    assert table["round_gpu_throttle"].to_pylist()[0] == [["power-cap"]]
    assert table["device_ns"].to_pylist()[0] == [8, 18]
    assert as_table(rows_of({}, ()))["device_ns"].to_pylist()[0] is None


def test_a_gpus_rows_are_held_to_its_own_limits() -> None:
    rows = derive_speedups(as_table(rows_of(GPU_TURN, (8, 18))), 0.03).to_pylist()
    limits = {row["name"]: row["limit_ns"] for row in rows}
    operations = json.loads(rows_of(GPU_TURN, ())[0]["operations_by_precision"])["fp32"]
    assert limits["pytorch-fp32"] == pytest.approx(operations / 50_000.0)
    assert limits["pytorch-tf32"] < limits["pytorch-fp32"]


def test_samples_carry_the_devices_own_time_beside_the_latency(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write_run(run_record())
    device_ns = list(range(1, 16))
    store.publish_replica(RUN, "c", 0, [measured_row("c", 0, "pytorch", 1.0, device="cuda", device_ns=device_ns)])
    store.publish_replica(RUN, "d", 0, [measured_row("d", 0, "pytorch", 1.0)])
    asked = "SELECT cell, count(*) AS samples, sum(device_ns)::BIGINT AS total FROM samples GROUP BY ALL ORDER BY 1"
    rows = query(store, asked).to_pylist()
    assert [(row["samples"], row["total"]) for row in rows] == [(15, 120), (15, None)]
