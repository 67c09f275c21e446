"""From a folder of results to the report's page or to one of its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from farm import speedups, tables
from farm.errors import RequestError
from farm.ratios import Row
from farm.report import traces
from farm.report.content import PLOTS, report_blocks, spec_of
from farm.report.images import to_image
from farm.report.page import Page, to_html
from farm.report.subject import make_subject
from farm.report.theme import Mode
from farm.results import Results


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


def report_picture(results: Results, plot: str, format: str, block: int = 1, mode: Mode = "light") -> bytes:
    """One plot of one block (numbered from 1, as on the page) as a picture in one of `images.FORMATS`.

    Raises RequestError where there is no such plot, block or format, or nothing to draw.
    """
    wanted = plot_named(plot)
    derived = speedups.current(results.store, results.run)
    groups = tables.rows_by_block(derived.to_pylist())
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
    return to_image(spec, PLOTS[wanted].heading_of(subject), f"{titles[block - 1]}; run {results.run}", format, mode)


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
