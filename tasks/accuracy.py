"""What a model answers on labelled texts. Judging the answers is not done here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from farm.errors import RequestError
from tasks.hub_datasets import fetch_parquet, is_hub_name
from tasks.method import Arrays
from tasks.progress import Progress, SilentProgress

if TYPE_CHECKING:
    import pandas as pd

DEMO_DATASET = "demo"

SAMPLE_SEED = 0
"""Of the sample that is taken where fewer texts are asked for than there are: the same in every run."""


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Labelled texts; `labels` holds the index of each text's right label. `sha256` is that of texts and labels."""

    name: str
    sha256: str
    texts: tuple[str, ...]
    labels: tuple[int, ...]


def load_dataset(
    name: str,
    label_names: Sequence[str] = (),
    progress: Progress | None = None,
    *,
    columns: tuple[str, str] = ("text", "label"),
    most: int | None = None,
) -> EvaluationSet:
    """Load "demo" (the 678 held-out review sentences), a CSV or Parquet file, or a data set on the hub.

    `columns` are those of the texts and of the labels. A label is an index, or one of `label_names` (the model's;
    with a single one it is 0 or 1, no or yes). At most `most` texts are taken, a fixed random sample in their order.
    Raises RequestError where there is no such data set, a column is missing or a label is unknown.
    """
    progress = progress or SilentProgress()
    if name == DEMO_DATASET:
        from tasks.reviews import load_sentences, split_by_review

        held_out = split_by_review(load_sentences(progress)).held_out
        return _evaluation_set(name, [each.text for each in held_out], [each.label for each in held_out], most)
    paths = _paths(name, columns, progress)
    frame = _read_frame(name, paths, columns)
    stored = _class_names(paths[0], columns[1])
    labels = [_label_index(name, _in_words(label, stored, label_names), label_names) for label in frame[columns[1]]]
    return _evaluation_set(name, [str(text) for text in frame[columns[0]]], labels, most)


def read_texts(name: str) -> tuple[str, ...]:
    """The texts of a file or a hub data set with a column `text`; labels are not looked at. Raises RequestError."""
    paths = _paths(name, ("text",), SilentProgress())
    return tuple(str(text) for text in _read_frame(name, paths, ("text",))["text"])


def predict(
    call: Callable[[Arrays], Arrays], encoded: Arrays, batch_size: int = 1, trim: bool = False
) -> npt.NDArray[np.float32]:
    """Logits [n, labels] of `call` on the n rows of `encoded`, `batch_size` rows at a time, in the rows' order.

    `call` takes and returns a mapping of names to arrays; its result has a `logits` array [batch_size, labels]. A last
    batch that is not full is filled by repeating its last row: a method may take only the shape it was prepared for.
    `trim` batches rows of like length and cuts columns that are padding in the whole batch, for methods that take any
    shape: it changes no FP32 result and saves most of the arithmetic on short texts.
    """
    mask = encoded["attention_mask"]
    rows = len(mask)
    order = np.argsort(mask.sum(axis=1), kind="stable") if trim else np.arange(rows)
    parts = []
    for start in range(0, rows, batch_size):
        index = order[np.minimum(np.arange(start, start + batch_size), rows - 1)]
        used = _used_columns(mask[index]) if trim else slice(None)
        logits = call({name: np.ascontiguousarray(array[index][:, used]) for name, array in encoded.items()})["logits"]
        # A copy: a runtime may reuse the memory of its outputs in the next call.
        parts.append(np.array(logits, dtype=np.float32)[: rows - start])
    return np.concatenate(parts)[np.argsort(order, kind="stable")]


def fixed_sample(texts: int, most: int) -> npt.NDArray[np.int64]:
    """The places of at most `most` of so many texts, in their order: random, and the same in every run."""
    return np.sort(np.random.default_rng(SAMPLE_SEED).permutation(texts)[:most])


def _used_columns(mask: npt.NDArray[Any]) -> slice:
    """The span of columns in which any row has a token; padding may stand on either side."""
    (used,) = np.nonzero(mask.any(axis=0))
    return slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(None)


def _paths(name: str, columns: tuple[str, ...], progress: Progress) -> list[Path]:
    """The files that hold a data set: the user's own, or those that the hub gave."""
    if is_hub_name(name):
        return fetch_parquet(name, progress)
    path = Path(name).expanduser()
    if path.suffix.lower() not in (".csv", ".parquet") or not path.is_file():
        raise RequestError(
            f"dataset {name}: not known; name 'demo', an existing .csv or .parquet file with "
            f"{' and '.join(columns)} as columns, or hub:OWNER/NAME"
        )
    return [path]


def _read_frame(name: str, paths: Sequence[Path], columns: tuple[str, ...]) -> pd.DataFrame:
    import pandas as pd

    try:
        parts = [pd.read_csv(path) if path.suffix.lower() == ".csv" else pd.read_parquet(path) for path in paths]
    except (OSError, ValueError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise RequestError(f"dataset {name}: cannot be read: {first_line}") from error
    frame = pd.concat(parts, ignore_index=True)
    if missing := [column for column in columns if column not in frame.columns]:
        raise RequestError(
            f"dataset {name}: has no column {' and no column '.join(missing)}, but {', '.join(map(str, frame.columns))}"
            "; name them with accuracy.text_column and accuracy.label_column"
        )
    frame = frame.dropna(subset=list(columns))
    if frame.empty:
        raise RequestError(f"dataset {name}: has no rows with a {' and a '.join(columns)}")
    return frame


def _class_names(path: Path, column: str) -> list[str]:
    """What the integers of a Parquet column stand for, where the `datasets` library wrote that down; else nothing."""
    if path.suffix.lower() != ".parquet":
        return []
    import pyarrow.parquet as pq

    stored = json.loads((pq.read_schema(path).metadata or {}).get(b"huggingface", b"{}"))
    feature = stored.get("info", {}).get("features", {}).get(column, {})
    return [str(each) for each in feature.get("names") or ()] if isinstance(feature, dict) else []


def _in_words(label: Any, stored: Sequence[str], label_names: Sequence[str]) -> Any:
    """The model's name for a label, where data and model name the same classes: their orders may differ."""
    spelled = {name.casefold(): name for name in label_names}
    if not stored or {name.casefold() for name in stored} != set(spelled) or label not in range(len(stored)):
        return label
    return spelled[stored[int(label)].casefold()]


def _label_index(name: str, label: Any, label_names: Sequence[str]) -> int:
    if len(label_names) > 1 and str(label) in label_names:
        return list(label_names).index(str(label))
    try:
        number = float(label)
    except (TypeError, ValueError):
        number = -1.0
    index = int(number) if number.is_integer() else -1
    # A single logit is a yes or a no.
    if index < 0 or (label_names and index >= max(2, len(label_names))):
        known = ", ".join(label_names) if len(label_names) > 1 else "0, 1" if label_names else "0, 1, 2, ..."
        raise RequestError(f"accuracy dataset {name}: unknown label '{label}'; the model's labels are {known}")
    return index


def _evaluation_set(name: str, texts: Sequence[str], labels: Sequence[int], most: int | None) -> EvaluationSet:
    if most is not None and len(texts) > most:
        kept = fixed_sample(len(texts), most)
        texts, labels = [texts[at] for at in kept], [labels[at] for at in kept]
    content = json.dumps([list(texts), list(labels)])
    return EvaluationSet(name, hashlib.sha256(content.encode()).hexdigest(), tuple(texts), tuple(labels))
