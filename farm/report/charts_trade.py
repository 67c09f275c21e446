"""The plot of what speed costs: accuracy and size, with the Pareto front and the accuracy limit. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from farm.choice import Entrant, pareto_front
from farm.report.chart_parts import NARROW, Drawing, chart_of, sized, times_axis, tooltip
from farm.report.labels import LETTER_PIXELS, NARROW_PIXELS, PADDING_PIXELS, SIDES, WIDTH_PIXELS, place_labels
from farm.report.subject import Subject
from farm.report.theme import colour

KINDS = ("on the Pareto front", "beaten by another", "fails the accuracy limit")
"""What the trade-off says of a method."""


def trade_off(subject: Subject) -> Drawing | None:
    """Speed against the change of accuracy (or size, where nobody measured it), circles as large as the artifact."""
    rows = trade_off_rows(subject)
    accurate = all(row["accuracy"] is not None for row in rows)
    sizes_known = all(row["mb"] is not None for row in rows)
    if len(rows) < 2 or not (accurate or sizes_known):
        return None
    field = "change" if accurate else "mb"
    place_names(rows, field, _limits(subject) if accurate else [])
    axes = _axes(subject, rows, field)
    layers = [*(_accuracy_layers(subject, axes) if accurate else ()), _circles(axes, sizes_known), *_names(axes)]
    return Drawing(sized(alt.layer(*layers)), rows)


@dataclass(frozen=True, slots=True)
class _Axes:
    """How speeds lie across and what is compared with them upwards, by the name of a field."""

    x: Callable[[str], alt.X]
    y: Callable[[str], alt.Y]
    field: str

    @property
    def point(self) -> dict[str, Any]:
        """Where a method's circle lies."""
        return {"x": self.x("speedup"), "y": self.y(self.field)}


def _axes(subject: Subject, rows: Sequence[Mapping[str, Any]], field: str) -> _Axes:
    times = times_axis([end for row in rows for end in (row["low"], row["high"])])
    speeds = alt.Scale(type="log", nice=False, padding=PADDING_PIXELS)
    heights = alt.Scale(zero=False, nice=False, padding=22)
    titles = {"change": f"accuracy, points from {subject.baseline}", "mb": "MB on disk"}
    axis = alt.Axis(tickCount=6, format="+~f" if field == "change" else "d")
    return _Axes(
        x=lambda name: alt.X(f"{name}:Q", scale=speeds, axis=times, title=f"times as fast as {subject.baseline}"),
        y=lambda name: alt.Y(f"{name}:Q", scale=heights, axis=axis, title=titles[field]),
        field=field,
    )


def trade_off_rows(subject: Subject) -> list[dict[str, Any]]:
    """A row for each method that is measured at every length: its speed, accuracy and size, and how it fares."""
    entrants = subject.choice.entrants
    front = pareto_front(entrants)
    rows = [_row(each, _kind(each, front)) for each in entrants]
    for row in rows:
        row["first"] = row["name"] == subject.winner or row["kind"] == KINDS[0]
    # What matters most is named first, while there is room: what to deploy, the front, the baseline.
    return sorted(
        rows,
        key=lambda row: (
            row["name"] != subject.winner,
            not row["first"],
            row["name"] != subject.baseline,
            -row["speedup"],
        ),
    )


def place_names(rows: list[dict[str, Any]], field: str, limits: Sequence[float] = ()) -> None:
    """Note in each row the side of its circle on which its name has room, when drawn by speed and this field.

    Those that matter most (`first`) always have a side, at the usual width and on a phone, where no other has one.
    """
    names, speeds, heights = ([row[key] for row in rows] for key in ("name", "speedup", field))
    intervals = field == "change"
    changes = [row[end] for row in rows for end in ("change_low", "change_high") if intervals]
    ends = [row[end] for row in rows for end in ("low", "high") if intervals]
    first = sum(row["first"] for row in rows)
    for key, width in (("side", WIDTH_PIXELS), ("narrow_side", NARROW_PIXELS)):
        shown = names if key == "side" else [name[: int(MOST_PIXELS / LETTER_PIXELS)] for name in names]
        sides = place_labels(shown, speeds, heights, changes, ends=ends, lines=limits, always=first, width=width)
        for row, side in zip(rows, sides, strict=True):
            row[key] = side if key == "side" or row["first"] else None


def _row(entrant: Entrant, kind: str) -> dict[str, Any]:
    speedup, change = entrant.speedup, entrant.accuracy_change
    points = change.points if change else 0.0
    return {
        "name": entrant.name,
        "speedup": speedup.speedup,
        "low": speedup.speedup if speedup.low is None else speedup.low,
        "high": speedup.speedup if speedup.high is None else speedup.high,
        "accuracy": None if entrant.accuracy is None else 100 * entrant.accuracy,
        "change": points,
        "change_low": points if change is None or change.low is None else change.low,
        "change_high": points if change is None or change.high is None else change.high,
        "mb": None if entrant.artifact_bytes is None else entrant.artifact_bytes / 1e6,
        "kind": kind,
    }


def _kind(entrant: Entrant, front: tuple[str, ...]) -> str:
    return KINDS[2] if entrant.fails_gate else KINDS[0] if entrant.name in front else KINDS[1]


def _accuracy_layers(subject: Subject, axes: _Axes) -> list[alt.Chart]:
    """The intervals of both, quietly, and the suite's limit."""
    base = chart_of().mark_rule(color=colour("line"), strokeWidth=1.2)
    layers = [
        base.encode(x=axes.x("speedup"), y=axes.y("change_low"), y2="change_high:Q"),
        base.encode(x=axes.x("low"), x2="high:Q", y=axes.y("change")),
    ]
    for change in _limits(subject):
        limit = alt.Chart(alt.InlineData(values=[{"change": change, "text": "accuracy limit"}]))
        rule = limit.mark_rule(color=colour("warn"), strokeDash=[4, 3]).encode(y=axes.y("change"))
        text = limit.mark_text(align="left", dx=4, dy=9, color=colour("warn"), fontSize=11.5)
        layers += [rule, text.encode(x=alt.value(0), y=axes.y("change"), text="text:N")]
    return layers


def _limits(subject: Subject) -> list[float]:
    """The suite's limit as a change in points; empty where it sets none."""
    return [-row["max_drop_points"] for row in subject.rows if row.get("max_drop_points") is not None][:1]


def _circles(axes: _Axes, sizes_known: bool) -> alt.Chart:
    shade = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=list(KINDS), range=[colour("accent"), colour("other"), colour("warn")]),
        legend=alt.Legend(title=None, symbolType="circle", columns=alt.ExprRef(f"{NARROW} ? 1 : 3")),
    )
    tips = tooltip("name", "speedup", "accuracy", "change", "mb", "kind")
    base = chart_of().mark_point(filled=True, opacity=0.7, strokeWidth=1.5)
    circles = base.encode(**axes.point, color=shade, tooltip=tips)
    size = alt.Size("mb:Q", scale=alt.Scale(type="sqrt", range=[0, 620], domainMin=0), legend=None)
    return circles.encode(size=size) if sizes_known else circles


MOST_PIXELS = 170
"""Of a phone's width for one name; the rest of a longer one is left out there."""

_LIMIT = alt.ExprRef(f"{NARROW} ? {MOST_PIXELS} : 0")
_NAME_WEIGHT = alt.ExprRef("datum.first ? 600 : 400")


def _names(axes: _Axes) -> list[alt.Chart]:
    """Names where they have room; on a phone only those that matter most."""
    named = chart_of().transform_calculate(stands=f"{NARROW} ? datum.narrow_side : datum.side")
    return [
        named.transform_filter(f"datum.stands === '{side}'")
        .mark_text(align=place.align, dx=place.dx, dy=place.dy, fontSize=11.5, fontWeight=_NAME_WEIGHT, limit=_LIMIT)
        .encode(**axes.point, text="name:N")
        for side, place in SIDES.items()
    ]
