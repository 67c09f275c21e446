"""A query's answer as text, CSV, JSON, Markdown or Parquet."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tabulate import tabulate

WIDEST = 60
"""Columns after which a terminal's cell goes on in the next line; lists and structures are cut there, and whole in
every other format."""


def to_table(answer: pa.Table) -> str:
    """For a terminal; `no rows` where there are none."""
    if not answer.num_rows:
        return "no rows"
    nested = {field.name for field in answer.schema if pa.types.is_nested(field.type)}
    frame = _frame(answer)
    cells = [
        [_cut(_text(value)) if name in nested else _text(value) for name, value in zip(frame.columns, row, strict=True)]
        for row in frame.itertuples(index=False, name=None)
    ]
    return tabulate(
        cells,
        [str(name) for name in frame.columns],
        tablefmt="simple",
        disable_numparse=True,
        colalign=["right" if _is_number(field.type) else "left" for field in answer.schema],
        maxcolwidths=WIDEST,
    )


def to_csv(answer: pa.Table) -> str:
    """Comma-separated with a head; what is not known is empty, and a list is JSON."""
    return str(_frame(answer).to_csv(index=False, lineterminator="\n"))


def to_json(answer: pa.Table) -> str:
    """A list of objects, one a row; times as ISO 8601, what is not a number as null."""
    return json.dumps([{name: _plain(value) for name, value in row.items()} for row in answer.to_pylist()], indent=1)


def to_markdown(answer: pa.Table) -> str:
    """GitHub's Markdown."""
    frame = _frame(answer)
    cells = [[_text(value).replace("|", "\\|") for value in row] for row in frame.itertuples(index=False, name=None)]
    aligned = ["right" if _is_number(field.type) else "left" for field in answer.schema]
    # GitHub's own alignment marks are those of the format `pipe`.
    return tabulate(cells, list(frame.columns), tablefmt="pipe", disable_numparse=True, colalign=aligned)


def to_parquet(answer: pa.Table) -> bytes:
    """A Parquet file's bytes: types and nulls as they are."""
    sink = pa.BufferOutputStream()
    pq.write_table(answer, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


FORMATS: dict[str, Callable[[pa.Table], str | bytes]] = {
    "table": to_table,
    "csv": to_csv,
    "json": to_json,
    "markdown": to_markdown,
    "parquet": to_parquet,
}


def _frame(answer: pa.Table) -> pd.DataFrame:
    """Whole numbers stay whole where some are missing, and lists are JSON."""
    frame = answer.to_pandas(integer_object_nulls=True)
    for place, field in enumerate(answer.schema):
        if pa.types.is_nested(field.type):
            values = [None if value is None else json.dumps(_plain(value)) for value in answer[place].to_pylist()]
            frame.isetitem(place, np.array(values, dtype=object))
    return frame


def _text(value: Any) -> str:
    """Six digits of what is not whole; nothing for what is missing."""
    if value is None or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _cut(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
