"""What is put on the bench before measuring: the model, its timed inputs and the texts it is judged on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from farm.budget import Budget
from farm.events import Listener, StepReporter
from farm.quality import SAMPLE_TEXTS
from farm.records import ModelInfo
from farm.replica import Bench, Evaluation
from farm.stopping import EFFORTS, Effort
from farm.suite import Accuracy, Suite
from tasks.accuracy import DEMO_DATASET, EvaluationSet, fixed_sample, load_dataset
from tasks.calibration import check_disjoint
from tasks.inputs import build_inputs, encode_sentences, pad_further
from tasks.method import find_method
from tasks.reviews import LABELS as DEMO_LABELS
from tasks.reviews import load_sentences, review_texts

TIMED_INPUTS = 4
"""Different batches that a cell rotates through: enough that no call repeats its predecessor's, few enough that
answering each once before timing stays short at length 512."""


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
    if dataset is not None:
        for source in _calibration_sources(suite):
            check_disjoint(source, dataset.texts)
    shapes = [(length, batch) for length in suite.lengths for batch in suite.batch_sizes]
    inputs = {
        shape: build_inputs(model, texts, length=shape[0], batch_size=shape[1], kind=suite.inputs, count=TIMED_INPUTS)
        for shape in shapes
    }
    evaluation = _evaluation(suite, model, dataset) if dataset is not None else None
    chosen = effort or EFFORTS[suite.effort]
    budget = Budget(chosen, suite.budget_s or chosen.budget_s)
    return Bench(suite, model, chosen, inputs, evaluation, listener, budget)


def _dataset(accuracy: Accuracy, model: ModelInfo, reporter: StepReporter) -> EvaluationSet:
    columns = (accuracy.text_column, accuracy.label_column)
    return load_dataset(accuracy.dataset, model.labels, reporter, columns=columns, most=accuracy.max_texts)


def _calibration_sources(suite: Suite) -> list[str]:
    """Where the suite's methods that calibrate take their texts from, their defaults included."""
    sources = set()
    for choice in suite.methods:
        options = find_method(choice.method_id("cpu")).Options
        defaults = {field.name: field.default for field in fields(options)}
        if "calibration" in defaults:
            sources.add(str(choice.options.get("calibration", defaults["calibration"])))
    return sorted(sources)


def _evaluation(suite: Suite, model: ModelInfo, dataset: EvaluationSet) -> Evaluation:
    """The user's labels were checked against the model's. The demo's mean something only to a model that tells two
    things apart: others are judged on its texts by agreement alone."""
    shortest = min(suite.lengths)
    encoded = encode_sentences(model, dataset.texts, shortest)
    sample = fixed_sample(len(dataset.texts), SAMPLE_TEXTS)
    few = {name: array[sample] for name, array in encoded.items()}
    padded = {length: pad_further(model, few, length) for length in suite.lengths if length > shortest}
    labelled = dataset.name != DEMO_DATASET or len(model.labels) == len(DEMO_LABELS)
    labels = np.asarray(dataset.labels) if labelled else None
    limit = suite.accuracy.max_drop_points if suite.accuracy else None
    return Evaluation(encoded, dataset.sha256, labels, limit, dataset.texts, sample, padded)
