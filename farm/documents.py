"""A SpeedupTable for a page, a paper or a program: Markdown, HTML, LaTeX, CSV."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from tabulate import tabulate

from farm.columns import Chosen, Column, chosen, entry_lines
from farm.rendering import column_groups, lines, reading, to_text
from farm.tables import Block, MethodRow, SpeedupTable

STYLE = """
.farm-table {font: 14px/1.45 system-ui, sans-serif; overflow-x: auto}
.farm-table table {border-collapse: collapse; margin: .6em 0; font-variant-numeric: tabular-nums}
.farm-table caption {text-align: left; padding: .3em 0; font-weight: 600}
.farm-table th, .farm-table td {padding: .25em .9em .25em 0; text-align: left; vertical-align: top; border: 0;
  background: none; color: inherit}
.farm-table thead th {border-bottom: 1px solid; white-space: nowrap}
.farm-table tbody tr + tr > * {border-top: 1px solid rgba(128, 128, 128, .35)}
.farm-table td.at {white-space: nowrap}
.farm-table .faster {background: rgba(30, 160, 90, .18)}
.farm-table .slower, .farm-table .failed, .farm-table .invalid {background: rgba(220, 60, 50, .2)}
.farm-table .unsupported {opacity: .7}
.farm-table ul {margin: .3em 0; padding-left: 1.2em; font-size: 13px}
"""
"""Colours of text are the page's own, and tints let it shine through: readable on light and on dark."""


def to_markdown(table: SpeedupTable, wanted: Chosen | None = None) -> str:
    """GitHub's Markdown: one table per block, the lines of an entry in one cell."""
    columns = wanted or chosen(None)
    parts = [f"**{_plain(table.title)}**"]
    for block in table.blocks:
        cells = [[_bar(cell) for cell in row] for row in _grid(block, columns, column_groups(block, columns))]
        parts.append(_plain(_heading(block, columns)))
        parts.append(tabulate(cells[1:], cells[0], tablefmt="github", disable_numparse=True))
        parts.append("\n".join(f"- {_plain(line)}" for line in lines(block)))
    parts.append("\n".join(f"- {_plain(line)}" for line in table.footer))
    return "\n\n".join(parts) + "\n"


def to_html(table: SpeedupTable, wanted: Chosen | None = None) -> str:
    """For a notebook or a page: one element with its own style, no script, and nothing from elsewhere."""
    parts = [f'<div class="farm-table"><style>{STYLE}</style>', f"<p><b>{html.escape(table.title)}</b></p>"]
    for block in table.blocks:
        parts += _html_tables(block, wanted or chosen(None))
        parts.append(_html_list(lines(block)))
    return "\n".join([*parts, _html_list(table.footer), "</div>"])


def html_document(fragment: str, title: str) -> str:
    """What `to_html` makes as a file of its own, which a browser shows as it is meant."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n</head>\n<body>\n{fragment}\n</body>\n</html>\n"
    )


def to_latex(table: SpeedupTable, wanted: Chosen | None = None) -> str:
    """Tabulars for LaTeX (booktabs, graphicx): lengths, methods and costs of each block, as small as a page asks for;
    footnotes below them.
    """
    columns = wanted or chosen(None)
    parts = [f"% {' '.join(table.title.split())}", "% needs \\usepackage{booktabs,graphicx}"]
    for block in table.blocks:
        # What follows would otherwise begin in the heading's own line.
        parts.append(f"\\paragraph{{{_latex(_heading(block, columns))}}}\\leavevmode")
        groups = column_groups(block, columns)
        # Columns of a whole block would not fit a page.
        parts.append(_latex_table(_grid(block, columns, ())) if columns.at_lengths else "")
        parts += [_latex_table(_grid(block, columns, [group], at_lengths=False)) for group in groups]
        parts.append(_latex_notes(lines(block)))
    parts.append(_latex_notes(table.footer))
    return "\n\n".join(part for part in parts if part) + "\n"


def to_csv(speedups: pa.Table, wanted: Chosen | None = None) -> str:
    """One line per cell: all columns of SPEEDUP_SCHEMA but the rounds' log ratios, or those behind the chosen ones.

    Lists of words are joined by `; `; `states` is JSON. What is not known is empty.
    """
    fields = wanted.fields() if wanted else None
    kept = fields or [name for name in speedups.column_names if name != "log_ratios"]
    frame = speedups.select(kept).to_pandas(integer_object_nulls=True)
    for name in kept:
        if pa.types.is_list(speedups.schema.field(name).type):
            frame[name] = [_list_text(values) for values in speedups[name].to_pylist()]
    return str(frame.to_csv(index=False, lineterminator="\n"))


FORMATS: dict[str, Callable[..., str]] = {
    "text": lambda table, wanted=None: to_text(table, wanted=wanted),
    "markdown": to_markdown,
    "html": to_html,
    "latex": to_latex,
}
"""Formats of the whole table; CSV is made of the speedup rows (`to_csv`)."""


FIT_WIDTH = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"
FIT_HEIGHT = r"\resizebox*{!}{\ifdim\totalheight>.85\textheight.85\textheight\else\totalheight\fi}"
"""A table wider than the text or higher than a page is made smaller, for LaTeX breaks it nowhere; others stay."""

Group = Mapping[Column, Sequence[str]]
"""Columns of methods with a text for each row."""


def _heading(block: Block, wanted: Chosen) -> str:
    return ". ".join(part for part in (block.title, reading(block, wanted)) if part)


def _grid(block: Block, wanted: Chosen, groups: Sequence[Group], at_lengths: bool = True) -> list[list[str]]:
    """Head and rows of a block as strings of one line or more, with these groups of columns."""
    columns = {column: texts for group in groups for column, texts in group.items()}
    lengths = block.lengths if at_lengths and wanted.at_lengths else ()
    rows = [
        [row.name, *(_entries(row, wanted) if at_lengths else ()), *(texts[place] for texts in columns.values())]
        for place, row in enumerate(block.rows)
    ]
    head = ["method", *(f"{length} tokens" for length in lengths), *(column.heading for column in columns)]
    return [head, *rows]


def _entries(row: MethodRow, wanted: Chosen) -> list[str]:
    if not wanted.at_lengths:
        return []
    return ["\n".join(entry_lines(row, entry, wanted.at_lengths)) for entry in row.entries]


def _bar(cell: str) -> str:
    return _plain(cell).replace("|", "\\|").replace("\n", "<br>")


def _plain(text: str) -> str:
    """Markdown lets HTML through: what users wrote must not become any."""
    return text.replace("<", "&lt;").replace(">", "&gt;")


def _lines_of(row: Sequence[str]) -> Iterator[list[str]]:
    """A row of cells of several lines as several rows."""
    split = [cell.split("\n") for cell in row]
    for line in range(max(map(len, split))):
        yield [cell[line] if line < len(cell) else "" for cell in split]


def _html_tables(block: Block, wanted: Chosen) -> Iterator[str]:
    """The block's table, and one of the costs where columns are many."""
    first, *others = column_groups(block, wanted) or [{}]
    yield _html_table(
        block, _grid(block, wanted, [first]), len(block.lengths) if wanted.at_lengths else 0, _heading(block, wanted)
    )
    for group in others:
        yield _html_table(block, _grid(block, wanted, [group], at_lengths=False), 0, "Costs")


def _html_table(block: Block, grid: Sequence[Sequence[str]], lengths: int, caption: str) -> str:
    """A grid whose first `lengths` columns after the name are entries."""
    head, *rows = grid
    titles = "".join(f'<th scope="col">{html.escape(each)}</th>' for each in head)
    body = []
    for row, cells in zip(block.rows, rows, strict=True):
        kinds = [f"at {_kind(row, place)}".rstrip() for place in range(lengths)] + [""] * (len(cells) - 1 - lengths)
        named = f'<th scope="row">{html.escape(cells[0])}</th>'
        rest = (f'<td class="{kind}">{_html_lines(cell)}</td>' for kind, cell in zip(kinds, cells[1:], strict=True))
        body.append(f"<tr>{named}{''.join(rest)}</tr>")
    titled = f"<caption>{html.escape(caption)}</caption>"
    return f"<table>{titled}<thead><tr>{titles}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _kind(row: MethodRow, place: int) -> str:
    entry = row.entries[place]
    known = ("faster", "slower", "failed", "invalid", "unsupported")
    word = entry.word or (entry.ratio.verdict if entry.ratio else None) or ""
    return word if word in known else ""


def _html_lines(cell: str) -> str:
    return "<br>".join(map(html.escape, cell.split("\n")))


def _html_list(texts: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{html.escape(text)}</li>' for text in texts)}</ul>" if texts else ""


def _latex_table(grid: Sequence[Sequence[str]]) -> str:
    head, *rows = grid
    spread = [line for row in rows for line in _lines_of(row)]
    table = tabulate(spread, head, tablefmt="latex_booktabs", disable_numparse=True)
    return f"\\noindent\n{FIT_HEIGHT}{{{FIT_WIDTH}{{{table}}}}}"


def _latex(text: str) -> str:
    """Escaped as tabulate escapes cells."""
    line = " ".join(text.split())
    row = str(tabulate([[line]], tablefmt="latex_booktabs", disable_numparse=True)).splitlines()[2]
    return row.strip().removesuffix("\\\\").strip()


def _latex_notes(texts: Sequence[str]) -> str:
    if not texts:
        return ""
    items = "\n".join(map(_latex_item, texts))
    return f"\\begin{{itemize}}\\sloppy\n{items}\n\\end{{itemize}}"


def _latex_item(text: str) -> str:
    """A footnote's number is the item's label; a bracket that is none must not be taken for one."""
    number, bracket, rest = text.partition("] ")
    if bracket and number.removeprefix("[").isdigit():
        return f"\\item[{{{number}]}}] {_latex(rest)}"
    return f"\\item {'{}' if text.startswith('[') else ''}{_latex(text)}"


def _list_text(values: Sequence[Any] | None) -> str:
    if not values:
        return ""
    return "; ".join(values) if isinstance(values[0], str) else json.dumps(values)
