"""What the report's plots share: the parameters that the page sets, colours of methods, axes, tooltips. Pure.

All plots obey three parameters: `shown` (names of methods), `focus` (those with a colour of their own) and `length`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from farm.numerals import ratio_text
from farm.ratios import Ratio
from farm.report.subject import Subject
from farm.report.theme import SERIES, colour

Chart = alt.LayerChart | alt.Chart | alt.FacetChart

ROWS = "rows"
"""Name of a drawing's rows in its chart."""

ROW_PIXELS = 22
"""Height of a method's row where it has one mark."""

OFFSET_PIXELS, CLOSE_OFFSET_PIXELS, MANY_METHODS = 11, 8, 12
"""Height of each mark where a method's row has several; and where there are more methods than fit a screen so."""

NAME_PIXELS = 20
"""What the page adds to the height of a row on a phone, for a name over it."""

PLOT_PIXELS = 340
"""Height of a plot that is not made of rows."""

NARROW = "containerSize()[0] < 520"
"""On a phone; never in a picture, which stands in no container."""

SHOWN = "indexof(shown, datum.name) >= 0"
"""Keeps what belongs to a method that is shown."""

_STEPS = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
_MOST_TICKS = 7

_CLEARLY_BELOW = 0.9
"""Of 1x: a tick nearer to it would be written upon it."""

_AIR = 0.2
"""Of a row, what stays free below its marks: Vega-Lite's own share."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart, and the rows it is of: kept beside it, for Altair copies and checks whatever is inside at every step."""

    chart: Chart
    rows: Sequence[Mapping[str, Any]]

    def spec(self, subject: Subject) -> dict[str, Any]:
        """The Vega-Lite specification with its rows; colours are variables."""
        found = self.chart.add_params(*_parameters(subject)).to_dict()
        return {**found, "datasets": {**found.get("datasets", {}), ROWS: list(self.rows)}}


def _parameters(subject: Subject) -> list[alt.Parameter]:
    """What the page's controls set."""
    length = subject.lengths[0] if subject.lengths else 0
    return [
        alt.param(name="shown", value=list(subject.order)),
        alt.param(name="focus", value=list(subject.focus)),
        alt.param(name="length", value=length),
    ]


def chart_of(*kept: str) -> alt.Chart:
    """A chart of a drawing's rows for which all expressions hold, of the methods that are shown."""
    chart = alt.Chart(alt.NamedData(name=ROWS))
    for expression in (SHOWN, *kept):
        chart = chart.transform_filter(expression)
    return chart.transform_calculate(slot="indexof(focus, datum.name)")


def method_colour(legend: bool = True) -> alt.Color:
    """A method's own colour, or that of all others; the legend names the methods in focus that are shown."""
    guide = alt.Legend(
        title=None,
        labelExpr="datum.value < 0 ? 'other methods' : focus[datum.value]",
        columns=alt.ExprRef("max(1, floor(width / 190))"),
        values=alt.ExprRef("sequence(0, length(focus))"),
        symbolType="circle",
        symbolOpacity=1,
    )
    scale = alt.Scale(domain=[-1, *range(len(SERIES))], range=[colour("other"), *(colour(name) for name in SERIES)])
    return alt.Color("slot:O", scale=scale, legend=guide if legend else None)


def names_axis() -> alt.Axis:
    """Names of methods, one a row."""
    return alt.Axis(ticks=False, domain=False, labelPadding=10, labelColor=colour("ink"), labelOverlap=False)


def names_y(subject: Subject, row_pixels: int = ROW_PIXELS) -> alt.Y:
    """A row for each method, with its name beside it; on a phone `names_above` writes it over the row."""
    axis = names_axis()
    axis.labelExpr = f"{NARROW} ? '' : datum.label"
    air = f"{NARROW} ? {(NAME_PIXELS + _AIR * row_pixels) / (NAME_PIXELS + row_pixels):.3f} : {_AIR}"
    scale = alt.Scale(type="band", paddingInner=alt.ExprRef(air), paddingOuter=_AIR / 2)
    return alt.Y("name:N", sort=list(subject.order), title=None, axis=axis, scale=scale)


def names_above(subject: Subject, row_pixels: int = ROW_PIXELS) -> alt.Chart:
    """On a phone the name of each method over its row, where it takes nothing from the plot's width."""
    return (
        chart_of(NARROW)
        .transform_aggregate(groupby=["name"])
        .mark_text(align="left", baseline="bottom", dy=-1, fontSize=11.5)
        .encode(y=names_y(subject, row_pixels).bandPosition(0), x=alt.value(0), text="name:N")
    )


def times_axis(values: Sequence[float]) -> alt.Axis:
    """Ratios on a logarithmic scale, with ticks at round ones; one of them below 1x where the values go there."""
    ticks = _ticks([*values, 1.0])
    if min(values) < _CLEARLY_BELOW <= min(ticks):
        ticks = [math.ceil(10 * min(values)) / 10, *ticks]
    return alt.Axis(values=ticks, labelExpr="format(datum.value, '~g') + 'x'")


def milliseconds_axis(values: Sequence[float]) -> alt.Axis:
    """Latencies on a logarithmic scale, with ticks at round ones."""
    return alt.Axis(values=_ticks(values), format="~g")


def interval_text(ratio: Ratio) -> str:
    """`[1.17, 1.25]`."""
    return ratio_text(ratio).partition(" ")[2]


def sized(chart: Chart, rows: int | None = None, row_pixels: int = ROW_PIXELS, methods: bool = True) -> Chart:
    """As wide as the page lets it be; as high as its rows (of methods, which the page may hide), or of usual height."""
    if rows is None:
        return chart.properties(width="container", height=PLOT_PIXELS)
    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    # The page multiplies this by the methods that it shows.
    meta = {"row_pixels": row_pixels} if methods else {}
    return chart.properties(width="container", height=rows * row_pixels, autosize=fit, usermeta=meta)


def tooltip(*fields: str) -> list[alt.Tooltip]:
    """What is shown of a mark under the pointer."""
    return [
        alt.Tooltip(f"{field}:Q", title=_TITLES[field], format=_FORMATS[field])
        if field in _FORMATS
        else alt.Tooltip(f"{field}:N", title=_TITLES[field])
        for field in fields
    ]


def _ticks(values: Sequence[float]) -> list[float]:
    """Round numbers within the values' range, widened to one at least on either side, few enough to be read."""
    low, high = min(values), max(values)
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    for steps in (_STEPS, (1.0, 1.5, 2.0, 3.0, 5.0), (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
        every = [float(f"{step * 10.0**decade:.3g}") for decade in decades for step in steps]
        found = [tick for tick in every if 0.93 * low <= tick <= 1.07 * high]
        if len(found) <= _MOST_TICKS:
            return found
    return found


_TITLES = {
    "name": "method", "at": "tokens", "speedup": "times as fast", "interval": "95 % interval", "verdict": "verdict",
    "length": "tokens", "latency": "median, ms", "share": "of the machine's limit", "accuracy": "accuracy, %",
    "change": "change, points",
    "mb": "MB on disk", "kind": "judged", "what": "step", "took": "seconds", "minutes": "minutes since the start",
    "apart": "% from its median", "state": "state", "reasons": "disturbed by", "ms": "ms",
    "rate": "sentinel",
}  # fmt: skip
_FORMATS = {
    "speedup": ".3f",
    "accuracy": ".2f",
    "change": "+.2f",
    "mb": ".0f",
    "apart": "+.1f",
    "minutes": ".1f",
    "ms": ".4~g",
}
