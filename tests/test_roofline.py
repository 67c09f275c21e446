"""A row's limit is what the machine allowed in its own rounds, by the work that its method cannot leave out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from made_up import MODEL, SLOT, plan_of, speedup_rows, suite_of, with_changes
from measured import as_table, measured_row

from farm.pairing import Process
from farm.records import WarmUp, Workload
from farm.roofline import limit_ns, roofline
from farm.rows import ReplicaLog, RunIdentity, build_rows
from farm.speedups import derive_speedups
from farm.tables import speedup_table
from tasks.method import find_method
from tasks.operations import PRODUCTS, Architecture, count_work

RATES = {"fp32": 100.0, "bf16": 1000.0, "int8": 2000.0, "memory": 10.0}
ROUNDS = {"fp32": "round_fp32_gflops", "int8": "round_int8_gops", "memory": "round_memory_gbs"}
DISTILBERT = Architecture(layers=6, hidden=768, intermediate=3072, labels=2, vocabulary=30522, embedding=768)


def test_products_of_two_precisions_take_turns() -> None:
    assert limit_ns({"int8": 2000, "fp32": 100}, 0, RATES) == pytest.approx(1 + 1)


def test_reading_is_the_limit_where_it_takes_longer_than_computing() -> None:
    assert limit_ns({"int8": 2000}, 500, RATES) == pytest.approx(50)


@pytest.mark.parametrize("operations", [{"fp16": 100}, {"fp32": 100, "fp16": 1}, {}])
def test_without_a_rate_for_a_precision_there_is_no_limit(operations: Mapping[str, int]) -> None:
    assert limit_ns(operations, 0, RATES) is None


def row(*sentinel: float | None, **changes: Any) -> dict[str, Any]:
    """A row of 100 ms in one round per reading of the sentinel, which read 50 when the ceiling was 100 GFLOP/s.

    Its 5 GFLOP then take 50 ms.
    """
    readings = {column: list(sentinel) for column in ROUNDS.values()}
    ceilings = {rate: {"value": 100.0, "sentinel": 50.0} for rate in ROUNDS}
    samples = {"round": list(range(len(sentinel))), "latency_ns": [100_000_000] * len(sentinel)}
    work = {"operations_by_precision": json.dumps({"fp32": 5_000_000_000}), "bytes_read": 0}
    row = measured_row("c", 0, "pytorch", 100.0, ceilings=json.dumps(ceilings), **readings, **samples, **work)
    return row | changes


def found(row: Mapping[str, Any]) -> dict[str, float]:
    return roofline([Process(row, row)])


def test_the_limit_moves_with_the_machine() -> None:
    assert found(row(50, 50, 50)) == {"limit_ns": pytest.approx(50e6), "limit_fraction": pytest.approx(0.5)}
    assert found(row(25, 25, 25))["limit_ns"] == pytest.approx(100e6)


def test_the_fraction_is_taken_within_each_round() -> None:
    """A round at half the speed, in which the call takes twice as long, reaches as much of its limit."""
    halved = row(50, 25, 50, latency_ns=[100_000_000, 200_000_000, 100_000_000])
    assert found(halved)["limit_fraction"] == pytest.approx(0.5)


def test_rounds_without_a_reading_say_nothing() -> None:
    assert found(row(None, 50, None)) == found(row(50))
    assert found(row(None, None)) == {}


def test_disturbed_rounds_do_not_count() -> None:
    tainted = [True, False, False, False, False]
    assert found(row(5, 50, 50, 50, 50, tainted=tainted))["limit_ns"] == pytest.approx(50e6)


def test_what_caches_hold_is_not_read_from_memory() -> None:
    ceilings = {rate: {"value": 100.0, "sentinel": 50.0, "cached_bytes": 8_000_000_000} for rate in ROUNDS}
    spilling = row(50, bytes_read=16_000_000_000)
    assert found(spilling)["limit_ns"] == pytest.approx(160e6)
    assert found(spilling | {"ceilings": json.dumps(ceilings)})["limit_ns"] == pytest.approx(80e6)


@pytest.mark.parametrize("missing", ["ceilings", "operations_by_precision", "bytes_read", "round_fp32_gflops"])
def test_rows_of_an_older_farm_have_no_limit(missing: str) -> None:
    assert found(row(50, 50, **{missing: None})) == {}


def test_a_speedup_row_carries_its_limit() -> None:
    derived = derive_speedups(as_table([row(50, 50, 50, operations=5_000_000_000)]), 0.03).to_pylist()[0]
    assert derived["operations"] == 5_000_000_000
    assert (derived["limit_ns"], derived["limit_fraction"]) == (pytest.approx(50e6), pytest.approx(0.5))


def test_what_beats_the_limit_is_called_a_mistake() -> None:
    rows = with_changes(speedup_rows(64, 128), "quantized", 128, limit_fraction=1.04)
    lines = "\n".join(speedup_table(rows).blocks[0].footer)
    assert "Above the machine's limit, which cannot be: quantized (128) 104 %." in lines
    at_the_limit = with_changes(speedup_rows(64), "quantized", 64, limit_fraction=1.0)
    assert "cannot be" not in "\n".join(speedup_table(at_the_limit).blocks[0].footer)


# What rows say of the work


def rows_of(
    *methods: str, inputs: str = "full", model: Architecture | None = DISTILBERT, **proof: Any
) -> list[dict[str, Any]]:
    """Rows of the methods, the baseline and its twin first, whose cells were loaded at length 64."""
    suite = suite_of(baseline=methods[0], methods=list(methods), lengths=[64])
    log = ReplicaLog(plan_of(suite).cohorts[0], 0, 1, SLOT)
    for cell in log.cohort.cells:
        precisions = {each: find_method(cell.method).precision_of(each, cell.workload) for each in PRODUCTS}
        log.ready[cell.cell] = WarmUp(
            1.0, 1, 1, True, 1.0, (((0.0, 1.0),),), {"pid": 1, "method": {}} | proof, precisions
        )
    return build_rows(log, RunIdentity("run", "suite", inputs, MODEL, {}, model))


def test_a_row_tells_operations_by_the_precision_they_run_in() -> None:
    work = count_work(DISTILBERT, 1, 64)
    eager, _, quantized = rows_of("pytorch-fp32", "pytorch-int8-dynamic")
    assert json.loads(eager["operations_by_precision"]) == {"fp32": work.operations}
    assert json.loads(quantized["operations_by_precision"]) == {"int8": work.linear, "fp32": work.attention}
    assert eager["operations"] == quantized["operations"] == work.operations
    assert eager["bytes_read"] == 4 * quantized["bytes_read"] == 4 * work.numbers_read


def test_operations_are_counted_in_the_precisions_that_the_proof_saw() -> None:
    work, seen = count_work(DISTILBERT, 1, 64), {"precision_shares": {"attention": {"int8": 0.5, "fp32": 0.5}}}
    _, _, quantized = rows_of("pytorch-fp32", "openvino-int8", method=seen)
    counted = {"int8": work.linear + work.attention // 2, "fp32": work.attention // 2}
    assert json.loads(quantized["operations_by_precision"]) == counted


def test_a_method_that_prunes_is_held_to_the_work_that_is_left() -> None:
    eager, _, pruned = rows_of("pytorch-fp32", "openvino-fp32-pruned")
    assert pruned["operations"] == count_work(DISTILBERT, 1, 64, pruned=True).operations < eager["operations"]


@pytest.mark.parametrize(("inputs", "counted"), [("full", True), ("padded", False)])
def test_what_is_left_of_padding_that_is_cut_off_is_not_guessed_at(inputs: str, counted: bool) -> None:
    spared: Any = {"method": "pytorch-fp32", "name": "spared", "options": {"length_bucket": 16}}
    eager, _, cut = rows_of("pytorch-fp32", spared, inputs=inputs)
    assert "operations" in eager
    assert ("operations" in cut) == counted


def test_controls_and_models_that_cannot_be_counted_have_no_work() -> None:
    assert not any("operations" in row for row in rows_of("control-null", "control-work"))
    assert not any("operations" in row for row in rows_of("pytorch-fp32", "torchscript-fp32", model=None))


def test_attention_is_in_what_the_method_leaves_it_in() -> None:
    def attention(method: str, **options: Any) -> str:
        return find_method(method).precision_of("attention", Workload("cpu", 2, 1, 64, options))

    assert attention("pytorch-int8-dynamic") == "fp32"
    assert attention("openvino-bf16") == "bf16"
