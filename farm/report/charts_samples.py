"""The plots of single calls and rounds: distributions, turns by method, and turns over time. Pure.

Each takes a Subject and returns a drawing, or None where there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from farm.report.chart_parts import Drawing, chart_of, method_colour, names_above, names_y, sized, tooltip
from farm.report.subject import Subject

AT_LENGTH = "datum.length === length"

AT_ONE_LENGTH = ("distribution", "rounds")
"""Names of the plots that show one length at a time."""

USUAL_PERCENT = (1, 99)
"""Percentiles of the drift that is drawn to scale: one long turn would press all others into a line."""


def distribution(subject: Subject) -> Drawing | None:
    """For each method the share of calls that took no longer, at the chosen length."""
    rows = [
        {"name": each.name, "length": each.length, "ms": each.latency_ms, "share": each.shares}
        for each in subject.distributions
        if each.name in subject.order
    ]
    if not rows:
        return None
    base = (
        chart_of(AT_LENGTH)
        .transform_flatten(["ms", "share"])
        .encode(
            x=alt.X("ms:Q", scale=alt.Scale(type="log", nice=False, padding=8), title="ms", axis=_log_axis()),
            y=alt.Y("share:Q", axis=alt.Axis(format="%", tickCount=5), title="of calls took no longer"),
            detail="name:N",
            color=method_colour(),
            tooltip=tooltip("name", "ms"),
        )
    )
    others = base.transform_filter("datum.slot < 0").mark_line(strokeWidth=1.2)
    lines = base.transform_filter("datum.slot >= 0").mark_line(strokeWidth=2.2)
    return Drawing(sized(alt.layer(others, lines)), rows)


def rounds(subject: Subject) -> Drawing | None:
    """The median of every turn at the chosen length, a row for each method; disturbed rounds are open."""
    rows = [
        {"name": each.name, "length": each.length, "ms": each.latency_ms, "tainted": each.tainted}
        for each in subject.turns
        if each.role != "twin" and each.name in subject.order
    ]
    if not rows:
        return None
    base = (
        chart_of(AT_LENGTH)
        .transform_flatten(["ms", "tainted"])
        .encode(
            x=alt.X("ms:Q", scale=alt.Scale(type="log", nice=False, padding=12), title="ms", axis=_log_axis()),
            y=names_y(subject),
            tooltip=tooltip("name", "ms"),
        )
    )
    clean = base.transform_filter("!datum.tainted").mark_point(filled=True, size=26, opacity=0.55)
    tainted = base.transform_filter("datum.tainted").mark_point(filled=False, size=26, strokeWidth=1.3)
    return Drawing(
        sized(
            alt.layer(
                clean.encode(color=method_colour(legend=False)),
                tainted.encode(color=method_colour(legend=False)),
                names_above(subject),
            ),
            len(subject.order),
        ),
        rows,
    )


def drift(subject: Subject) -> Drawing | None:
    """How far each turn of the methods in focus was from its own median, over the time of the run."""
    rows: list[dict[str, Any]] = [
        {
            "name": subject.baseline if each.role == "twin" else each.name,
            "what": each.name,
            "length": each.length,
            "minutes": each.minutes,
            "apart": each.apart_percent,
            "tainted": each.tainted,
        }
        for each in subject.turns
        if each.role in ("baseline", "twin") or each.name in subject.order
    ]
    if not rows:
        return None
    drawn = [apart for row in rows if row["name"] in subject.focus for apart in row["apart"]]
    low, high = _usual_range(drawn)
    beyond = sum(not low <= apart <= high for apart in drawn)
    edge = f"; {beyond} of {len(drawn)} beyond, at the edge" if beyond else ""
    base = (
        chart_of()
        .transform_filter("datum.slot >= 0")
        .transform_flatten(["minutes", "apart", "tainted"])
        .encode(
            x=alt.X(
                "minutes:Q",
                title="minutes since the first round",
                axis=alt.Axis(tickCount=8),
                scale=alt.Scale(nice=False, padding=8),
            ),
            y=alt.Y(
                "apart:Q",
                title=f"% over its own median{edge}",
                axis=alt.Axis(format="+~f", tickCount=6),
                scale=alt.Scale(domain=[low, high], clamp=True, nice=False),
            ),
            tooltip=tooltip("name", "length", "minutes", "apart"),
        )
    )
    clean = base.transform_filter("!datum.tainted").mark_point(filled=True, size=22, opacity=0.6)
    tainted = base.transform_filter("datum.tainted").mark_point(filled=False, size=30, strokeWidth=1.3)
    return Drawing(sized(alt.layer(clean.encode(color=method_colour()), tainted.encode(color=method_colour()))), rows)


def _usual_range(percents: Sequence[float]) -> tuple[float, float]:
    """From the first to the 99th percentile, with a little air, and one per cent either way at least."""
    if not percents:
        return -1.0, 1.0
    low, high = (float(end) for end in np.percentile(percents, USUAL_PERCENT))
    air = 0.05 * (high - low)
    return min(low - air, -1.0), max(high + air, 1.0)


def _log_axis() -> alt.Axis:
    return alt.Axis(tickCount=6, format="~g", grid=True)
