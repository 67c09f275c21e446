"""What a method says of itself reaches its row."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from made_up import MACHINE, MODEL, SLOT, plan_of, suite_of

from farm.records import Failure, WarmUp
from farm.rows import ReplicaLog, RunIdentity, build_rows
from tasks.calibration import FOREIGN_TEXTS

LOGITS = (((0.0, 1.0),),)


def _rows(method_proof: dict[str, Any], steady: bool = True, failed: bool = False) -> list[dict[str, Any]]:
    cohort = plan_of().cohorts[0]
    log = ReplicaLog(cohort, replica=0, attempt=0, slot=SLOT)
    proof = {"pid": 1, "method": method_proof}
    for cell in cohort.cells:
        log.ready[cell.cell] = WarmUp(0.1, 1000, 3, steady, 1000.0, LOGITS, proof)
        if failed:
            log.failures[cell.cell] = Failure("failed", "it broke")
    return build_rows(log, RunIdentity("run", "suite", "full", MODEL, {}))


def test_a_methods_remarks_are_reasons_of_a_row_that_is_ok() -> None:
    for row in _rows({"remarks": ["attention is not fused"]}, steady=False):
        assert row["status"] == "ok"
        assert row["reasons"] == ["not steady when timing began", "attention is not fused"]


def test_without_remarks_there_are_no_reasons() -> None:
    assert all(row["reasons"] == [] for row in _rows({}))


def test_a_rows_libraries_are_those_of_the_node_it_was_measured_on() -> None:
    driver = {"libraries": {"torch": "2.13.0+cpu"}}
    there = replace(MACHINE, hostname="gpu-7", software={"python": "3.12.1", "torch": "2.13.0+cu130"})
    log = ReplicaLog(plan_of().cohorts[0], replica=0, attempt=0, slot=SLOT, machine=there)
    rows = build_rows(log, RunIdentity("run", "suite", "full", MODEL, driver))
    for environment in (json.loads(row["environment"]) for row in rows):
        assert environment["libraries"] == {"torch": "2.13.0+cu130"}
        assert (environment["python"], environment["machine"]["hostname"]) == ("3.12.1", "gpu-7")
        assert "software" not in environment["machine"]


def test_rows_name_the_inputs_of_their_shape() -> None:
    cohort = plan_of().cohorts[0]
    shape = (cohort.workload.length, cohort.workload.batch_size)
    log = ReplicaLog(cohort, replica=0, attempt=0, slot=SLOT)
    rows = build_rows(log, RunIdentity("run", "suite", "full", MODEL, {}, inputs_sha256={shape: "ab", (1, 1): "cd"}))
    assert {row["inputs_sha256"] for row in rows} == {"ab"}


def test_a_cell_that_failed_gives_its_failure_alone() -> None:
    rows = _rows({"remarks": ["attention is not fused"]}, failed=True)
    assert all((row["status"], row["reasons"]) == ("failed", ["it broke"]) for row in rows)


def test_another_model_than_the_demo_that_was_calibrated_on_its_reviews_says_so() -> None:
    def reasons(model: str, **options: object) -> list[str]:
        chosen = {"method": "onnxruntime-int8-static", "name": "static", "options": options}
        plan = plan_of(suite_of(methods=["control-null", chosen]), model=replace(MODEL, name=model))
        log = ReplicaLog(plan.cohorts[0], replica=0, attempt=0, slot=SLOT)
        for cell in log.cohort.cells:
            log.ready[cell.cell] = WarmUp(0.1, 1000, 3, True, 1000.0, LOGITS, {"pid": 1, "method": {}})
        rows = build_rows(log, RunIdentity("run", "suite", "full", plan.model, {}))
        assert not any(row["reasons"] for row in rows if row["name"] != "static")
        return list(rows[-1]["reasons"])

    assert reasons("my-model") == [FOREIGN_TEXTS]
    assert reasons("my-model", calibration="texts.csv") == reasons("demo") == []
