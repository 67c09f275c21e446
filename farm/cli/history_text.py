"""A cell's history as terminal text."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from farm.history import Entry, History
from farm.numerals import milliseconds_text, ratio_text
from farm.ratios import Ratio
from farm.step_changes import LEAST_RUNS, SHORTEST

BAR = 24
"""Columns of the picture beside the numbers: from the least of them to the most."""


def to_rich(found: History) -> Group:
    """For `console.print`: a line for each run, and one where a new level begins."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    what = "speedup [95 % interval]" if found.measure == "speedup" else "median latency"
    for heading in ("run", "replicas", what, "", ""):
        table.add_column(heading, justify="right" if heading == "replicas" else "left", no_wrap=heading != "")
    steps = {step.run: step for step in found.steps}
    values = [entry.value for entry in found.entries if entry.value is not None]
    for entry in found.entries:
        step = steps.get(entry.run)
        mark = Text("") if step is None else Text(_word(step.ratio), style="green" if step.ratio > 1 else "red")
        # As Text: a plain string's brackets would be read as markup.
        texts = (entry.run, str(entry.replicas), _value(entry, found), _picture(entry, values))
        table.add_row(*map(Text, texts), mark)
    parts: list[RenderableType] = [Text(found.title, style="bold"), "", table, ""]
    return Group(*parts, *(Text(line) for line in lines(found)))


def lines(found: History) -> Iterator[str]:
    """The sentences under the table."""
    if found.is_yardstick:
        yield "This is the baseline of these runs, and its speedup is 1 by definition: ask for --measure latency."
        return
    for step in found.steps:
        yield f"From run {step.run} on {_word(step.ratio)}."
        yield from (f"  {line}" for line in step.differences)
        if not step.differences:
            yield "  Nothing else that the farm records differs from the run before."
    if not found.steps:
        few = sum(entry.value is not None for entry in found.entries) < SHORTEST
        yield (
            f"Too few runs to tell a step from chance: it takes {SHORTEST}, {LEAST_RUNS} of them on either side."
            if few
            else "No step: the runs look like one level."
        )
    yield "Steps by E-divisive means (Matteson and James, 2014), at most 5 false ones in 100 series without any."


def _word(ratio: float) -> str:
    return f"{'faster' if ratio > 1 else 'slower'}, {ratio:.2f}x"


def _value(entry: Entry, found: History) -> str:
    if entry.value is None:
        return entry.why or "no result"
    if found.measure == "latency":
        return milliseconds_text(entry.value)
    return ratio_text(Ratio(entry.value, entry.low, entry.high))


def _picture(entry: Entry, values: list[float]) -> str:
    """A dot between the least and the most of all runs."""
    if entry.value is None:
        return ""
    least, most = min(values), max(values)
    place = round((BAR - 1) * (entry.value - least) / (most - least)) if most > least else 0
    return f"|{'.' * place}o{'.' * (BAR - 1 - place)}|"
