"""From a folder of results to the report's page or to one of its pictures."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from difflib import get_close_matches

from farm import speedups, tables
from farm.errors import RequestError
from farm.ratios import Row
from farm.report import traces
from farm.report.answer import Answer, answer
from farm.report.charts_samples import AT_ONE_LENGTH
from farm.report.content import PLOTS, report_blocks, spec_of
from farm.report.images import to_image
from farm.report.page import SURENESS, Page, to_html
from farm.report.subject import make_subject
from farm.report.theme import Mode
from farm.results import Results

SUBTITLE_LETTERS = 110
"""Of a line under a picture's title: as wide as the picture."""


def report_html(results: Results) -> str:
    """The report of one run as an HTML document."""
    derived = speedups.current(results.store, results.run)
    rows: Sequence[Row] = derived.to_pylist()
    table = results.speedup_table(derived)
    same_within = speedups.same_within(results.store, results.run)
    return to_html(
        Page(
            run=results.run,
            blocks=report_blocks(rows, _measured(results), table, same_within),
            record=results.record,
            footer=table.footer,
            warnings=tuple(results.warnings()),
        )
    )


def report_picture(
    results: Results, plot: str, format: str, block: int = 1, mode: Mode = "light", *, length: int | None = None
) -> bytes:
    """One plot of one block (numbered from 1, as on the page) as a picture in one of `images.FORMATS`.

    `length` (in tokens) is for plots of one length; the first if left out. Raises RequestError where there is no such
    plot, block, length or format, or nothing to draw.
    """
    wanted = plot_named(plot)
    derived = speedups.current(results.store, results.run)
    rows_of_run: Sequence[Row] = derived.to_pylist()
    groups = tables.rows_by_block(rows_of_run)
    titles = [each.title for each in results.speedup_table(derived).blocks]
    if not 1 <= block <= len(groups):
        listed = "; ".join(f"{number} = {title}" for number, title in enumerate(titles, 1)) or "none"
        raise RequestError(f"no block {block} in run {results.run}; there are: {listed}")
    rows = groups[block - 1]
    measured = [row for row in _measured(results) if tables.block_of(row) == tables.block_of(rows[0])]
    subject = make_subject(rows, measured, speedups.same_within(results.store, results.run))
    spec = spec_of(PLOTS[wanted], subject)
    if spec is None:
        raise RequestError(f"nothing to draw: {PLOTS[wanted].missing}")
    heading, at = PLOTS[wanted].heading_of(subject), _length_of(wanted, subject.lengths, length)
    if at is not None:
        params = [{**each, "value": at} if each["name"] == "length" else each for each in spec["params"]]
        spec, heading = {**spec, "params": params}, f"{heading}, {at} tokens"
    found = answer(subject.rows, rows_of_run, subject.choice, subject.baseline)
    subtitle = [f"{titles[block - 1]}; run {results.run}", *doubt_lines(found)]
    return to_image(spec, heading, subtitle, format, mode)


def doubt_lines(found: Answer) -> list[str]:
    """What a picture says of an answer that is in doubt, in lines that fit it: it travels without the page."""
    if found.sureness != "doubtful":
        return []
    return textwrap.wrap(" ".join([SURENESS[found.sureness], *found.doubts]), SUBTITLE_LETTERS)


def _length_of(plot: str, lengths: Sequence[int], wanted: int | None) -> int | None:
    """The length that a picture shows, None where it shows all. Raises RequestError for one that it has not."""
    if plot not in AT_ONE_LENGTH:
        if wanted is not None:
            raise RequestError(f"--length is of {' and '.join(AT_ONE_LENGTH)}; {plot} shows every length: leave it out")
        return None
    if wanted is not None and wanted not in lengths:
        listed = ", ".join(map(str, lengths))
        raise RequestError(f"no length of {wanted} tokens in this block; there are {listed}")
    return lengths[0] if wanted is None else wanted


def plot_named(name: str) -> str:
    """The name of a plot. Raises RequestError for a name that is none, with the nearest."""
    if name in PLOTS:
        return name
    near = get_close_matches(name, PLOTS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise RequestError(f"no plot {name!r}.{hint} There are: {', '.join(PLOTS)}")


def _measured(results: Results) -> Sequence[Row]:
    columns = list(traces.COLUMNS)
    return list(results.store.read_measurements(results.run, columns=columns).to_pylist())
