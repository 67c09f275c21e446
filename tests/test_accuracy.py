"""Predictions come in the order of the texts, whatever the batch size; data sets are checked when loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from farm.errors import RequestError
from tasks.accuracy import load_dataset, predict
from tasks.method import Arrays


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10])
def test_logits_come_in_order_for_every_batch_size(batch_size: int) -> None:
    seen = []
    reused = np.zeros((batch_size, 2), dtype=np.float32)

    def call(inputs: Arrays) -> Arrays:
        seen.append(inputs["input_ids"].shape)
        reused[:] = inputs["input_ids"][:, :1] + np.array([0, 100])
        return {"logits": reused}

    ids = np.arange(10).reshape(10, 1) * np.ones((1, 5), dtype=np.int64)
    encoded = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    logits = predict(call, encoded, batch_size=batch_size)
    assert logits.tolist() == [[row, row + 100] for row in range(10)]
    assert set(seen) == {(batch_size, 5)}


@pytest.mark.parametrize("padded_side", ["left", "right"])
def test_trimming_gives_every_text_its_own_tokens_and_keeps_the_order(padded_side: str) -> None:
    columns = []

    def call(inputs: Arrays) -> Arrays:
        columns.append(inputs["input_ids"].shape[1])
        return {"logits": (inputs["input_ids"] * inputs["attention_mask"]).sum(axis=1, keepdims=True)}

    lengths = [7, 2, 5, 3, 7, 1]
    mask = np.array([[1] * length + [0] * (8 - length) for length in lengths], dtype=np.int64)
    ids = mask * np.arange(1, 7).reshape(6, 1) + (1 - mask) * 99
    if padded_side == "left":
        mask, ids = mask[:, ::-1], ids[:, ::-1]
    logits = predict(call, {"input_ids": ids, "attention_mask": mask}, batch_size=2, trim=True)
    assert logits[:, 0].tolist() == [number * length for number, length in enumerate(lengths, start=1)]
    assert columns == [2, 5, 7]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_of_texts_and_labels_is_loaded(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"reviews.{ending}"
    frame = pd.DataFrame({"text": ["fine", "awful"], "label": ["positive", "negative"]})
    frame.to_csv(path) if ending == "csv" else frame.to_parquet(path)
    loaded = load_dataset(str(path), ("negative", "positive"))
    assert (loaded.texts, loaded.labels) == (("fine", "awful"), (1, 0))


def test_the_hash_follows_texts_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\nfine,1\nawful,0\n")
    before = load_dataset(str(path)).sha256
    path.write_text("text,label\nfine,1\nawful,1\n")
    assert load_dataset(str(path)).sha256 != before


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("text,mark\nfine,1\n", "no column label"),
        ("text,label\nfine,7\n", "unknown label '7'"),
        ("text,label\nfine,great\n", "unknown label 'great'"),
        ("text,label\n", "no rows"),
        ("", "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text(content)
    with pytest.raises(RequestError, match=complaint):
        load_dataset(str(path), ("negative", "positive"))


@pytest.mark.parametrize("name", ["imdb", "nowhere.csv"])
def test_an_unknown_data_set_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="name 'demo'"):
        load_dataset(name)


@pytest.mark.parametrize("label", ["0.5", "inf", "1e400"])
def test_a_label_that_is_no_whole_number_is_refused(tmp_path: Path, label: str) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text(f"text,label\nfine,{label}\n")
    with pytest.raises(RequestError, match="unknown label"):
        load_dataset(str(path), ("negative", "positive"))


def test_labels_stored_as_decimals_are_read_as_the_numbers_they_are(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\nfine,1\nunlabelled,\nawful,0\n")
    assert load_dataset(str(path), ("negative", "positive")).labels == (1, 0)


def test_a_missing_column_is_named_beside_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text("review,stars\nfine,1\n")
    with pytest.raises(RequestError, match="no column text and no column label, but review, stars; name them with"):
        load_dataset(str(path))
