"""Claims about how measurements become speedups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measured import LENGTHS, RUN, as_table, measured_row, run_record, simulated_cohort, simulated_run

from farm import speedups
from farm.ratios import geometric_mean_ratio
from farm.schemas import SPEEDUP_SCHEMA
from farm.speedups import derive_speedups
from farm.store import Store


def derived(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Speedup rows by cell."""
    table = derive_speedups(as_table(rows), same_within=0.03)
    assert table.schema.equals(SPEEDUP_SCHEMA)
    return {row["cell"]: row for row in table.to_pylist()}


def test_a_speedup_is_the_baselines_latency_over_the_methods():
    found = derived([measured_row("c", 0, "pytorch", 100.0), measured_row("c", 0, "quantized", 50.0)])
    assert found["c-quantized"]["speedup"] == pytest.approx(2.0)
    assert found["c-quantized"]["verdict"] == "faster"
    assert found["c-quantized"]["latency_p50_ns"] == pytest.approx(50e6)
    assert found["c-quantized"]["baseline_p50_ns"] == pytest.approx(100e6)
    assert found["c-quantized"]["interval"] == "one-replica"
    assert (found["c-quantized"]["rounds"], found["c-quantized"]["samples"]) == (3, 15)


def test_the_baselines_own_row_has_speedup_one_and_no_verdict():
    row = derived([measured_row("c", 0, "pytorch", 100.0)])["c-pytorch"]
    assert row["speedup"] == 1.0
    assert row["verdict"] is row["speedup_low"] is None


def test_rounds_pair_within_a_replica_never_across():
    slow = [measured_row("c", 0, "pytorch", 100.0), measured_row("c", 0, "quantized", 50.0)]
    fast = [measured_row("c", 1, "pytorch", 10.0), measured_row("c", 1, "quantized", 5.0)]
    row = derived([*fast, *slow])["c-quantized"]
    assert row["speedup"] == pytest.approx(2.0)
    assert row["speedup_high"] == pytest.approx(row["speedup_low"])
    assert (row["replicas"], row["interval"]) == (2, "replicas")


def test_true_speedups_lie_in_their_intervals_and_the_twin_at_one():
    found = derived(simulated_run(replicas=5, seed=3))
    for length in LENGTHS:
        for name, role, truth in [("quantized", "candidate", 1.9), ("pytorch", "twin", 1.0)]:
            row = found[f"{name}-{role}-l{length}"]
            assert row["role"] == role
            assert row["speedup_low"] <= truth * 1.01 and row["speedup_high"] >= truth / 1.01
            assert np.shape(row["log_ratios"]) == (5, 20)


@pytest.mark.parametrize(("effort", "kind"), [("standard", "two-stage"), ("rigorous", "replicas")])
def test_ten_replicas_are_judged_by_as_many_as_their_effort_begins_with(tmp_path: Path, effort: str, kind: str):
    store, record = Store(tmp_path), run_record()
    store.write_run(record.model_copy(update={"suite": record.suite | {"effort": effort}}))
    for length in LENGTHS[:2]:
        for replica in range(10):
            store.publish_replica(RUN, f"cpu-b1-l{length}", replica, simulated_cohort(length, replica, rounds=4))
    rows = [row for row in speedups.current(store, RUN).to_pylist() if row["name"] == "quantized"]
    assert {row["interval"] for row in rows} == {kind}
    assert geometric_mean_ratio(rows, same_within=0.03).interval == kind


@pytest.mark.parametrize("status", ["failed", "unsupported", "invalid"])
def test_a_cell_that_is_not_ok_says_why_and_has_no_speedup(status: str):
    bad = measured_row("c", 0, "quantized", 50.0, status=status, reasons=["it broke"])
    found = derived([measured_row("c", 0, "pytorch", 100.0), bad, measured_row("c", 0, "onnxruntime", 80.0)])
    row = found["c-quantized"]
    assert (row["status"], row["reasons"]) == (status, ["it broke"])
    assert row["speedup"] is row["verdict"] is row["latency_p50_ns"] is None
    assert found["c-onnxruntime"]["speedup"] == pytest.approx(1.25)


def test_a_cell_that_failed_once_is_not_called_ok():
    rows = [measured_row("c", replica, "pytorch", 100.0) for replica in range(3)]
    rows += [measured_row("c", replica, "quantized", 50.0) for replica in range(2)]
    rows += [measured_row("c", 2, "quantized", 50.0, status="failed", reasons=["crashed"])]
    row = derived(rows)["c-quantized"]
    assert (row["status"], row["reasons"], row["replicas"]) == ("failed", ["crashed (1 of 3 replicas)"], 3)
    assert row["speedup"] is None


@pytest.mark.parametrize(
    "baseline", [[], [measured_row("c", 0, "pytorch", 100.0, status="failed", round=None, latency_ns=None)]]
)
def test_without_a_baseline_there_is_a_latency_but_no_speedup(baseline: list[dict[str, Any]]):
    row = derived([*baseline, measured_row("c", 0, "quantized", 50.0)])["c-quantized"]
    assert row["latency_p50_ns"] == pytest.approx(50e6)
    assert row["speedup"] is row["verdict"] is None
    assert "baseline" in row["reasons"][-1]


def test_accuracy_drop_is_in_points_against_the_cohorts_baseline():
    row = derived([measured_row("c", 0, "pytorch", 100.0), measured_row("c", 0, "quantized", 50.0)])["c-quantized"]
    assert row["accuracy_drop_points"] == pytest.approx(1.62)


def test_a_gate_failed_in_one_replica_is_failed():
    rows = [measured_row("c", replica, "pytorch", 100.0) for replica in range(2)]
    rows += [measured_row("c", replica, "quantized", 50.0, gate=gate) for replica, gate in enumerate(["pass", "fail"])]
    found = derived(rows)
    assert found["c-quantized"]["gate"] == "fail"
    assert found["c-pytorch"]["gate"] is None


def _disturbed(row: dict[str, Any], numbers: set[int]) -> dict[str, Any]:
    """The row with these rounds ten times as slow, and marked as the guards would mark them."""
    rounds = sorted(set(row["round"]))
    slow = [ns * 10 if at in numbers else ns for at, ns in zip(row["round"], row["latency_ns"], strict=True)]
    return row | {
        "latency_ns": slow,
        "tainted": [at in numbers for at in row["round"]],
        "round_taint_reasons": [["steal"] if at in numbers else [] for at in rounds],
    }


def test_disturbed_rounds_are_left_out_and_the_speedup_with_them_is_kept_beside():
    baseline, twin, *others = simulated_cohort(64, 0, rounds=10)
    quantized = next(row for row in others if row["name"] == "quantized")
    unmarked = baseline | {"tainted": [at in {2, 3} for at in baseline["round"]]}
    found = derived([unmarked, twin, _disturbed(quantized, {2, 3})])[quantized["cell"]]
    undisturbed = derived([baseline, twin, quantized])[quantized["cell"]]
    assert (found["rounds"], found["rounds_tainted"], found["taint_reasons"]) == (8, 2, ["steal"])
    assert found["speedup"] == pytest.approx(undisturbed["speedup"], rel=0.02)
    assert found["speedup_all_rounds"] == pytest.approx(undisturbed["speedup"] / 10**0.2, rel=0.02)
    assert undisturbed["speedup_all_rounds"] is None


def test_where_hardly_a_round_is_clean_all_of_them_count():
    baseline, _, *others = simulated_cohort(64, 0, rounds=6)
    found = derived([baseline, _disturbed(others[0], {0, 1, 2})])[others[0]["cell"]]
    assert (found["rounds"], found["rounds_measured"], found["rounds_tainted"]) == (6, 6, 3)
    assert found["speedup_all_rounds"] is None


def test_each_state_of_the_machine_has_a_speedup_where_it_has_rounds_enough():
    baseline, _, *others = simulated_cohort(64, 0, rounds=12)
    states = ["usual"] * 8 + ["bf16 slower"] * 4
    rows = [row | {"round_state": states} for row in (baseline, *others)]
    by_state = {each["state"]: each for each in derived(rows)["quantized-candidate-l64"]["states"]}
    assert by_state["usual"]["rounds"] == 8
    assert by_state["usual"]["low"] < by_state["usual"]["speedup"] < by_state["usual"]["high"]
    assert by_state["bf16 slower"] == {
        "state": "bf16 slower",
        "rounds": 4,
        "speedup": None,
        "low": None,
        "high": None,
    }


def test_a_machine_in_one_state_has_no_speedups_by_state():
    baseline, _, *others = simulated_cohort(64, 0, rounds=12)
    rows = [row | {"round_state": ["usual"] * 12} for row in (baseline, *others)]
    assert derived(rows)["quantized-candidate-l64"]["states"] is None


def test_percentiles_that_too_few_samples_support_are_withheld():
    found = derived(simulated_cohort(64, 0, rounds=20))["quantized-candidate-l64"]
    assert found["samples"] == 100
    assert found["latency_p90_ns"] > found["latency_p50_ns"]
    assert found["latency_p95_ns"] is found["latency_p99_ns"] is None


def test_claims_are_judged_together_and_the_twin_is_none_of_them():
    found = derived(simulated_run(replicas=5, seed=3))
    claims = [row for row in found.values() if row["role"] == "candidate"]
    assert all(row["p_holm"] >= row["p_value"] for row in claims)
    assert any(row["p_holm"] > row["p_value"] for row in claims)
    assert all(row["p_holm"] is None for row in found.values() if row["role"] != "candidate")


def test_an_interval_wider_than_the_effort_aims_at_is_not_resolved():
    rows = as_table(simulated_run(replicas=5, lengths=[64]))
    for half_width, resolved in ((1.0, True), (1e-6, False), (None, None)):
        table = derive_speedups(rows, same_within=0.03, half_width=half_width).to_pylist()
        assert {row["resolved"] for row in table if row["role"] == "candidate"} == {resolved}


def test_the_bootstrap_speaks_from_eight_replicas_on():
    few, many = (derived(simulated_run(replicas=count, lengths=[64])) for count in (7, 8))
    assert few["quantized-candidate-l64"]["bootstrap_agrees"] is None
    checked = many["quantized-candidate-l64"]
    assert checked["bootstrap_agrees"]
    assert checked["bootstrap_low"] < checked["speedup"] < checked["bootstrap_high"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "results")
    store.write_run(run_record())
    store.publish_replica(RUN, "cpu-b1-l64", 0, simulated_cohort(64, 0))
    return store


def test_stored_speedups_are_used_only_while_they_cover_every_part(store: Store):
    first = speedups.current(store, RUN)
    assert first.equals(speedups.rebuild(store, RUN))
    written = (store.root / "speedups" / f"{RUN}.parquet").stat().st_mtime_ns
    assert speedups.current(store, RUN).equals(first)
    assert (store.root / "speedups" / f"{RUN}.parquet").stat().st_mtime_ns == written

    store.publish_replica(RUN, "cpu-b1-l64", 1, simulated_cohort(64, 1))
    assert set(speedups.current(store, RUN)["replicas"].to_pylist()) == {2}


def test_a_damaged_speedups_file_is_made_again(store: Store):
    expected = speedups.rebuild(store, RUN)
    (store.root / "speedups" / f"{RUN}.parquet").write_bytes(b"PAR1 nonsense")
    assert speedups.current(store, RUN).equals(expected)
    assert store.read_speedups(RUN) is not None


def test_reading_writes_nothing(store: Store):
    reader = Store(store.root, read_only=True)
    assert speedups.current(reader, RUN).num_rows == 5
    assert not (store.root / "speedups").exists()


def test_the_same_margin_is_the_suites_or_follows_the_effort(store: Store):
    assert speedups.same_within(store, RUN) == 0.03
    for number, (suite, expected) in enumerate(
        [({"same_within": 0.1}, 0.1), ({"effort": "rigorous", "same_within": None}, 0.015), ({}, 0.03)]
    ):
        store.write_run(run_record(run=f"other{number}", suite=suite))
        assert speedups.same_within(store, f"other{number}") == expected
