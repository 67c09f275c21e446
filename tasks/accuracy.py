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
from tasks.method import Arrays
from tasks.progress import Progress, SilentProgress

if TYPE_CHECKING:
    import pandas as pd

DEMO_DATASET = "demo"


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Labelled texts; `labels` holds the index of each text's right label. `sha256` is that of texts and labels."""

    name: str
    sha256: str
    texts: tuple[str, ...]
    labels: tuple[int, ...]


def load_dataset(name: str, label_names: Sequence[str] = (), progress: Progress | None = None) -> EvaluationSet:
    """Load "demo" (the 678 held-out review sentences), or a CSV or Parquet file with columns `text` and `label`.

    A label is an index, or one of `label_names` (the model's). Raises RequestError where there is no such file, a
    column is missing or a label is unknown.
    """
    if name == DEMO_DATASET:
        from tasks.reviews import load_sentences, split_by_review

        held_out = split_by_review(load_sentences(progress or SilentProgress())).held_out
        return _evaluation_set(name, [each.text for each in held_out], [each.label for each in held_out])
    frame = _read_frame(name)
    texts = [str(text) for text in frame["text"]]
    return _evaluation_set(name, texts, [_label_index(name, label, label_names) for label in frame["label"]])


def read_texts(name: str) -> tuple[str, ...]:
    """The texts of a CSV or Parquet file with a column `text`; labels are not looked at. Raises RequestError."""
    return tuple(str(text) for text in _read_frame(name, ("text",))["text"])


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


def _used_columns(mask: npt.NDArray[Any]) -> slice:
    """The span of columns in which any row has a token; padding may stand on either side."""
    (used,) = np.nonzero(mask.any(axis=0))
    return slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(None)


def _read_frame(name: str, columns: tuple[str, ...] = ("text", "label")) -> pd.DataFrame:
    import pandas as pd

    path = Path(name).expanduser()
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None or not path.is_file():
        raise RequestError(
            f"dataset {name}: not known; name 'demo', or an existing .csv or .parquet file with "
            f"{' and '.join(columns)} as columns"
        )
    try:
        frame = reader(path)
    except (OSError, ValueError) as error:
        raise RequestError(f"dataset {name}: cannot be read: {error}") from error
    if missing := set(columns) - set(frame.columns):
        raise RequestError(f"dataset {name}: has no column {' and no column '.join(sorted(missing))}")
    frame = frame.dropna(subset=list(columns))
    if frame.empty:
        raise RequestError(f"dataset {name}: has no rows with a {' and a '.join(columns)}")
    return frame


def _label_index(name: str, label: Any, label_names: Sequence[str]) -> int:
    if str(label) in label_names:
        return list(label_names).index(str(label))
    try:
        index = int(label)
    except ValueError:
        index = -1
    if index < 0 or (label_names and index >= len(label_names)):
        known = ", ".join(label_names) or "0, 1, 2, ..."
        raise RequestError(f"accuracy dataset {name}: unknown label '{label}'; the model's labels are {known}")
    return index


def _evaluation_set(name: str, texts: Sequence[str], labels: Sequence[int]) -> EvaluationSet:
    content = json.dumps([list(texts), list(labels)])
    return EvaluationSet(name, hashlib.sha256(content.encode()).hexdigest(), tuple(texts), tuple(labels))
