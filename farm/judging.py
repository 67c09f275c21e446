"""Whether methods answer as the baseline does: on labelled texts before anything is timed, and on the timed inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from farm import quality
from farm.events import Step
from farm.records import Cell, Failure, Workload
from farm.rows import ReplicaLog, logits_of
from farm.side_by_side import side_by_side
from tasks.method import Arrays, find_method

if TYPE_CHECKING:
    from farm.bench import Bench

MOST_PADDED = 1000
"""An artifact of a longer length is judged on so many texts at most, each of which takes that length's time: enough for
an interval of two points where one text in a hundred differs."""

Fail = Callable[[Cell, Failure], None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Texts that methods are judged on: token arrays `[n, shortest length]` and, where the labels fit, labels `[n]`.

    `pad` gives arrays padded further to a longer length, for artifacts that are not the judged ones: exact ones are
    held against the judged one on the texts in the places `sample`, others judged as that one was on those in `many`.
    """

    encoded: Arrays
    sha256: str
    labels: np.ndarray | None
    max_drop_points: float | None
    sample: np.ndarray
    many: np.ndarray
    pad: Callable[[Arrays, int], Arrays]

    def padded(self, places: np.ndarray, length: int) -> Arrays:
        """The texts in these places, padded to the length."""
        return self.pad({name: array[places] for name, array in self.encoded.items()}, length)

    def name_of(self, places: np.ndarray) -> str:
        """Names the texts in these places, as tokenized for the shortest length."""
        return f"{self.sha256}, {len(places)} of them at length {self.encoded['input_ids'].shape[1]}"


async def judge_methods(log: ReplicaLog, cohort: Any, bench: Bench, fail: Fail) -> None:
    """Judge every method's predictions on the evaluation set at the suite's shortest length, then its own artifact.

    Fills `log.quality`; `fail` is told of every cell that fell out.
    """
    evaluation = bench.evaluation
    if evaluation is None:
        return
    cells = [cell for cell in log.cohort.cells if cell.role != "twin" and cell.cell in log.artifacts]
    answers: dict[str, np.ndarray] = {}

    async def answer(number: int, cell: Cell) -> None:
        bench.listener.on(Step("evaluate", number, len(cells), cell.name))
        judged = replace(cell, workload=_judged_workload(bench.suite.lengths, cell))
        logits = await cohort.evaluate.remote(judged, bench.model, evaluation.encoded, evaluation.sha256)
        if isinstance(logits, Failure):
            fail(cell, logits)
        else:
            answers[cell.cell] = logits

    await side_by_side(cells, answer, log.cohort.workload.device)
    reference = answers[log.cohort.baseline.cell]
    for cell, logits in ((cell, answers[cell.cell]) for cell in cells if cell.cell in answers):
        exact = find_method(cell.method).exact
        judged = quality.judge(reference, logits, evaluation.labels, exact, evaluation.max_drop_points)
        log.quality[cell.cell] = judged
        if judged.fault:
            fail(cell, Failure("invalid", judged.fault))
    if log.cohort.workload.length > evaluation.encoded["input_ids"].shape[1]:
        await _judge_others(log, cohort, bench, fail, answers)
    bench.listener.on(Step("evaluate", len(cells), len(cells)))
    log.quality[log.cohort.cells[1].cell] = log.quality[log.cohort.baseline.cell]


async def _judge_others(
    log: ReplicaLog, cohort: Any, bench: Bench, fail: Fail, answers: Mapping[str, np.ndarray]
) -> None:
    """Judge the artifacts of the cohort's length that are not those of the shortest one: each was made for itself, and
    may answer otherwise."""
    evaluation, length = bench.evaluation, log.cohort.workload.length
    if evaluation is None:
        return
    reference = answers[log.cohort.baseline.cell]
    cells = [cell for cell in log.cohort.cells if cell.cell in answers and cell.cell not in log.failures]

    async def compare(number: int, cell: Cell) -> None:
        bench.listener.on(Step("evaluate", number, len(cells), f"{cell.name} at length {length}"))
        judged, exact = _judged_workload(bench.suite.lengths, cell), find_method(cell.method).exact
        places = evaluation.sample if exact else evaluation.many
        texts = evaluation.padded(places, length)
        logits = await cohort.evaluate_unlike.remote(cell, judged, bench.model, texts, evaluation.name_of(places))
        if isinstance(logits, Failure):
            fail(cell, logits)
        elif logits is not None and exact:
            if fault := quality.likeness_fault(answers[cell.cell][places], logits, judged.length):
                fail(cell, Failure("invalid", fault))
        elif logits is not None:
            labels = None if evaluation.labels is None else evaluation.labels[places]
            found = quality.judge(reference[places], logits, labels, False, evaluation.max_drop_points)
            log.quality[cell.cell] = found
            if found.fault:
                fail(cell, Failure("invalid", f"padded to {length} tokens: {found.fault}"))

    await side_by_side(cells, compare, log.cohort.workload.device)


def timed_fault(log: ReplicaLog, evaluation: Evaluation | None, cell: Cell) -> str | None:
    """Why the logits on the timed inputs disqualify the cell; without other texts its predictions count too."""
    baseline, ready = logits_of(log.ready[log.cohort.baseline.cell]), logits_of(log.ready[cell.cell])
    exact = find_method(cell.method).exact
    if evaluation is None:
        return quality.judge(baseline, ready, None, exact, None).fault
    return quality.parity_fault(baseline, ready, exact)


def _judged_workload(lengths: Sequence[int], cell: Cell) -> Workload:
    """The cell's workload at the suite's shortest length, where methods are judged."""
    return replace(cell.workload, length=min(lengths))
