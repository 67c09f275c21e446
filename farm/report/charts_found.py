"""The plots of what was found: speedups, latencies beside the limit, and the trade-off. Pure.

Each takes a Subject and returns a drawing, or None where there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from farm import packs
from farm.numerals import figure_text
from farm.ratios import Ratio
from farm.report.chart_parts import (
    CLOSE_OFFSET_PIXELS,
    MANY_METHODS,
    NARROW,
    OFFSET_PIXELS,
    ROW_PIXELS,
    Drawing,
    chart_of,
    interval_text,
    method_colour,
    milliseconds_axis,
    names_above,
    names_axis,
    names_y,
    sized,
    times_axis,
    tooltip,
)
from farm.report.subject import Subject
from farm.report.theme import colour, ramp

MEAN = "mean"

LABEL_GAP_PIXELS, BOLD_LETTER_PIXELS = 8, 6.6
"""Between an interval and its figure; and the mean width of a letter of the figure."""

DESK_PIXELS, PHONE_PIXELS = 540, 330
"""Width of the plot's area where it is least: in a picture with long names, and on a phone."""


def speedup(subject: Subject) -> Drawing | None:
    """Each method's speedup with its interval: the mean, and every length."""
    rows = _speedup_rows(subject)
    if not rows:
        return None
    several = len(subject.lengths) > 1
    at = [MEAN] * several + [str(length) for length in subject.lengths]
    shades = [colour("ink")] * several + ramp(len(subject.lengths))
    shapes = ["diamond"] * several + ["circle"] * len(subject.lengths)
    legend = (
        alt.Legend(title="tokens", values=at, columns=alt.ExprRef("max(2, floor(width / 80))")) if several else None
    )
    ends = [row[end] for row in rows for end in ("low", "high")]
    scale = alt.Scale(type="log", nice=False, domain=_with_room(rows, min(0.97, 0.97 * min(ends)), max(1.02, *ends)))
    # A mark's height of air below each method, unless it has but one mark.
    mark_pixels = OFFSET_PIXELS if len(subject.order) <= MANY_METHODS else CLOSE_OFFSET_PIXELS
    row_pixels = mark_pixels * (len(at) + 1) if several else ROW_PIXELS

    def x(field: str) -> alt.X:
        return alt.X(field, scale=scale, title=f"times as fast as {subject.baseline}", axis=times_axis(ends))

    base = chart_of().encode(
        y=names_y(subject, row_pixels),
        yOffset=alt.YOffset("at:N", sort=at),
        color=alt.Color("at:N", sort=at, scale=alt.Scale(domain=at, range=shades), legend=legend),
    )
    one = alt.Chart(alt.InlineData(values=[{}])).mark_rule(color=colour("quiet"), strokeDash=[3, 3])
    intervals = base.mark_rule(strokeWidth=2).encode(x=x("low:Q"), x2="high:Q")
    shape = alt.Shape("at:N", sort=at, scale=alt.Scale(domain=at, range=shapes), legend=legend)
    tips = tooltip("name", "at", "speedup", "interval", "verdict")
    points = base.mark_point(filled=True, opacity=1, size=46).encode(x=x("speedup:Q"), shape=shape, tooltip=tips)
    labels = (
        base.transform_calculate(text=f"{NARROW} ? datum.short : datum.label")
        .mark_text(align="left", dx=LABEL_GAP_PIXELS, fontWeight=600)
        .encode(x=x("label_at:Q"), text="text:N", color=alt.value(colour("ink")))
    )
    layers = (one.encode(x=alt.datum(1)), intervals, points, labels, names_above(subject, row_pixels))
    return Drawing(sized(alt.layer(*layers), len(subject.order), row_pixels), rows)


def _with_room(rows: Sequence[Mapping[str, Any]], low: float, high: float) -> list[float]:
    """The ends of a logarithmic scale on which every label ends within the plot, on a desk and on a phone."""
    found = [high]
    for key, pixels in (("label", DESK_PIXELS), ("short", PHONE_PIXELS)):
        for row in rows:
            taken = (LABEL_GAP_PIXELS + BOLD_LETTER_PIXELS * len(row[key])) / pixels
            if row[key]:
                found.append(low * (row["label_at"] / low) ** (1 / (1 - taken)))
    return [low, max(found)]


def _speedup_rows(subject: Subject) -> list[dict[str, Any]]:
    """A row for each method and length, and for its mean where there are several lengths; labels at the first."""
    means = {each.name: each.speedup for each in subject.choice.entrants} if len(subject.lengths) > 1 else {}
    rows = [_speedup_row(name, MEAN, ratio) for name, ratio in means.items()]
    for row in packs.pooled(subject.timed):
        ratio = Ratio(row["speedup"], row.get("speedup_low"), row.get("speedup_high"))
        rows.append(_speedup_row(row["name"], str(row["length"]), ratio, row.get("verdict")))
    labelled: set[str] = set()
    failing = {each.name for each in subject.choice.entrants if each.fails_gate}
    for row in rows:
        if row["name"] not in labelled:
            fails = row["name"] in failing
            row["label"] = f"{row['speedup']:.2f}x{', fails the accuracy limit' if fails else ''}"
            row["short"] = f"{row['speedup']:.2f}x{' fails' if fails else ''}"
            # Beyond the interval below too, which is so close that the figure would lie on it.
            below = [each["high"] for each in rows if each["name"] == row["name"]][:2]
            row["label_at"] = max(below)
            labelled.add(row["name"])
    return rows


def _speedup_row(name: str, at: str, ratio: Ratio, verdict: str | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "at": at,
        "speedup": ratio.speedup,
        "low": ratio.speedup if ratio.low is None else ratio.low,
        "high": ratio.speedup if ratio.high is None else ratio.high,
        "interval": interval_text(ratio),
        "verdict": verdict or ratio.verdict or "",
        "label": "",
        "label_at": ratio.speedup,
        "short": "",
    }


def latency(subject: Subject) -> Drawing | None:
    """Median latency over length, and the least time that the machine allowed; by method where there is one length."""
    rows = [
        {
            "name": row["name"],
            "length": row["length"],
            "ms": row["latency_p50_ns"] / 1e6,
            "limit": None if row.get("limit_ns") is None else row["limit_ns"] / 1e6,
            "share": None if row.get("limit_fraction") is None else f"{100 * row['limit_fraction']:.0f} %",
            "latency": figure_text(row["latency_p50_ns"] / 1e6),
        }
        for row in packs.pooled(subject.timed)
        if row.get("latency_p50_ns")
    ]
    if not rows:
        return None
    return _latency_lines(subject, rows) if len(subject.lengths) > 1 else _latency_rows(subject, rows)


def _latency_lines(subject: Subject, rows: list[dict[str, Any]]) -> Drawing:
    x = alt.X(
        "length:Q",
        scale=alt.Scale(type="log", nice=False, padding=18),
        axis=alt.Axis(values=list(subject.lengths), format="d", grid=False),
        title="tokens per text",
    )
    y = alt.Y(
        "ms:Q",
        scale=alt.Scale(type="log", nice=False, padding=14),
        axis=milliseconds_axis([row["ms"] for row in rows]),
        title="ms",
    )
    base = chart_of().encode(x=x, color=method_colour(), detail="name:N")
    others = base.transform_filter("datum.slot < 0").mark_line(strokeWidth=1.2).encode(y=y)
    lines = base.transform_filter("datum.slot >= 0").mark_line(strokeWidth=2.2).encode(y=y)
    tips = tooltip("name", "length", "latency", "share")
    dots = base.transform_filter("datum.slot < 0").mark_point(filled=True, size=18, opacity=1)
    points = base.transform_filter("datum.slot >= 0").mark_point(filled=True, size=44, opacity=1)
    limits = (
        base.transform_filter("datum.slot >= 0 && datum.slot <= 1 && isValid(datum.limit)")
        .mark_line(strokeDash=[2, 4], strokeWidth=1.6)
        .encode(y=alt.Y("limit:Q", title="ms"))
    )
    return Drawing(
        sized(alt.layer(others, dots.encode(y=y, tooltip=tips), limits, lines, points.encode(y=y, tooltip=tips))), rows
    )


def _latency_rows(subject: Subject, rows: list[dict[str, Any]]) -> Drawing:
    y = alt.Y("name:N", sort=list(subject.order), title=None, axis=names_axis())
    most = max(row["ms"] for row in rows)
    base = chart_of().encode(y=y, color=method_colour(legend=False))
    scale = alt.Scale(domain=[0, 1.3 * most], nice=False)  # a phone's bars leave that much to their figures
    title = [f"ms at {subject.lengths[0]} tokens;", "the tick is the machine's limit"]
    x = alt.X("ms:Q", scale=scale, title=title, axis=alt.Axis(tickCount=5))
    bars = base.mark_bar(height=9, opacity=0.85).encode(x=x, tooltip=tooltip("name", "latency", "share"))
    ticks = (
        base.transform_filter("isValid(datum.limit)")
        .mark_tick(thickness=2.5, size=17)
        .encode(x=alt.X("limit:Q", scale=scale, title=title), color=alt.value(colour("ink")))
    )
    label = base.mark_text(align="left", dx=6).encode(x=x, text="latency:N", color=alt.value(colour("ink")))
    return Drawing(sized(alt.layer(bars, ticks, label), len(subject.order)), rows)
