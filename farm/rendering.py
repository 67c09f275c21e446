"""A SpeedupTable as terminal text (`documents` has Markdown, HTML, LaTeX and CSV)."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence

from rich.box import Box
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from farm.columns import OPTIONAL, Chosen, Column, chosen, entry_lines, percentiles
from farm.stats import PERCENTILE_SAMPLES
from farm.tables import Block, Entry, MethodRow, SpeedupTable

TEXT_WIDTH = 100
_NAME_WIDTH = 21
_LENGTH_WIDTH = 19
_VERDICT_WIDTH = 9
"""At least: its words go on below themselves."""

_BETWEEN = 2
"""Blanks between columns."""

TOGETHER = 6
"""As many columns of methods stand in one table; of more, the costs have a table of their own."""

# Plain hyphens: the same table in a terminal, a log and a mail.
_RULED = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
_STYLES = {"faster": "green", "slower": "red", "failed": "bold red", "invalid": "bold red", "unsupported": "yellow"}


def to_rich(table: SpeedupTable, width: int = TEXT_WIDTH, wanted: Chosen | None = None) -> Group:
    """For `console.print`: coloured where the console is. Lengths that do not fit `width` go on below."""
    columns = wanted or chosen(None)
    parts: list[RenderableType] = [Text(table.title, style="bold")]
    for block in table.blocks:
        parts += ["", *([Text(block.title, style="bold")] if block.title else []), Text(reading(block, columns))]
        per_table = max(1, (width - _NAME_WIDTH) // _LENGTH_WIDTH)
        for start in range(0, len(block.lengths) if columns.at_lengths else 0, per_table):
            shown = range(start, min(start + per_table, len(block.lengths)))
            parts += ["", _lengths_table(block, shown, columns.at_lengths)]
        parts.append("")
        for group in column_groups(block, columns):
            for fitting in _fitting(block, group, width):
                parts += [_methods_table(block, fitting), ""]
        parts += map(Text, lines(block))
    return Group(*parts, "", *map(Text, table.footer))


def to_text(table: SpeedupTable, width: int = TEXT_WIDTH, wanted: Chosen | None = None) -> str:
    """Plain text without colours, at most `width` columns."""
    console = Console(file=io.StringIO(), width=width, color_system=None, markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        console.print(to_rich(table, width, wanted))
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def reading(block: Block, wanted: Chosen) -> str:
    """How the numbers at a length are to be read; empty where there are none."""
    latency = "median latency" if "latency" in wanted.at_lengths else ""
    speedup = f"speedup over {block.baseline}" if {"speedup", "interval"} & set(wanted.at_lengths) else ""
    interval = " [95 % interval]" if "interval" in wanted.at_lengths else ""
    said = ", and ".join(filter(None, [latency, f"{speedup}{interval}"]))
    needed = [f"{name} below {PERCENTILE_SAMPLES[int(name[1:])]}" for name in percentiles(wanted.at_lengths)]
    withheld = f"withheld where too few samples support it: {', '.join(needed)}" if needed else ""
    text = "; ".join(filter(None, [said, withheld]))
    return text[:1].upper() + text[1:]


def lines(block: Block) -> list[str]:
    """The footnotes, numbered, and what else is to be known of a block."""
    return [*(f"[{number}] {note}" for number, note in enumerate(block.notes, 1)), *block.footer]


def column_groups(block: Block, wanted: Chosen) -> list[dict[Column, list[str]]]:
    """Tables of methods below one another, each with a text per row for its columns.

    Columns that nothing is known of are left out unless asked for.
    """
    texts = {column: [column.text(row) for row in block.rows] for column in wanted.once}
    known = {
        column: each
        for column, each in texts.items()
        if wanted.asked or column.name not in OPTIONAL or set(each) != {"-"}
    }
    if len(known) <= TOGETHER and wanted.asked:
        return [known] if known else []
    parts = [{column: each for column, each in known.items() if column.is_cost == cost} for cost in (False, True)]
    return [part for part in parts if part]


def _broken(name: str) -> str:
    """A name over lines that fit its column, broken behind hyphens (elsewhere only where it has none)."""
    shown = [""]
    for part in re.findall("[^-]*-|[^-]+", name):
        fits = len(shown[-1]) + len(part) < _NAME_WIDTH
        shown = [*shown[:-1], shown[-1] + part] if fits or not shown[-1] else [*shown, part]
    return "\n".join(shown)


def _lengths_table(block: Block, shown: range, wanted: Sequence[str]) -> Table:
    table = Table(box=_RULED, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("tokens", no_wrap=False, overflow="fold", max_width=_NAME_WIDTH)
    for place in shown:
        table.add_column(str(block.lengths[place]), overflow="fold", min_width=_LENGTH_WIDTH - 2)
    for row in block.rows:
        table.add_row(Text(_broken(row.name)), *(_entry_text(row, row.entries[place], wanted) for place in shown))
    return table


def _entry_text(row: MethodRow, entry: Entry, wanted: Sequence[str]) -> Text:
    verdict = entry.ratio.verdict if entry.ratio else None
    style = _STYLES.get(entry.word or verdict or "", "")
    first, *rest = entry_lines(row, entry, wanted)
    text = Text(first, style=style if entry.word or "latency" not in wanted else "")
    for line in rest:
        text.append("\n").append(line, style=style)
    return text


def _fitting(block: Block, group: Mapping[Column, list[str]], width: int) -> list[dict[Column, list[str]]]:
    """The group's columns in as many tables as it takes for each to fit `width`: Rich would break figures, and leave
    whole columns out."""
    beside = max(len(line) for row in block.rows for line in _broken(row.name).split("\n"))
    tables: list[dict[Column, list[str]]] = [{}]
    used = beside
    for column, texts in group.items():
        needed = _BETWEEN + (_VERDICT_WIDTH if column.name == "verdict" else _widest([_heading(column), *texts]))
        if tables[-1] and used + needed > width:
            tables.append({})
            used = beside
        tables[-1][column] = texts
        used += needed
    return tables


def _widest(texts: Sequence[str]) -> int:
    return max(len(line) for text in texts for line in text.split("\n"))


def _heading(column: Column) -> str:
    return column.narrow or column.heading


def _methods_table(block: Block, columns: Mapping[Column, Sequence[str]]) -> Table:
    """One row per method."""
    table = Table(box=_RULED, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    names = [_broken(row.name) for row in block.rows]
    has_verdict = any(column.name == "verdict" for column in columns)
    # A column that may wrap is narrowed with the others, and its minimum is then cut off the table's right end.
    longest = max(map(len, "\n".join(names).split("\n")))
    table.add_column("method", overflow="fold", min_width=longest, no_wrap=has_verdict)
    for column in columns:
        justify: JustifyMethod = "left" if column.left else "right"
        # Where a table is too wide it is the verdict that goes on below itself: it is words.
        wraps = column.name == "verdict" or not has_verdict
        table.add_column(_heading(column), overflow="fold", justify=justify, no_wrap=not wraps)
    for place, row in enumerate(block.rows):
        cells = {column.name: Text(texts[place]) for column, texts in columns.items()}
        if "verdict" in cells:
            cells["verdict"].stylize(_STYLES.get(row.mean.verdict or "" if row.mean else "", ""))
        table.add_row(Text(names[place]), *cells.values())
    return table
