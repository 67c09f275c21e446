"""Colours and type of the report's page and plots: named once, each for light and for dark. Pure.

Plots name colours as CSS variables, so that the page decides which ones they are: light, dark or printed. Pictures,
which have no page around them, get them by `resolved`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Mode = Literal["light", "dark"]

COLOURS: Mapping[str, tuple[str, str]] = {
    "surface": ("#ffffff", "#15181d"),
    "raised": ("#f6f7f9", "#1d2128"),
    "ink": ("#1b1f24", "#e8eaed"),
    "quiet": ("#59626e", "#a3adb9"),
    "line": ("#d5dae0", "#39414c"),
    "faint": ("#e9ecef", "#272d35"),
    "other": ("#b4bcc6", "#56606d"),
    "accent": ("#0b62a8", "#63b3f4"),
    "warn": ("#b3400a", "#ff9d66"),
    # Methods worth a colour: told apart in all common kinds of colour blindness (after Okabe and Ito, 2008), each
    # with a contrast of 3 : 1 or more to its surface. The first is the accent, for what is to be deployed.
    "s0": ("#0b62a8", "#63b3f4"),
    "s1": ("#3a414a", "#dfe3e8"),
    "s2": ("#c4500a", "#ff9d66"),
    "s3": ("#00805c", "#3fcf9f"),
    "s4": ("#b0578f", "#e79ccb"),
    "s5": ("#9a6a00", "#f0bd4a"),
    "s6": ("#3d8fc9", "#9fd8ff"),
    # Lengths, from short to long: one hue, ever darker (lighter on dark).
    "l0": ("#8cbfe8", "#2c5f8a"),
    "l1": ("#66a7db", "#3a76a8"),
    "l2": ("#418dca", "#4a8ec6"),
    "l3": ("#2473b3", "#67a9de"),
    "l4": ("#125a97", "#8dc3f0"),
    "l5": ("#0a4274", "#b7dcfb"),
}
"""By name: in light, in dark. `ink` on `surface` and `quiet` on `raised` keep a contrast of 4.5 : 1 or more."""

SERIES = tuple(name for name in COLOURS if re.fullmatch(r"s\d", name))
"""For methods that have a colour of their own; all others are `other`."""

RAMP = tuple(name for name in COLOURS if re.fullmatch(r"l\d", name))

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
PICTURE_FONT = "Helvetica, Arial, sans-serif"

_VARIABLE = re.compile(r"var\(--([a-z0-9]+)\)")


def colour(name: str) -> str:
    """The CSS variable of a colour; raises KeyError for one that is not in COLOURS."""
    COLOURS[name]
    return f"var(--{name})"


def ramp(steps: int) -> list[str]:
    """So many colours from the first of RAMP to its last; neighbours are alike where there are more than it has."""
    last = len(RAMP) - 1
    return [colour(RAMP[last if steps == 1 else round(last * step / (steps - 1))]) for step in range(steps)]


def variables(mode: Mode) -> str:
    """Declarations of all colours in one mode, for a style sheet."""
    return " ".join(f"--{name}: {value};" for name, value in _values(mode).items())


def resolved(spec: Any, mode: Mode) -> Any:
    """The same specification with each variable's colour in its place."""
    values = _values(mode)
    if isinstance(spec, str):
        return _VARIABLE.sub(lambda found: values[found.group(1)], spec)
    if isinstance(spec, Mapping):
        return {key: resolved(value, mode) for key, value in spec.items()}
    if isinstance(spec, Sequence):
        return [resolved(value, mode) for value in spec]
    return spec


def config(font: str = FONT) -> dict[str, Any]:
    """Vega-Lite's configuration of every plot: thin rules, quiet labels, nothing that is not data in colour."""
    return {
        "background": None,
        "font": font,
        "view": {"stroke": None},
        "axis": {
            "labelColor": colour("quiet"),
            "titleColor": colour("quiet"),
            "gridColor": colour("faint"),
            "domainColor": colour("line"),
            "tickColor": colour("line"),
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 10,
            "labelPadding": 6,
            "labelOverlap": "greedy",
        },
        "axisY": {"labelLimit": 210, "titleAnchor": "end", "titleAngle": 0, "titleAlign": "left", "titleY": -12},
        "legend": {
            "orient": "top",
            "direction": "horizontal",
            "labelColor": colour("ink"),
            "titleColor": colour("quiet"),
            "titleFontWeight": "normal",
            "labelFontSize": 12,
            "titleFontSize": 12,
            "labelLimit": 220,
            "symbolStrokeWidth": 2,
            "padding": 0,
            "offset": 30,
            "columnPadding": 16,
        },
        "title": {
            "color": colour("ink"),
            "subtitleColor": colour("quiet"),
            "anchor": "start",
            "fontSize": 17,
            "subtitleFontSize": 12,
            "offset": 16,
            "subtitlePadding": 6,
        },
        "text": {"color": colour("ink"), "fontSize": 12},
    }


def _values(mode: Mode) -> dict[str, str]:
    return {name: both[("light", "dark").index(mode)] for name, both in COLOURS.items()}
