"""A query's answer as text, CSV, JSON, Markdown or Parquet."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from itertools import count
from typing import Any

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
    nested = [pa.types.is_nested(field.type) for field in answer.schema]
    cells = [
        [_cut(_text(value)) if cut else _text(value) for value, cut in zip(row, nested, strict=True)]
        for row in _rows(answer)
    ]
    return tabulate(
        cells,
        list(answer.column_names),
        tablefmt="simple",
        disable_numparse=True,
        colalign=_alignment(answer),
        maxcolwidths=WIDEST,
    )


def to_csv(answer: pa.Table) -> str:
    """Comma-separated with a head; what is not known is empty, and a list is JSON."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(answer.column_names)
    writer.writerows([_text(value, digits=None) for value in row] for row in _rows(answer))
    return written.getvalue()


def to_json(answer: pa.Table) -> str:
    """A list of objects, one a row; times as ISO 8601, what is not a number as null, equal names numbered."""
    names = _unique(answer.column_names)
    return json.dumps([dict(zip(names, map(_plain, row), strict=True)) for row in _rows(answer)], indent=1)


def to_markdown(answer: pa.Table) -> str:
    """GitHub's Markdown."""
    cells = [[_markdown(_text(value)) for value in row] for row in _rows(answer)]
    heads = [_markdown(name) for name in answer.column_names]
    # GitHub's own alignment marks are those of the format `pipe`.
    return tabulate(cells, heads, tablefmt="pipe", disable_numparse=True, colalign=_alignment(answer))


def to_parquet(answer: pa.Table) -> bytes:
    """A Parquet file's bytes: types and nulls as they are; what Parquet cannot hold as text, equal names numbered."""
    columns = [_storable(column) for column in answer.columns]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, names=_unique(answer.column_names)), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


FORMATS: dict[str, Callable[[pa.Table], str | bytes]] = {
    "table": to_table,
    "csv": to_csv,
    "json": to_json,
    "markdown": to_markdown,
    "parquet": to_parquet,
}


def _rows(answer: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*map(_values, answer.columns), strict=True)


def _values(column: pa.ChunkedArray[Any]) -> list[Any]:
    """A column's values; times beyond what Python can tell, such as DuckDB's infinity, as text."""
    try:
        return list(column.to_pylist())
    except (OverflowError, ValueError):
        whole = pa.int32() if pa.types.is_date32(column.type) else pa.int64()
        numbers = pa.chunked_array([chunk.view(whole) for chunk in column.chunks])
        most = 2 ** (whole.bit_width - 1) - 1
        return [_time(value, column.type, most) for value in numbers.to_pylist()]


def _time(value: int | None, kind: pa.DataType, most: int) -> Any:
    if value is None:
        return None
    if abs(value) >= most:
        return "infinity" if value > 0 else "-infinity"
    whole = pa.int32() if pa.types.is_date32(kind) else pa.int64()
    try:
        return pa.array([value], whole).view(kind)[0].as_py()
    except (OverflowError, ValueError):
        return f"{value} {getattr(kind, 'unit', 'days')} since 1970"


def _storable(column: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any] | pa.Array[Any]:
    if pa.types.is_union(column.type) or pa.types.is_interval(column.type):
        return pa.array([None if value is None else _text(value) for value in _values(column)], pa.string())
    return column


def _unique(names: Sequence[str]) -> list[str]:
    """The names with `_1`, `_2` behind those that were there before, as DuckDB does."""
    found: dict[str, None] = {}
    for name in names:
        tried = (f"{name}_{number}" if number else name for number in count())
        found[next(each for each in tried if each not in found)] = None
    return list(found)


def _alignment(answer: pa.Table) -> list[str]:
    return ["right" if _is_number(field.type) else "left" for field in answer.schema]


def _markdown(text: str) -> str:
    """A text that stays within its cell."""
    return "<br>".join(text.replace("|", "\\|").splitlines())


def _text(value: Any, digits: int | None = 6) -> str:
    """So many digits (None: all) of what is not whole; nothing for what is missing; JSON for what is nested."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return repr(value) if digits is None else f"{value:.{digits}g}"
    if isinstance(value, pa.MonthDayNano):
        return str(_plain(value))
    return json.dumps(_plain(value)) if isinstance(value, dict | list | tuple) else str(value)


def _cut(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    if isinstance(value, pa.MonthDayNano):
        return f"P{value.months}M{value.days}DT{value.nanoseconds / 1e9:g}S"  # ISO 8601
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, str | int | float | bool | Decimal):
        return _number(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _number(value: Any) -> Any:
    """Numbers as JSON writes them; all else as it is."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
