"""Cutting padding off changes no token that the model sees, on whichever side the padding stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tasks.method import Arrays
from tasks.padding import trimmed, without_padding


def _arrays(*masks: str) -> Arrays:
    mask = np.array([[int(each) for each in mask] for mask in masks])
    return {"input_ids": mask * (1 + np.arange(mask.shape[1])), "attention_mask": mask}


@pytest.mark.parametrize(
    ("masks", "multiple", "kept"),
    [
        (("11100000",), 1, 3),
        (("11100000",), 4, 4),
        (("11111000",), 4, 8),
        (("11100000", "11111100"), 2, 6),
        (("11111111",), 3, 8),
        (("11111110",), 3, 8),
    ],
)
def test_columns_in_use_are_kept_up_to_the_next_bucket(masks: tuple[str, ...], multiple: int, kept: int) -> None:
    cut = without_padding(_arrays(*masks), multiple)
    assert {array.shape for array in cut.values()} == {(len(masks), kept)}


@pytest.mark.parametrize("masks", [("00011111",), ("00000111", "00111111"), ("01110000",)])
def test_no_token_is_lost_on_either_side(masks: tuple[str, ...]) -> None:
    whole = _arrays(*masks)
    for multiple in (1, 2, 3, 5):
        cut = without_padding(whole, multiple)
        assert sorted(cut["input_ids"][cut["input_ids"] > 0]) == sorted(whole["input_ids"][whole["input_ids"] > 0])


def test_nothing_but_padding_is_left_as_it_is() -> None:
    assert without_padding(_arrays("0000"), 2)["input_ids"].shape == (1, 4)


class Seen:
    """Answers with the length it was given."""

    def __call__(self, inputs: Arrays) -> Arrays:
        return {"logits": np.array([[inputs["input_ids"].shape[1]]])}

    def proof(self) -> Mapping[str, Any]:
        return {"inner": True}


def test_a_bucket_wraps_the_call_and_stands_in_the_proof() -> None:
    assert trimmed(Seen(), 4)(_arrays("11100000"))["logits"].item() == 4
    assert trimmed(Seen(), None)(_arrays("11100000"))["logits"].item() == 8
    assert trimmed(Seen(), 4).proof() == {"inner": True, "length_bucket": 4}
