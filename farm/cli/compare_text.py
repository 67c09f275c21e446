"""A comparison of two runs as terminal text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from farm.compare import Compared, Comparison, counted
from farm.numerals import milliseconds_text, ratio_text
from farm.ratios import FALSE_CLAIMS, Ratio

NO_TELLING = 100
"""An interval whose ends are further apart than this factor says nothing, and its digits would only look as if."""

_STYLES = {"faster": "green", "slower": "red", "failed": "bold red", "invalid": "bold red", "missing": "bold red"}


def to_rich(found: Comparison) -> Group:
    """For `console.print`: a table for each kind of hardware, device, batch size and threads, and what to know."""
    parts: list[RenderableType] = [Text(f"{found.old} -> {found.new}", style="bold")]
    tables: dict[str, list[Compared]] = {}
    for cell in found.cells:
        tables.setdefault(_title(cell), []).append(cell)
    for title, cells in tables.items():
        parts += ["", Text(title, style="bold"), _table(cells)]
    warned = [Text(f"Warning: {warning}", style="bold red") for warning in found.warnings]
    return Group(*parts, "", *(Text(line) for line in lines(found)), *warned, Text(gate(found)))


def lines(found: Comparison) -> Iterator[str]:
    """The sentences under the tables; warnings and the gate come after them."""
    yield from _reading(found)
    if found.baseline_moved is not None:
        moved = f"{found.baseline_moved:.2f} times as fast".replace("1.00 times as fast", "the same")
        why = "the machine's doing, or its own" if found.measure == "speedup" else "which widens the intervals"
        yield f"The baseline itself ran {moved} as before on average: {why}."
    yield from (f"Only in the old run: {named}." for named in _one_line(found.only_old))
    yield from (f"Only in the new run: {named}." for named in _one_line(found.only_new))
    if found.differences:
        yield "What else is not the same:"
        yield from (f"  {line}" for line in found.differences)
    else:
        yield "Nothing else that the farm records is different."


def _reading(found: Comparison) -> Iterator[str]:
    if found.measure == "speedup":
        yield "Change: new speed / old speed, each over its own run's baseline, in which the machine's state cancels."
        noise = "the A/A twins of both runs show"
    else:
        yield "Change: old latency / new latency. Nothing pairs the rounds of two runs: the machine is in it."
        noise = "the baseline and its twin in one run against the other show"
    if not found.between.pairs:
        yield "No A/A pair in both runs: what lies between runs was not measured, and the intervals leave it out."
        return
    sd = f"{100 * found.between.sd:.1f} % ({found.between.pairs} pairs)"
    yield f"Intervals of 95 %, unpaired, widened by what {noise} to lie between runs: {sd}."


def gate(found: Comparison) -> str:
    """What the exit code is for, in a sentence."""
    if not found.slower and not found.broken:
        counts = ", ".join(f"{count} {word}" for word, count in counted(found.cells).items()) or "nothing compared"
        return f"Gate: nothing is shown to be slower{_beyond(found.threshold)} ({counts})."
    slower = [f"{_cell(cell)} {_change_text(cell)}" for cell in found.slower]
    broken = [f"{_cell(cell)} {cell.broken}" for cell in found.broken]
    parts = [f"slower{_beyond(found.threshold)}: {'; '.join(slower)}" if slower else ""]
    parts.append(f"without a result: {'; '.join(broken)}" if broken else "")
    return f"Gate: {'. '.join(part for part in parts if part)}."


def _beyond(threshold: float) -> str:
    return f" by more than {100 * threshold:g} %" if threshold else ""


def _one_line(names: Sequence[str]) -> Iterator[str]:
    if names:
        yield ", ".join(names)


def _title(cell: Compared) -> str:
    threads = f"{cell.threads} thread{'' if cell.threads == 1 else 's'}"
    return f"{cell.device.upper()}; {cell.hardware_class}; {threads}; batch size {cell.batch_size}"


def _table(cells: Sequence[Compared]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("method", "tokens", "old", "new", "change [95 % interval]", "", "after Holm"):
        table.add_column(heading, justify="right" if heading in ("tokens", "old", "new") else "left")
    for cell in cells:
        latencies = ["-" if each is None else milliseconds_text(each) for each in (cell.old_ms, cell.new_ms)]
        claimed = cell.p_holm if cell.verdict in ("faster", "slower") else None
        holds = "" if claimed is None else "yes" if claimed < FALSE_CLAIMS else "no"
        verdict = Text(cell.verdict, style=_STYLES.get(cell.verdict, ""))
        # As Text: a plain string's brackets would be read as markup.
        texts = (cell.name, str(cell.length), *latencies, _change_text(cell))
        table.add_row(*map(Text, texts), verdict, holds)
    return table


def _change_text(cell: Compared) -> str:
    """The change with its interval, or that there is no telling, where it could be anything."""
    if cell.change is None:
        return "-"
    change = Ratio(cell.change.speedup, cell.change.low, cell.change.high)
    if cell.change.high > NO_TELLING * cell.change.low:
        return f"{ratio_text(Ratio(change.speedup))} [no telling]"
    return ratio_text(change)


def _cell(cell: Compared) -> str:
    return f"{cell.name} ({cell.length})"
