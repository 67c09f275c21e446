"""Where the names of points in a plot have room: a greedy placement on a plot of the usual size. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

WIDTH_PIXELS, HEIGHT_PIXELS = 620, 280
"""What a plot's points are spread over where there is room to name them: its usual size on a desk, padding left out."""

LETTER_PIXELS, LINE_PIXELS = 6.4, 15
"""Mean width of a letter and height of a line at the size of the names, with a little air."""

POINT_PIXELS = 13
"""Half the width of a usual circle: a name does not stand on another's."""

NARROW_PIXELS = 190
"""What is left of the width on a phone."""

PADDING_PIXELS = 60
"""What a plot leaves free to the left and right of its points, so that names at its ends have room."""


@dataclass(frozen=True, slots=True)
class Side:
    """Where a name stands beside its point, in Vega's words and pixels."""

    align: Literal["left", "center", "right"]
    dx: float
    dy: float


SIDES: Mapping[str, Side] = {
    "right": Side("left", 18, 0),
    "left": Side("right", -18, 0),
    "above": Side("center", 0, -22),
    "below": Side("center", 0, 23),
    "above-left": Side("right", 14, -22),
    "above-right": Side("left", -14, -22),
    "below-left": Side("right", 14, 23),
    "below-right": Side("left", -14, 23),
    "high-left": Side("right", 14, -38),
    "high-right": Side("left", -14, -38),
    "low-left": Side("right", 14, 39),
    "low-right": Side("left", -14, 39),
}
"""In the order of preference: beside the point, over or under it, and a line further off."""

NEAR = tuple(SIDES)[:8]
"""For names that may as well be left out: further off they might be taken for another's."""

_MARGIN = PADDING_PIXELS - 4

Box = tuple[float, float, float, float]


def place_labels(
    names: Sequence[str],
    speeds: Sequence[float],
    heights: Sequence[float],
    others: Sequence[float] = (),
    *,
    ends: Sequence[float] = (),
    lines: Sequence[float] = (),
    always: int = 0,
    width: float = WIDTH_PIXELS,
) -> list[str | None]:
    """For each point, first come first served, the side on which its name fits; None where there is no room.

    `speeds` are drawn on a logarithmic scale from left to right over `width` pixels that has room for the `ends`,
    `heights` on a linear one upwards that has room for the `others` and for rules at the `lines`. The first `always`
    names are placed whatever they cover, as little as can be, a line further off if need be.
    """
    across = _spread([math.log(speed) for speed in speeds], width, [math.log(end) for end in ends])
    down = [HEIGHT_PIXELS - at for at in _spread([*heights, *lines], HEIGHT_PIXELS, others)]
    points = list(zip(across, down[: len(names)], strict=True))
    circles = [(x - POINT_PIXELS, y - POINT_PIXELS, x + POINT_PIXELS, y + POINT_PIXELS) for x, y in points]
    rules = [(0.0, y - 2, width, y + 2) for y in down[len(names) :]]
    written: list[Box] = []
    sides: list[str | None] = []
    for place, name in enumerate(names):
        around = [*circles[:place], *circles[place + 1 :], *rules]
        covered = {}
        for side in SIDES if place < always else NEAR:
            box = _box(side, name, points[place])
            covered[side] = _outside(box, width) + _shared(box, around) + _NAME_WEIGHT * _shared(box, written)
        least = min(covered, key=lambda side: covered[side])
        if place < always or covered[least] == 0:
            sides.append(least)
            written.append(_box(least, name, points[place]))
        else:
            sides.append(None)
    return sides


_NAME_WEIGHT, _EDGE_WEIGHT = 5, 20
"""Against a pixel on a circle: one on another name, which makes both unreadable, and one cut off by the plot's end."""


def _spread(values: Sequence[float], pixels: float, others: Sequence[float] = ()) -> list[float]:
    low, high = min([*values, *others]), max([*values, *others])
    return [pixels * (value - low) / (high - low) if high > low else pixels / 2 for value in values]


def _box(side: str, name: str, point: tuple[float, float]) -> Box:
    where, width = SIDES[side], LETTER_PIXELS * len(name)
    x, y = point[0] + where.dx, point[1] + where.dy
    left = {"left": x, "right": x - width, "center": x - width / 2}[where.align]
    return left, y - LINE_PIXELS / 2, left + width, y + LINE_PIXELS / 2


def _outside(box: Box, width: float) -> float:
    """What of the box is beyond the plot, by its weight."""
    return _EDGE_WEIGHT * LINE_PIXELS * (max(0.0, -_MARGIN - box[0]) + max(0.0, box[2] - width - _MARGIN))


def _shared(box: Box, others: Sequence[Box]) -> float:
    """Square pixels of the others under the box."""
    across = (max(0.0, min(box[2], other[2]) - max(box[0], other[0])) for other in others)
    down = (max(0.0, min(box[3], other[3]) - max(box[1], other[1])) for other in others)
    return sum(a * d for a, d in zip(across, down, strict=True))
