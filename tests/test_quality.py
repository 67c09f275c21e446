"""A method that answers something else is found out, and only such a method is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from farm.proportions import mcnemar, paired_difference_interval, wilson_interval
from farm.quality import (
    LEAST_AGREEMENT,
    PARITY_LIMIT,
    accuracy_columns,
    agreement_fault,
    judge,
    largest_difference,
    likeness_fault,
    parity_fault,
    predictions,
)

BASELINE = np.array([[0.0, 1.0], [2.0, -1.0], [0.5, 0.25]])


def test_exact_methods_may_differ_by_rounding() -> None:
    assert parity_fault(BASELINE, BASELINE + 0.9 * PARITY_LIMIT, exact=True) is None


def test_exact_methods_may_not_differ_by_more() -> None:
    other = BASELINE.copy()
    other[1, 1] += 2 * PARITY_LIMIT
    assert parity_fault(BASELINE, other, exact=True) == "logits differ from the baseline's by 0.002, more than 0.001"


def test_reduced_precision_may_move_logits() -> None:
    assert parity_fault(BASELINE, BASELINE + 0.4, exact=False) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("exact", [True, False])
def test_logits_that_are_not_finite_are_a_fault_of_any_method(value: float, exact: bool) -> None:
    other = BASELINE.copy()
    other[0, 0] = value
    assert parity_fault(BASELINE, other, exact) == "logits are not finite"
    assert largest_difference(BASELINE, other) == float("inf")
    assert judge(BASELINE, other, None, exact, None).fault == "logits are not finite"


@pytest.mark.parametrize("exact", [True, False])
def test_another_shape_is_a_fault_of_any_method(exact: bool) -> None:
    fault = "logits have shape [3, 1], the baseline's [3, 2]"
    assert parity_fault(BASELINE, BASELINE[:, :1], exact) == fault
    assert judge(BASELINE, BASELINE[:, :1], None, exact, None).fault == fault


def test_the_largest_difference_is_that_of_the_worst_logit() -> None:
    other = BASELINE.copy()
    other[2, 0] -= 0.75
    other[0, 1] += 0.25
    assert largest_difference(BASELINE, other) == 0.75


def test_two_logits_predict_the_larger_and_one_its_sign() -> None:
    assert predictions(BASELINE).tolist() == [1, 0, 0]
    assert predictions(np.array([[0.5], [-0.5], [0.0]])).tolist() == [1, 0, 0]


def _disagreeing(texts: int, wrong: list[int]) -> tuple[np.ndarray, np.ndarray]:
    baseline = np.tile([0.0, 1.0], (texts, 1))
    other = baseline.copy()
    other[wrong] = [1.0, 0.0]
    return baseline, other


def test_reduced_precision_must_agree_on_the_texts() -> None:
    few = judge(*_disagreeing(256, list(range(13))), labels=None, exact=False, max_drop_points=None)
    many = judge(*_disagreeing(256, list(range(14))), labels=None, exact=False, max_drop_points=None)
    assert few.fault is None
    assert many.fault == "predicts what the baseline predicts on 242 of 256 texts, clearly below 97%"


def test_a_method_that_agrees_on_97_percent_is_refused_in_at_most_one_sample_of_forty() -> None:
    agreeing = np.random.default_rng(0).binomial(256, LEAST_AGREEMENT, size=2_000)
    refused = np.mean([agreement_fault(int(count), 256) is not None for count in agreeing])
    assert 0 < refused <= 0.025


@pytest.mark.parametrize("wrong", [range(40), range(260, 300), range(0, 300, 7)])
def test_disagreement_counts_wherever_in_the_file_it_stands(wrong: range) -> None:
    judged = judge(*_disagreeing(300, list(wrong)), labels=None, exact=False, max_drop_points=None)
    assert judged.fault is not None
    assert (judged.agreement, judged.agreement_n) == (1 - len(wrong) / 300, 300)


def test_an_exact_method_must_give_the_baselines_logits_for_every_text() -> None:
    """A wrong mask shows in padded texts alone, and may leave every prediction as it was."""
    baseline, other = _disagreeing(678, [])
    other[677] += 0.01
    judged = judge(baseline, other, labels=None, exact=True, max_drop_points=None)
    assert judged.agreement == 1.0
    assert judged.fault == "logits differ from the baseline's by 0.01, more than 0.001"
    assert judge(baseline, other, labels=None, exact=False, max_drop_points=None).fault is None


def test_an_exact_methods_artifact_for_another_length_must_give_the_same_logits() -> None:
    assert likeness_fault(BASELINE, BASELINE + 0.9 * PARITY_LIMIT, length=64) is None
    assert likeness_fault(BASELINE, BASELINE + 0.5, length=64) == (
        "on the same texts, padded: logits differ from those of its artifact for length 64 by 0.5, more than 0.001"
    )


def test_without_labels_there_is_no_accuracy_and_no_gate() -> None:
    judged = judge(BASELINE, BASELINE, labels=None, exact=True, max_drop_points=0.5)
    assert (judged.accuracy, judged.accuracy_n, judged.gate) == (None, None, None)


@pytest.mark.parametrize(("limit", "gate"), [(0.9, "fail"), (1.0, "pass"), (None, None)])
def test_the_gate_holds_a_drop_in_accuracy_to_its_limit(limit: float | None, gate: str | None) -> None:
    baseline, other = _disagreeing(100, [3])
    judged = judge(baseline, other, labels=np.ones(100, int), exact=False, max_drop_points=limit)
    assert (judged.accuracy, judged.accuracy_n) == (0.99, 100)
    assert judged.gate == gate
    assert judged.fault is None


def test_a_method_that_is_righter_than_the_baseline_passes() -> None:
    other, baseline = _disagreeing(100, [3, 4])
    judged = judge(baseline, other, labels=np.ones(100, int), exact=False, max_drop_points=0.0)
    assert (judged.accuracy, judged.gate) == (1.0, "pass")


def test_texts_that_only_one_of_the_two_predicts_right_are_counted() -> None:
    baseline, other = _disagreeing(100, [3, 4, 5, 6])
    labels = np.ones(100, int)
    labels[6] = 0
    judged = judge(baseline, other, labels, exact=False, max_drop_points=2.0)
    assert (judged.baseline_right_only, judged.method_right_only) == (3, 1)
    assert (judged.accuracy, judged.gate, judged.max_drop_points) == (0.97, "pass", 2.0)


@pytest.mark.parametrize("texts", [7, 49, 201, 678, 1_000])
def test_a_drop_of_just_the_limit_passes_whatever_the_number_of_texts(texts: int) -> None:
    for lost in range(1, 6):
        limit = 100 * lost / texts
        labels = np.ones(texts, int)
        held = judge(*_disagreeing(texts, list(range(lost))), labels=labels, exact=False, max_drop_points=limit)
        over = judge(*_disagreeing(texts, list(range(lost + 1))), labels=labels, exact=False, max_drop_points=limit)
        assert (held.gate, over.gate) == ("pass", "fail")


def test_one_logit_is_judged_as_a_yes_or_a_no() -> None:
    baseline = np.array([[2.0], [-1.0], [0.5], [-0.5]])
    other = np.array([[1.9], [-1.1], [-0.1], [-0.5]])
    judged = judge(baseline, other, labels=np.array([1, 0, 1, 1]), exact=True, max_drop_points=None)
    assert (judged.agreement, judged.accuracy) == (0.75, 0.5)
    assert (judged.baseline_right_only, judged.method_right_only) == (1, 0)


def test_of_many_labels_the_likeliest_is_the_prediction() -> None:
    labels = np.arange(12) % 4
    baseline = np.eye(4)[labels]
    other = baseline.copy()
    other[[0, 5]] = np.eye(4)[[2, 3]]  # wrong where the baseline is right
    baseline[7] = np.eye(4)[0]  # wrong where the method is right
    baseline[8], other[8] = np.eye(4)[1], np.eye(4)[2]  # both wrong, and not alike
    judged = judge(baseline, other, labels, exact=True, max_drop_points=None)
    assert (judged.baseline_right_only, judged.method_right_only) == (2, 1)
    assert judged.agreement == pytest.approx(8 / 12)
    assert judged.accuracy == pytest.approx(9 / 12)


def _measured(role: str, **changes: Any) -> dict[str, Any]:
    row = {"role": role, "accuracy": 0.875, "accuracy_n": 200, "baseline_right_only": 6, "method_right_only": 1}
    return row | changes


def test_a_drop_has_the_interval_and_the_p_value_of_its_own_counts() -> None:
    baseline = _measured("baseline", accuracy=0.9, baseline_right_only=0, method_right_only=0)
    found = accuracy_columns(_measured("candidate"), baseline)
    ends = (found["accuracy_drop_low_points"], found["accuracy_drop_high_points"])
    assert found["accuracy_drop_points"] == 2.5
    assert ends == tuple(100 * end for end in paired_difference_interval(6, 1, 200))
    assert found["mcnemar_p"] == mcnemar(6, 1)
    assert (found["accuracy_low"], found["accuracy_high"]) == wilson_interval(175, 200)


@pytest.mark.parametrize("role", ["baseline", "twin"])
def test_the_baseline_has_no_interval_of_a_drop_from_itself(role: str) -> None:
    found = accuracy_columns(_measured(role, baseline_right_only=0, method_right_only=0), _measured("baseline"))
    assert found["accuracy_drop_points"] == 0
    assert not {"accuracy_drop_low_points", "mcnemar_p"} & set(found)


def test_rows_measured_before_texts_were_counted_keep_their_drop_and_get_an_interval_of_the_accuracy() -> None:
    old = {name: value for name, value in _measured("candidate").items() if not name.endswith("right_only")}
    found = accuracy_columns(old, _measured("baseline", accuracy=0.9))
    assert found["accuracy_drop_points"] == pytest.approx(2.5)
    assert found["accuracy_low"] < 0.875 < found["accuracy_high"]
    assert found.get("accuracy_drop_low_points") is None
