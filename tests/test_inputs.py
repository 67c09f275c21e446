"""Inputs are real text, of exactly the asked shape, padded as the model was trained to see it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_models import save_model

from farm.errors import RequestError
from farm.records import ModelInfo
from tasks import calibration
from tasks.inputs import build_inputs, encode_sentences, encode_singly, pad_further, short_to_long
from tasks.models import resolve_model
from tasks.progress import SilentProgress

TEXTS = ["the camera is good", "the battery is very bad . not good", "picture , sound"]
CLS, SEP, PAD, GOOD = 2, 3, 0, 5

pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture
def model(tmp_path: Path) -> ModelInfo:
    """A small model of 32 positions."""
    return resolve_model(str(save_model(tmp_path / "model")), SilentProgress())


@pytest.mark.parametrize("length", [3, 8, 32])
def test_full_inputs_have_no_padding(model: ModelInfo, length: int) -> None:
    inputs = build_inputs(model, TEXTS, length, 2, kind="full", count=3)
    assert len(inputs) == 3
    for arrays in inputs:
        assert set(arrays) == {"input_ids", "attention_mask"}
        assert all(array.shape == (2, length) and array.dtype == np.int64 for array in arrays.values())
        assert (arrays["attention_mask"] == 1).all()
        assert (arrays["input_ids"][:, 0] == CLS).all()
        assert (arrays["input_ids"][:, -1] == SEP).all()
        assert PAD not in arrays["input_ids"]


def test_full_inputs_differ_from_one_another(model: ModelInfo) -> None:
    inputs = build_inputs(model, TEXTS, 16, 1, kind="full", count=3)
    assert len({arrays["input_ids"].tobytes() for arrays in inputs}) == 3


def test_padded_inputs_hold_one_text_and_mark_the_rest(model: ModelInfo) -> None:
    (arrays,) = build_inputs(model, TEXTS, 16, 1, kind="padded", count=1)
    assert arrays["attention_mask"].sum() == 2 + len(TEXTS[0].split())
    assert (arrays["input_ids"][arrays["attention_mask"] == 0] == PAD).all()


def test_texts_from_short_to_long_stand_for_all(model: ModelInfo) -> None:
    texts = [" ".join(["good"] * words) for words in (9, 1, 30, 3, 2, 8, 40, 4)]
    assert [len(text.split()) for text in short_to_long(model, texts, 4)] == [2, 4, 9, 40]
    assert short_to_long(model, ["only one"], 2) == ["only one", "only one"]


def test_a_text_longer_than_the_length_is_cut_and_still_ends_properly(model: ModelInfo) -> None:
    (arrays,) = build_inputs(model, ["good " * 40], 8, 1, kind="padded", count=1)
    assert arrays["input_ids"].tolist() == [[CLS] + [GOOD] * 6 + [SEP]]


def test_sentences_become_one_row_each(model: ModelInfo) -> None:
    arrays = encode_sentences(model, TEXTS, 12)
    assert arrays["input_ids"].shape == arrays["attention_mask"].shape == (3, 12)
    assert arrays["attention_mask"].sum(axis=1).tolist() == [6, 10, 5]


def test_a_bert_gets_token_types(tmp_path: Path) -> None:
    bert = resolve_model(str(save_model(tmp_path / "bert", model_type="bert")), SilentProgress())
    assert (encode_sentences(bert, TEXTS, 12)["token_type_ids"] == 0).all()


def test_the_padding_token_is_the_tokenizers_own(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": {"content": "[MASK]"}}))
    model = resolve_model(str(folder), SilentProgress())
    assert encode_sentences(model, ["good"], 5)["input_ids"].tolist() == [[CLS, GOOD, SEP, 4, 4]]


def test_without_a_padding_token_the_request_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", pad_token_id=None)
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(RequestError, match="pad_token"):
        encode_sentences(resolve_model(str(folder), SilentProgress()), ["good"], 5)


@pytest.mark.parametrize("length", [2, 33])
def test_a_length_the_model_cannot_take_is_refused(model: ModelInfo, length: int) -> None:
    with pytest.raises(RequestError, match="from 3 to 32"):
        build_inputs(model, TEXTS, length, 1, kind="full", count=1)


def test_a_broken_tokenizer_is_refused(model: ModelInfo) -> None:
    (Path(model.folder) / "tokenizer.json").write_text("{}")
    with pytest.raises(RequestError, match=r"tokenizer\.json cannot be read"):
        encode_sentences(model, TEXTS, 12)


def test_padding_further_gives_what_padding_to_the_longer_length_at_once_would(model: ModelInfo) -> None:
    longer, at_once = pad_further(model, encode_sentences(model, TEXTS, 12), 20), encode_sentences(model, TEXTS, 20)
    assert all((longer[name] == at_once[name]).all() for name in at_once)
    assert set(longer) == set(at_once)


@pytest.mark.parametrize(("samples", "taken"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (5, [0, 1, 2])])
def test_calibration_takes_texts_from_all_over_the_source_as_long_as_they_are(
    samples: int, taken: list[int], model: ModelInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "calibration_texts", lambda _source: tuple(TEXTS))
    inputs = calibration.calibration_inputs(model, calibration.CalibrationOptions(samples=samples))
    assert [arrays["input_ids"].shape for arrays in inputs] == [(1, [6, 10, 5][index]) for index in taken]
    assert all((arrays["attention_mask"] == 1).all() for arrays in inputs)


def test_a_text_too_long_for_the_model_is_cut(model: ModelInfo) -> None:
    (arrays,) = encode_singly(model, ["good " * 100])
    assert arrays["input_ids"].shape == (1, 32)
    assert arrays["input_ids"][0, -1] == SEP
