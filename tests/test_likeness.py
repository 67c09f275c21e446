"""Every artifact answers for itself: those of other lengths than the judged one are held against it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_up import MODEL, SLOT, plan_of, suite_of

from farm import cohort, judging
from farm.bench import Bench
from farm.budget import Budget
from farm.cohort import CohortProcess
from farm.events import Silent
from farm.judging import Evaluation
from farm.records import Cell, Failure, WarmUp, Workload
from farm.rows import ReplicaLog
from farm.stopping import EFFORTS
from farm.suite import Limits
from tasks import openvino
from tasks.artifacts import Artifact
from tasks.method import Arrays

TEXTS = 40
SAMPLE = np.arange(0, TEXTS, 2)
LOGITS = np.tile([0.0, 1.0], (TEXTS, 1))
SHIFTED, TURNED = LOGITS + 0.01, -LOGITS

EXACT, REDUCED = "control-work", "pytorch-int8-dynamic"
SUITE = suite_of(methods=["control-null", EXACT, REDUCED])


class Remote:
    """Calls as Ray's handles are called."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def remote(self, *arguments: Any) -> Any:
        """Answer later."""
        return self._answer(*arguments)


class Answering:
    """A cohort of which every method answers the baseline's logits at the judged length, and `unlike` at its own."""

    def __init__(self, unlike: Mapping[str, Any]) -> None:
        self.asked: list[tuple[str, int, int, tuple[int, ...]]] = []
        self._unlike = unlike
        self.evaluate = Remote(lambda *_: LOGITS)
        self.evaluate_unlike = Remote(self._answer)

    def _answer(self, cell: Cell, judged: Workload, model: Any, encoded: Arrays, sha256: str) -> Any:
        del model
        assert sha256 == f"texts, {len(encoded['input_ids'])} of them at length 64"
        self.asked.append((cell.name, cell.workload.length, judged.length, encoded["input_ids"].shape))
        return self._unlike.get(cell.name)


def bench_of(evaluation: Evaluation | None) -> Bench:
    chosen = EFFORTS["quick"]
    return Bench(SUITE, MODEL, chosen, {}, evaluation, Silent(), Budget(chosen, None))


def _pad(texts: Arrays, length: int) -> Arrays:
    return {"input_ids": np.ones((len(texts["input_ids"]), length), np.int64)}


def evaluated(length: int, **unlike: Any) -> tuple[ReplicaLog, Answering]:
    """The log of a cohort of that length after it was evaluated."""
    encoded = {"input_ids": np.ones((TEXTS, 64), np.int64)}
    evaluation = Evaluation(encoded, "texts", np.ones(TEXTS, int), 0.5, SAMPLE, np.arange(TEXTS), _pad)
    log = log_of(length)
    answering = Answering({name.replace("_", "-"): logits for name, logits in unlike.items()})

    def fail(cell: Cell, failure: Failure) -> None:
        log.failures[cell.cell] = failure

    asyncio.run(judging.judge_methods(log, answering, bench_of(evaluation), fail))
    return log, answering


def log_of(length: int) -> ReplicaLog:
    (planned,) = (each for each in plan_of(SUITE).cohorts if each.workload.length == length)
    artifacts = {cell.cell: Artifact(cell.name, "", 0, 0.0, cached=True) for cell in planned.cells}
    return ReplicaLog(planned, 0, 1, SLOT, artifacts)


def reasons(log: ReplicaLog) -> dict[str, str]:
    names = {cell.cell: cell.name for cell in log.cohort.cells}
    assert {each.status for each in log.failures.values()} <= {"invalid"}
    return {names[cell]: failure.reason for cell, failure in log.failures.items()}


def test_an_artifact_of_another_length_that_answers_something_else_is_invalid() -> None:
    log, answering = evaluated(128, control_work=SHIFTED[SAMPLE], pytorch_int8_dynamic=TURNED)
    assert reasons(log) == {
        EXACT: "on the same texts, padded: logits differ from those of its artifact for length 64 by 0.01, more than "
        "0.001",
        REDUCED: "padded to 128 tokens: predicts what the baseline predicts on 0 of 40 texts, clearly below 97%",
    }
    asked = {"control-null": 20, EXACT: 20, REDUCED: 40}
    assert answering.asked == [(name, 128, 64, (texts, 128)) for name, texts in asked.items()]


def test_an_exact_one_that_answers_alike_keeps_the_accuracy_of_the_judged_one() -> None:
    log, _ = evaluated(128, control_work=LOGITS[SAMPLE])
    assert reasons(log) == {}
    assert {judged.accuracy for judged in log.quality.values()} == {1.0}


def test_one_of_reduced_precision_has_an_accuracy_of_its_own() -> None:
    wrong = np.arange(TEXTS)[:, None] == 7
    log, _ = evaluated(128, pytorch_int8_dynamic=np.where(wrong, TURNED, LOGITS))
    judged = {cell.name: log.quality[cell.cell] for cell in log.cohort.cells}
    assert judged[EXACT].accuracy == 1.0
    assert (judged[REDUCED].accuracy, judged[REDUCED].agreement) == (39 / 40, 39 / 40)
    assert (judged[REDUCED].baseline_right_only, judged[REDUCED].gate) == (1, "fail")


def test_at_the_judged_length_nothing_is_asked_twice() -> None:
    log, answering = evaluated(64, control_work=SHIFTED[SAMPLE])
    assert (reasons(log), answering.asked) == ({}, [])


def test_an_artifact_that_cannot_answer_says_why() -> None:
    log, _ = evaluated(128, control_work=Failure("failed", "the process died"))
    assert [failure.reason for failure in log.failures.values()] == ["the process died"]


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[CohortProcess]:
    """A cohort in this very process, which would evaluate to the number of texts."""
    monkeypatch.setattr(cohort, "die_with_parent", lambda: None)
    monkeypatch.setattr(openvino, "texts_sha256", lambda _source: "")
    monkeypatch.setattr(CohortProcess, "evaluate", lambda *given: np.zeros((len(given[3]["input_ids"]), 2)))
    made = CohortProcess(replace(SLOT, cores=(0,)), Limits())
    yield made
    made.close()


@pytest.mark.parametrize(
    ("method", "answers"),
    [("pytorch-fp32", False), ("openvino-int8", False), ("pytorch-fp32-aot", True)],
)
def test_an_artifact_answers_again_where_it_is_not_the_judged_one(
    process: CohortProcess, method: str, answers: bool
) -> None:
    judged = Workload("cpu", 1, 1, 64)
    cell = Cell("c", "candidate", method, method, "fp32", replace(judged, length=128))
    found = process.evaluate_unlike(cell, judged, MODEL, {"input_ids": np.ones((3, 128))}, "sha")
    assert (found is not None) == answers


def _ready(*rows: list[float]) -> WarmUp:
    return WarmUp(0.0, 1, 1, True, 1.0, (tuple(map(tuple, rows)),), {})


@pytest.mark.parametrize(("turned", "fault"), [(0, False), (1, False), (3, True)])
def test_without_texts_to_judge_on_the_timed_inputs_decide(turned: int, fault: bool) -> None:
    log = log_of(64)
    baseline, cell = log.cohort.baseline, next(each for each in log.cohort.cells if each.name == REDUCED)
    log.ready[baseline.cell] = _ready(*[[0.0, 1.0]] * 4)
    log.ready[cell.cell] = _ready(*[[1.0, 0.0]] * turned, *[[0.0, 0.9]] * (4 - turned))
    assert (judging.timed_fault(log, None, cell) is not None) == fault
