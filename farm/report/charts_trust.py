"""The plots of what to trust: the A/A twin, and what sentinels and guards read; and of what starting costs. Pure.

Each takes a Subject and returns a drawing, or None where there is nothing to draw.
"""

from __future__ import annotations

from typing import Any

import altair as alt

from farm import packs
from farm.figures import figures_of
from farm.numerals import figure_text
from farm.rates import RATES
from farm.ratios import Ratio
from farm.report import traces
from farm.report.chart_parts import (
    NARROW,
    ROWS,
    Drawing,
    chart_of,
    interval_text,
    milliseconds_axis,
    names_above,
    names_y,
    sized,
    tooltip,
)
from farm.report.subject import Subject
from farm.report.theme import colour
from tasks.sentinels import STATE_CHANGE

MOST_MACHINE_ROUNDS = 400
"""Rounds whose sentinel is drawn: four rates each, and a plot of 700 pixels shows no more."""

_STEPS = {"prepare": ("prepare_s", 1.0), "load": ("load_s", 1.0), "first call": ("first_call_ns", 1e9)}


def twin(subject: Subject) -> Drawing | None:
    """The baseline against itself: how far two equal processes came out apart."""
    rows = [
        {
            # Each pack has a twin of its own, and its own row in the plot.
            "length": packs.lengths_text([row], subject.rows),
            "speedup": row["speedup"],
            "low": row["speedup_low"],
            "high": row["speedup_high"],
            "interval": interval_text(Ratio(row["speedup"], row["speedup_low"], row["speedup_high"])),
        }
        for row in packs.in_order(subject.rows)
        if row.get("role") == "twin" and row.get("speedup") is not None and row.get("speedup_low") is not None
    ]
    if not rows:
        return None
    margin = 1 + subject.same_within
    ends = [1 / margin, margin, *(row[end] for row in rows for end in ("low", "high"))]
    scale = alt.Scale(domain=[min(ends) - 0.01, max(ends) + 0.01], nice=False)
    title = "times as fast as itself"
    band = alt.Chart(alt.InlineData(values=[{"from": 1 / margin, "to": margin}])).mark_rect(color=colour("faint"))
    band = band.encode(x=alt.X("from:Q", scale=scale, title=title, axis=alt.Axis(tickCount=7)), x2="to:Q")
    rule = alt.Chart(alt.InlineData(values=[{}])).mark_rule(color=colour("quiet"), strokeDash=[3, 3])
    base = alt.Chart(alt.NamedData(name=ROWS)).encode(
        y=alt.Y("length:N", sort=[row["length"] for row in rows], title="tokens")
    )
    interval = base.mark_rule(strokeWidth=2, color=colour("s1")).encode(x=alt.X("low:Q", scale=scale), x2="high:Q")
    points = base.mark_point(filled=True, size=60, opacity=1, color=colour("s1")).encode(
        x=alt.X("speedup:Q", scale=scale), tooltip=tooltip("length", "interval")
    )
    return Drawing(
        sized(alt.layer(band, rule.encode(x=alt.datum(1)), interval, points), len(rows), methods=False), rows
    )


_RATE_COLOURS = {
    "fp32": "s0",
    "bf16": "s2",
    "tf32": "s1",
    "fp16": "s4",
    "fp8": "s6",
    "int8": "s3",
    "memory": "s5",
}


def sentinels(subject: Subject) -> Drawing | None:
    """The sentinel's rates over time, and the rounds in which a guard saw a disturbance."""
    every = subject.machine
    drawn = traces.thinned(every, MOST_MACHINE_ROUNDS)
    rates = [
        {"minutes": each.minutes, "rate": rate, "apart": percent, "state": each.state or "unknown"}
        for each in drawn
        for rate, percent in each.rates_percent.items()
    ]
    disturbed = [
        {"minutes": each.minutes, "reasons": ", ".join(each.disturbed_by)} for each in every if each.disturbed_by
    ]
    if not rates:
        return None
    x = alt.X(
        "minutes:Q",
        title="minutes since the first round",
        axis=alt.Axis(tickCount=8),
        scale=alt.Scale(nice=False, padding=8),
    )
    y = alt.Y("apart:Q", title="% from its own median", axis=alt.Axis(format="+d"))
    shown = {rate["rate"] for rate in rates}
    read = [name for name, rate in RATES.items() if rate.what in shown]
    names, shades = [RATES[name].what for name in read], [colour(_RATE_COLOURS[name]) for name in read]
    legend = alt.Legend(title=None, columns=alt.ExprRef(f"{NARROW} ? 2 : 4"))
    points = (
        alt.Chart(alt.NamedData(name=ROWS))
        .mark_point(filled=True, size=24, opacity=0.75)
        .encode(
            x=x,
            y=y,
            color=alt.Color("rate:N", sort=names, scale=alt.Scale(domain=names, range=shades), legend=legend),
            shape=alt.Shape("rate:N", sort=names, scale=alt.Scale(domain=names), legend=legend),
            tooltip=tooltip("rate", "minutes", "apart", "state"),
        )
    )
    bounds = [{"apart": sign * 100 * STATE_CHANGE} for sign in (-1, 1)]
    limits = alt.Chart(alt.InlineData(values=bounds)).mark_rule(color=colour("quiet"), strokeDash=[3, 3]).encode(y=y)
    marks = (
        alt.Chart(alt.InlineData(values=disturbed))
        .mark_rule(color=colour("warn"), opacity=0.35)
        .encode(x=x, tooltip=tooltip("minutes", "reasons"))
    )
    return Drawing(sized(alt.layer(*([marks] if disturbed else []), limits, points)), rates)


def start(subject: Subject) -> Drawing | None:
    """Seconds before the first answer: preparing, loading, and the first call."""
    rows: list[dict[str, Any]] = []
    timed = packs.pooled(subject.timed)
    for name in subject.order:
        figures = figures_of([row for row in timed if row["name"] == name])
        for what, (column, unit) in _STEPS.items():
            if column in figures:
                seconds = figures[column][1] / unit
                if seconds > 0:  # the scale is logarithmic
                    rows.append({"name": name, "what": what, "seconds": seconds, "took": figure_text(seconds)})
    if not rows:
        return None
    whats = list(_STEPS)
    shades = [colour("l2"), colour("l5"), colour("s2")]
    legend = alt.Legend(title=None, columns=alt.ExprRef("max(1, floor(width / 90))"))
    # Preparing takes a hundred times as long as loading: on a linear scale nothing else would be seen.
    title = "seconds (preparing is done once, and cached)"
    scale = alt.Scale(type="log", nice=False, padding=10)
    x = alt.X("seconds:Q", title=title, axis=milliseconds_axis([row["seconds"] for row in rows]), scale=scale)
    base = chart_of().encode(y=names_y(subject))
    spans = base.mark_line(strokeWidth=1.2, color=colour("line")).encode(x=x, detail="name:N")
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        x=x,
        color=alt.Color("what:N", sort=whats, scale=alt.Scale(domain=whats, range=shades), legend=legend),
        shape=alt.Shape("what:N", sort=whats, scale=alt.Scale(domain=whats), legend=legend),
        tooltip=tooltip("name", "what", "took"),
    )
    return Drawing(sized(alt.layer(spans, points, names_above(subject)), len(subject.order)), rows)
