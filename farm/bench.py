"""What is put on the bench before measuring: the model, its timed inputs and the texts it is judged on."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from farm.budget import Budget
from farm.errors import MethodUnsupportedError
from farm.events import Listener, StepReporter
from farm.judging import MOST_PADDED, Evaluation
from farm.plan import check_support, resolve_devices
from farm.quality import SAMPLE_TEXTS
from farm.records import Cell, Cohort, Machine, ModelInfo, Workload
from farm.stopping import EFFORTS, Effort
from farm.suite import Accuracy, Suite
from tasks.accuracy import DEMO_DATASET, EvaluationSet, fixed_sample, load_dataset
from tasks.calibration import DEMO_TEXTS, calibration_source, check_disjoint
from tasks.inputs import TokenArrays, build_inputs, encode_sentences, pad_further, short_to_long
from tasks.method import Arrays, find_method
from tasks.reviews import LABELS as DEMO_LABELS
from tasks.reviews import load_sentences, review_texts

TIMED_INPUTS = 4
"""Different batches that a cell rotates through: enough that no call repeats its predecessor's, few enough that
answering each once before timing stays short at length 512."""

TELL_ROUNDS_S = 0.5

MOST_LATER = 8
"""Further workloads that preparing a method covers at once. One process that imported and loaded a model makes the next
artifact cheaply, but where many nodes share the work, most of what comes later is measured elsewhere."""


@dataclass
class Bench:
    """What all replicas of a run work with."""

    suite: Suite
    model: ModelInfo
    effort: Effort
    inputs: Mapping[tuple[int, int], Sequence[Arrays]]
    """Timed inputs by length and batch size."""
    evaluation: Evaluation | None
    listener: Listener
    budget: Budget
    ceilings: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    """What the machine of each slot reaches at best, by node and slot; searched for by the first cohort there."""
    _told_round_s: float = -math.inf
    _same: dict[tuple[str, str, str], list[Workload]] = field(default_factory=dict)
    _place: dict[tuple[str, str], int] = field(default_factory=dict)

    def tells_round(self, first: bool) -> bool:
        """Whether a round that has just ended is worth telling: a replica's first, and of the others one in a while.

        Their estimates cost milliseconds, and hundreds of nodes end that many rounds a second.
        """
        now = time.monotonic()
        if not first and now - self._told_round_s < TELL_ROUNDS_S:
            return False
        self._told_round_s = now
        return True

    def plan_for(self, cohorts: Iterable[Cohort]) -> None:
        """Learn of further cohorts that this run will measure."""
        for cohort in cohorts:
            for cell in cohort.cells:
                same = self._same.setdefault((cohort.hardware_class, cell.role, cell.name), [])
                self._place[cohort.hardware_class, cell.cell] = len(same)
                same.append(cell.workload)

    def later_workloads(self, cohort: Cohort, cell: Cell) -> Sequence[Workload]:
        """The next workloads at which the same method will be run on machines like the cohort's."""
        after = self._place.get((cohort.hardware_class, cell.cell), -1) + 1
        return self._same.get((cohort.hardware_class, cell.role, cell.name), [])[after : after + MOST_LATER]


def lay_out(suite: Suite, model: ModelInfo, listener: Listener, effort: Effort | None = None) -> Bench:
    """Tokenize everything that cells will be given; `effort` replaces the suite's.

    Raises RequestError where texts cannot be had.
    """
    reporter = StepReporter(listener)
    dataset = _dataset(suite.accuracy, model, reporter) if suite.accuracy else None
    if dataset is None or dataset.name == DEMO_DATASET:
        texts: Sequence[str] = review_texts(load_sentences(reporter))
    else:
        texts = dataset.texts
    if suite.inputs == "padded":
        texts = short_to_long(model, texts, TIMED_INPUTS)
    shapes = [(length, batch) for length in suite.lengths for batch in suite.batch_sizes]
    inputs = {
        shape: build_inputs(model, texts, length=shape[0], batch_size=shape[1], kind=suite.inputs, count=TIMED_INPUTS)
        for shape in shapes
    }
    evaluation = _evaluation(suite, model, dataset) if dataset is not None else None
    chosen = effort or EFFORTS[suite.effort]
    budget = Budget(chosen, suite.budget_s or chosen.budget_s)
    return Bench(suite, model, chosen, inputs, evaluation, listener, budget)


def inputs_sha256(inputs: Sequence[TokenArrays]) -> str:
    """Names timed inputs, in their order: a hash of each array's name, type, shape and bytes."""
    digest = hashlib.sha256()
    for arrays in inputs:
        for name, array in sorted(arrays.items()):
            digest.update(f"{name} {array.dtype.str} {array.shape};".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def check_calibration(suite: Suite, model: ModelInfo, machines: Sequence[Machine], listener: Listener) -> None:
    """Raise RequestError where a method that can run on any of these machines calibrates with texts it is judged on.

    Reads texts only if there is such a method; the demo's are apart by themselves.
    """
    accuracy = suite.accuracy
    sources = _calibration_sources(suite, model, machines) if accuracy else set()
    if accuracy and accuracy.dataset == DEMO_DATASET:
        sources -= {DEMO_TEXTS}
    if accuracy and sources:
        judged = _dataset(accuracy, model, StepReporter(listener)).texts
        for source in sorted(sources):
            check_disjoint(source, judged)


def _dataset(accuracy: Accuracy, model: ModelInfo, reporter: StepReporter) -> EvaluationSet:
    columns = (accuracy.text_column, accuracy.label_column)
    return load_dataset(accuracy.dataset, model.labels, reporter, columns=columns, most=accuracy.max_texts)


def _calibration_sources(suite: Suite, model: ModelInfo, machines: Sequence[Machine]) -> set[str]:
    """Where those of the suite's methods that calibrate and can run take their texts from."""
    sources = set()
    for choice, machine in product(suite.methods, machines):
        for device in resolve_devices(suite, [machine]):
            method_id = choice.method_id(device)
            source = calibration_source(find_method(method_id).Options, choice.options)
            if source is not None:
                with suppress(MethodUnsupportedError):
                    check_support(method_id, machine, device, model, choice.options)
                    sources.add(source)
    return sources


def _evaluation(suite: Suite, model: ModelInfo, dataset: EvaluationSet) -> Evaluation:
    """The user's labels were checked against the model's. The demo's mean something only to a model that tells two
    things apart: others are judged on its texts by agreement alone."""
    shortest = min(suite.lengths)
    encoded = encode_sentences(model, dataset.texts, shortest)
    sample, many = (fixed_sample(len(dataset.texts), most) for most in (SAMPLE_TEXTS, MOST_PADDED))
    labelled = dataset.name != DEMO_DATASET or len(model.labels) == len(DEMO_LABELS)
    labels = np.asarray(dataset.labels) if labelled else None
    limit = suite.accuracy.max_drop_points if suite.accuracy else None
    return Evaluation(encoded, dataset.sha256, labels, limit, sample, many, partial(pad_further, model))
