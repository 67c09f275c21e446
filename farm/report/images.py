"""Plots as pictures: PNG or SVG of a quality that a paper or a slide can take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import vl_convert

from farm.errors import RequestError
from farm.report.page import VEGA_LITE
from farm.report.theme import PICTURE_FONT, Mode, colour, config, resolved

WIDTH_PIXELS = 760
"""Of the plot's area before scaling: what the page gives it on a desk."""

PIXELS_PER_PIXEL = 2.5
"""Scale of a PNG: some 2,400 pixels in all, sharp on paper at 20 cm."""

FORMATS = ("png", "svg")


def to_image(
    spec: Mapping[str, Any], title: str, subtitle: str | Sequence[str], format: str, mode: Mode = "light"
) -> bytes:
    """A plot's specification as the bytes of a picture, with a title and lines under it.

    Raises RequestError for another format.
    """
    if format not in FORMATS:
        raise RequestError(f"no picture format {format!r}; there are {', '.join(FORMATS)}")
    whole = {
        **spec,
        "title": {"text": title, "subtitle": subtitle if isinstance(subtitle, str) else list(subtitle)},
        "width": WIDTH_PIXELS,
        "padding": 24,
        "config": {**config(PICTURE_FONT), "background": colour("surface")},
    }
    text = json.dumps(resolved(whole, mode))
    if format == "svg":
        return str(vl_convert.vegalite_to_svg(text, vl_version=VEGA_LITE)).encode()
    return bytes(vl_convert.vegalite_to_png(text, scale=PIXELS_PER_PIXEL, vl_version=VEGA_LITE))
