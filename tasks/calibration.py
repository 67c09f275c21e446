"""Texts that static quantization learns activation ranges from: never those that accuracy is judged on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any

from annotated_types import Gt

from farm.errors import RequestError
from farm.records import ModelInfo
from tasks.accuracy import read_texts
from tasks.inputs import encode_singly
from tasks.method import Arrays
from tasks.progress import SilentProgress

DEMO_TEXTS = "demo"

FOREIGN_TEXTS = "calibrated on the demo's English product reviews: name texts of your own with the option calibration"
"""What to know of a model that is not the demo and was quantized with the demo's texts, which is the default."""


@dataclass(frozen=True)
class CalibrationOptions:
    """Settings of a statically quantized method that a suite may give.

    `calibration`: demo (the reviews the demo model was trained on), or a CSV or Parquet file or hub:OWNER/NAME@SPLIT
    with a column `text`.
    `samples`: how many texts are run to see the ranges of activations.
    """

    calibration: str = DEMO_TEXTS
    samples: Annotated[int, Gt(0)] = 256


def calibration_source(options_class: type, options: Mapping[str, Any]) -> str | None:
    """Where a method with these options takes its calibration texts from; None where it calibrates with none."""
    defaults = {field.name: field.default for field in fields(options_class)}
    return str(options.get("calibration", defaults["calibration"])) if "calibration" in defaults else None


def calibration_texts(source: str) -> tuple[str, ...]:
    """The texts of a calibration source. Raises RequestError where it cannot be read."""
    if source == DEMO_TEXTS:
        from tasks.reviews import load_sentences, split_by_review

        split = split_by_review(load_sentences(SilentProgress()))
        # A few short sentences ("I love it!") stand in reviews on both sides.
        held_out = {sentence.text for sentence in split.held_out}
        return tuple(sentence.text for sentence in split.train if sentence.text not in held_out)
    return read_texts(source)


def calibration_inputs(model: ModelInfo, options: CalibrationOptions) -> list[Arrays]:
    """At most `options.samples` texts of the source, each int64 [1, its own length] by the model's input names.

    Without padding, whose activations no answer depends on, but which would widen the ranges that others share.
    """
    texts = calibration_texts(options.calibration)
    count = min(options.samples, len(texts))
    return encode_singly(model, [texts[index * len(texts) // count] for index in range(count)])


def texts_sha256(source: str) -> str:
    """Digest of a source's texts, for the key of an artifact that was made with them."""
    return _digest(calibration_texts(source))


def check_disjoint(source: str, evaluated: Sequence[str]) -> None:
    """Raise RequestError where calibration would see texts that accuracy is judged on."""
    shared = set(calibration_texts(source)) & set(evaluated)
    if shared:
        raise RequestError(
            f"calibration: {len(shared)} texts of '{source}' are in the accuracy data set too, which would flatter "
            "the method; name other texts with the option calibration, or another accuracy.dataset"
        )


@cache
def _digest(texts: tuple[str, ...]) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()
