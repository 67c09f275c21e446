"""A self-check as text: the table of checks, what else was found with advice, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.box import Box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from farm.conditions import OWN_RATIO, Conditions
from farm.guards import FOREIGN_RATIO
from farm.honesty import FALSE_ALARMS, MOST_DISTURBED, Orders, Recovery, SelfCheck

TEXT_WIDTH = 100
"""Columns, as of every table of the farm."""

_RULED = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
_STYLES = {"holds": "green", "fine": "green", "unknown": "yellow", "too much": "yellow"}
_BAD = "bold red"

Line = tuple[str, str, str, str]
"""Check, expected, found, verdict."""


def to_rich(checked: SelfCheck) -> Group:
    """For `console.print`, at most 100 columns wide."""
    table = Table(box=_RULED, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("check", "expected", "found", "verdict"):
        table.add_column(heading, overflow="fold")
    for line in check_lines(checked):
        *cells, verdict = map(Text, line)
        verdict.stylize(_STYLES.get(verdict.plain, _BAD))
        table.add_row(*cells, verdict)
    parts: list[RenderableType] = [table, "", *map(Text, notes(checked))]
    for finding in checked.findings:
        parts += ["", Text.assemble((f"{finding.what}: ", "yellow"), finding.advice)]
    return Group(*parts, "", Text(verdict_line(checked), style="bold green" if checked.honest else _BAD))


def check_lines(checked: SelfCheck) -> list[Line]:
    """The rows of the table."""
    return [*map(_recovery_line, checked.recoveries), *_condition_lines(checked.conditions)]


def notes(checked: SelfCheck) -> Iterator[str]:
    """How to read the table, how small a difference can be told apart, and what interleaving saved."""
    joint = 1 - FALSE_ALARMS
    yield f"Found: time against the baseline's, with intervals that all hold the truth in {_percent(joint)} of checks."
    if checked.resolution is not None:
        minutes = f"{checked.seconds / 60:.1f} minutes"
        yield f"Differences below {_percent(checked.resolution)} cannot be told apart here in {minutes}."
    if checked.orders is not None:
        yield _orders_text(checked.orders)


def verdict_line(checked: SelfCheck) -> str:
    """The answer in one line."""
    if checked.honest:
        return "This machine measures honestly."
    return f"This machine does not measure honestly. {'; '.join(checked.faults)}."


def _recovery_line(recovery: Recovery) -> Line:
    expected = _signed(recovery.known.slowdown)
    if recovery.found is None or recovery.low is None or recovery.high is None:
        return recovery.known.what, expected, recovery.problem, "not measured"
    ends = f"[{_signed(recovery.low, '')}, {_signed(recovery.high, '')}]"
    return recovery.known.what, expected, f"{_signed(recovery.found)} {ends}", "holds" if recovery.held else "missed"


def _condition_lines(conditions: Conditions) -> list[Line]:
    share = conditions.disturbed_share
    disturbed = (
        "rounds that a guard saw disturbed",
        "at most half",
        "nobody watched" if share is None else f"{conditions.disturbed} of {conditions.rounds}",
        "unknown" if share is None else "fine" if share <= MOST_DISTURBED else "disturbed",
    )
    own = _limit_line("the farm's and Ray's own work", OWN_RATIO, conditions.own_ratio, "of a core")
    foreign = _limit_line("parked cells and all other programs", FOREIGN_RATIO, conditions.foreign_ratio, "of the slot")
    return [disturbed, own, foreign]


def _limit_line(what: str, limit: float, found: float | None, whole: str) -> Line:
    expected = f"under {100 * limit:.0f} % {whole}"
    if found is None:
        return what, expected, "not recorded", "unknown"
    return what, expected, f"{100 * found:.1f} % {whole}", "fine" if found < limit else "too much"


def _orders_text(orders: Orders) -> str:
    times = orders.blocked / orders.interleaved if orders.interleaved else math.inf
    return (
        f"Interleaving: one replica's ratio was off by {_percent(orders.interleaved)} in rounds (root mean square of "
        f"{orders.interleaved_ratios}); with all turns of one cell before the next one's by "
        f"{_percent(orders.blocked)} (of {orders.blocked_ratios}), {times:.1f} times as much."
    )


def _percent(fraction: float) -> str:
    """Two significant digits: 0.25 %, 1.3 %, 14 %, 120 %."""
    percent = 100 * fraction
    decimals = next((places for limit, places in ((9.95, 0), (0.995, 1)) if percent >= limit), 2)
    return f"{percent:.{decimals}f} %"


def _signed(slowdown: float, unit: str = " %") -> str:
    return f"{100 * (slowdown - 1):+.2f}{unit}"
