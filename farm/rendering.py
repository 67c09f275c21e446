"""A SpeedupTable as terminal text, Markdown, HTML or CSV."""

from __future__ import annotations

import html
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
from rich.box import Box
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text
from tabulate import tabulate

from farm.numerals import change_text, figure_text, milliseconds_text, ratio_text
from farm.tables import Block, Entry, MethodRow, SpeedupTable

__all__ = [
    "FORMATS",
    "TEXT_WIDTH",
    "milliseconds_text",
    "ratio_text",
    "to_csv",
    "to_html",
    "to_markdown",
    "to_rich",
    "to_text",
]

TEXT_WIDTH = 100
_NAME_WIDTH = 21
_LENGTH_WIDTH = 19

# Plain hyphens: the same table in a terminal, a log and a mail.
_RULED = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
_STYLES = {"faster": "green", "slower": "red", "failed": "bold red", "invalid": "bold red", "unsupported": "yellow"}
_BROKEN = {
    "founding average": "founding\naverage",
    "after Holm": "after\nHolm",
    "size MB": "size\nMB",
    "prepare s": "prepare\ns",
    "load s": "load\ns",
    "first call ms": "first\ncall ms",
    "calls until steady": "calls to\nsteady",
    "peak RSS MB": "peak RSS\nMB",
    "CPU ms per call": "CPU ms\nper call",
    "energy J per call": "energy J\nper call",
    "pays off after calls": "pays off\n(calls)",
}
"""Headings longer than what stands under them, as the terminal prints them: the width is the verdict's."""

_LEFT = ("method", "geometric mean", "after Holm", "verdict")
"""What is text; everything else is numbers, which stand to the right."""


@dataclass(frozen=True, slots=True)
class _Cost:
    """One column of the costs: a figure in units of `unit`, the most over the lengths or (`spread`) least to most."""

    figure: str
    unit: float = 1.0
    spread: bool = False
    whole: bool = False


_COSTS = {
    "size MB": _Cost("artifact_bytes", 1e6, whole=True),
    "prepare s": _Cost("prepare_s"),
    "load s": _Cost("load_s"),
    "first call ms": _Cost("first_call_ns", 1e6, spread=True),
    "calls until steady": _Cost("warmup_calls", spread=True, whole=True),
    "peak RSS MB": _Cost("peak_rss_bytes", 1e6, whole=True),
    "CPU ms per call": _Cost("cpu_ns_per_call", 1e6, spread=True),
    "energy J per call": _Cost("energy_j_per_call", spread=True),
    "GPU ms per call": _Cost("device_p50_ns", 1e6, spread=True),
    "GPU MB": _Cost("vram_bytes", 1e6, whole=True),
    "GPU mJ per call": _Cost("gpu_energy_j_per_call", 1e-3, spread=True),
    "GPU W": _Cost("gpu_power_w", spread=True, whole=True),
    "pays off after calls": _Cost("break_even_calls", spread=True, whole=True),
}


def to_rich(table: SpeedupTable, width: int = TEXT_WIDTH) -> Group:
    """For `console.print`: coloured where the console is. Lengths that do not fit `width` go on below."""
    parts: list[RenderableType] = [Text(table.title, style="bold")]
    for block in table.blocks:
        parts += ["", *([Text(block.title, style="bold")] if block.title else []), Text(_reading(block))]
        per_table = max(1, (width - _name_width(block)) // _LENGTH_WIDTH)
        for start in range(0, len(block.lengths), per_table):
            parts += ["", _lengths_table(block, range(start, min(start + per_table, len(block.lengths))))]
        parts += ["", _methods_table(block, _summary(block)), ""]
        if costs := _costs(block):
            parts += [_methods_table(block, {"method": [row.name for row in block.rows], **costs}), ""]
        parts += map(Text, _lines(block))
    return Group(*parts, "", *map(Text, table.footer))


def to_text(table: SpeedupTable, width: int = TEXT_WIDTH) -> str:
    """Plain text without colours, at most `width` columns."""
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    with console.capture() as captured:
        console.print(to_rich(table, width))
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def to_markdown(table: SpeedupTable) -> str:
    """GitHub's Markdown: one table per block, the two lines of an entry in one cell."""
    parts = [f"**{table.title}**"]
    for block in table.blocks:
        cells = [[cell.replace("|", "\\|") for cell in row] for row in _grid(block, "<br>")]
        parts.append(_heading(block))
        parts.append(tabulate(cells[1:], cells[0], tablefmt="github", disable_numparse=True))
        parts.append("\n".join(f"- {line}" for line in _lines(block)))
    parts.append("\n".join(f"- {line}" for line in table.footer))
    return "\n\n".join(parts) + "\n"


def to_html(table: SpeedupTable) -> str:
    """For a notebook or a page: no styles or scripts of its own."""
    parts = [f"<p><b>{html.escape(table.title)}</b></p>"]
    for block in table.blocks:
        grid = [[html.escape(cell).replace("\n", "<br>") for cell in row] for row in _grid(block, "\n")]
        frame = pd.DataFrame(grid[1:], columns=pd.Index(grid[0]))
        parts.append(f"<p>{html.escape(_heading(block))}</p>")
        parts.append(frame.to_html(index=False, escape=False, border=0))
        parts.append(f"<p>{'<br>'.join(map(html.escape, _lines(block)))}</p>")
    parts.append(f"<p>{'<br>'.join(map(html.escape, table.footer))}</p>")
    return "\n".join(parts)


def to_csv(speedups: pa.Table) -> str:
    """One line per cell, all columns of SPEEDUP_SCHEMA but the rounds' log ratios.

    Lists of words are joined by `; `; `states` is JSON. What is not known is empty.
    """
    kept = [name for name in speedups.column_names if name != "log_ratios"]
    frame = speedups.select(kept).to_pandas(integer_object_nulls=True)
    for name in kept:
        if pa.types.is_list(speedups.schema.field(name).type):
            frame[name] = [_list_text(values) for values in speedups[name].to_pylist()]
    return str(frame.to_csv(index=False, lineterminator="\n"))


def _list_text(values: Sequence[Any] | None) -> str:
    if not values:
        return ""
    return "; ".join(values) if isinstance(values[0], str) else json.dumps(values)


def _reading(block: Block) -> str:
    return f"Median latency, and speedup over {block.baseline} [95 % interval]"


def _heading(block: Block) -> str:
    return ". ".join(part for part in (block.title, _reading(block)) if part)


def _lines(block: Block) -> list[str]:
    return [*(f"[{number}] {note}" for number, note in enumerate(block.notes, 1)), *block.footer]


def _name_width(block: Block) -> int:
    """Of the column of names, with the space behind it: long ones are broken only beyond twice the usual width."""
    return min(max(_NAME_WIDTH, *(len(row.name) + 1 for row in block.rows)), 2 * _NAME_WIDTH)


def _lengths_table(block: Block, columns: range) -> Table:
    table = Table(box=_RULED, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("tokens", no_wrap=False, overflow="fold", max_width=_name_width(block))
    for column in columns:
        table.add_column(str(block.lengths[column]), overflow="fold", min_width=_LENGTH_WIDTH - 2)
    for row in block.rows:
        table.add_row(Text(row.name), *(_entry_text(row, row.entries[column]) for column in columns))
    return table


def _entry_text(row: MethodRow, entry: Entry) -> Text:
    verdict = entry.ratio.verdict if entry.ratio else None
    style = _STYLES.get(entry.word or verdict or "", "")
    first, *rest = _entry_lines(row, entry)
    text = Text(first, style=style if entry.word else "")
    for line in rest:
        text.append("\n").append(line, style=style)
    return text


def _entry_lines(row: MethodRow, entry: Entry) -> Iterator[str]:
    mark = f" [{entry.note}]" if entry.note else ""
    if entry.word or entry.latency_ms is None:
        yield f"{entry.word or 'no data'}{mark}"
        return
    yield f"{milliseconds_text(entry.latency_ms)}{mark}"
    if entry.ratio is not None and not row.is_baseline:
        yield ratio_text(entry.ratio)


def _methods_table(block: Block, columns: Mapping[str, Sequence[str]]) -> Table:
    """One row per method: its summary, or its costs. Beside long names there is room for one space between columns."""
    between = 1 if _name_width(block) == _NAME_WIDTH else 0
    table = Table(box=_RULED, show_edge=False, pad_edge=False, padding=(0, between, 0, 0))
    # Where a table is too wide it is the verdict that gives way, not the name.
    names = min(_name_width(block) - 1, max((len(row.name) for row in block.rows), default=0))
    for heading in columns:
        justify: JustifyMethod = "left" if heading in _LEFT else "right"
        least = names if heading == "method" else None
        table.add_column(_BROKEN.get(heading, heading), overflow="fold", justify=justify, min_width=least)
    for place, row in enumerate(block.rows):
        cells = {heading: Text(column[place]) for heading, column in columns.items()}
        if "verdict" in cells:
            cells["verdict"].stylize(_STYLES.get(row.mean.verdict or "" if row.mean else "", ""))
        table.add_row(*cells.values())
    return table


def _summary(block: Block) -> dict[str, list[str]]:
    """The columns of the summary by heading, one text per row; limit and Holm only where known of any row."""
    columns = {
        "method": [row.name for row in block.rows],
        "geometric mean": ["-" if row.mean is None else ratio_text(row.mean) for row in block.rows],
        "limit %": [_span_text(row, _Cost("limit_fraction", 0.01, spread=True, whole=True)) for row in block.rows],
        "founding average": [_founding_text(row) for row in block.rows],
        "accuracy %": [_accuracy_text(row) for row in block.rows],
        "after Holm": [
            f"{row.after_holm.held} of {row.after_holm.made}" if row.after_holm else "-" for row in block.rows
        ],
        "verdict": [row.verdict for row in block.rows],
    }
    optional = ("limit %", "after Holm")
    return {name: texts for name, texts in columns.items() if name not in optional or set(texts) != {"-"}}


def _costs(block: Block) -> dict[str, list[str]]:
    """The columns of the costs by heading, one text per row: those that are known of any row."""
    columns = {heading: [_span_text(row, cost) for row in block.rows] for heading, cost in _COSTS.items()}
    return {heading: texts for heading, texts in columns.items() if set(texts) != {"-"}}


def _span_text(row: MethodRow, column: _Cost) -> str:
    """The figure's most, or its ends where they print unlike; `never` is a break-even that is not reached."""
    if column.figure not in row.figures:
        return "-"
    ends = [
        "never" if math.isinf(end) else f"{end / column.unit:.0f}" if column.whole else figure_text(end / column.unit)
        for end in row.figures[column.figure]
    ]
    return ends[1] if not column.spread else "-".join(dict.fromkeys(ends))


def _founding_text(row: MethodRow) -> str:
    if row.founding_average is None:
        return "-"
    return "0.0 %" if row.is_baseline else f"{row.founding_average:+.1f} %"


def _accuracy_text(row: MethodRow) -> str:
    """The accuracy and, on a line of its own, how it differs from the baseline's."""
    accuracy = "-" if row.accuracy is None else f"{100 * row.accuracy:.2f}"
    return f"{accuracy}\n{change_text(row.accuracy_change)}" if row.accuracy_change else accuracy


def _grid(block: Block, newline: str) -> list[list[str]]:
    """Head and rows of the whole block as strings, for formats without a width."""
    summary = _summary(block) | _costs(block)
    names = summary.pop("method")
    rows = [
        [
            names[place],
            *(newline.join(_entry_lines(row, entry)) for entry in row.entries),
            *(column[place].replace("\n", newline) for column in summary.values()),
        ]
        for place, row in enumerate(block.rows)
    ]
    return [["method", *(f"{length} tokens" for length in block.lengths), *summary], *rows]


FORMATS: dict[str, Callable[[SpeedupTable], str]] = {"text": to_text, "markdown": to_markdown, "html": to_html}
"""Formats of the whole table; CSV is made of the speedup rows (`to_csv`)."""
