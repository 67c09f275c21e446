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


def to_table(answer: pa.Table) -> str:
    """For a terminal; `no rows` where there are none."""
    return str(_frame(answer).to_string(index=False, na_rep="")) if answer.num_rows else "no rows"


def to_csv(answer: pa.Table) -> str:
    """Comma-separated with a head; what is not known is empty, and a list is JSON."""
    return str(_frame(answer).to_csv(index=False, lineterminator="\n"))


def to_json(answer: pa.Table) -> str:
    """A list of objects, one a row; times as ISO 8601, what is not a number as null."""
    return json.dumps([{name: _plain(value) for name, value in row.items()} for row in answer.to_pylist()], indent=1)


def to_markdown(answer: pa.Table) -> str:
    """GitHub's Markdown."""
    frame = _frame(answer).map(lambda value: str(value).replace("|", "\\|") if isinstance(value, str) else value)
    return tabulate(frame.to_dict("list"), headers="keys", tablefmt="github", missingval="")


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
