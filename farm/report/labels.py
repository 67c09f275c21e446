"""Where the names of points in a plot have room: a greedy placement on a plot of the usual size. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

WIDTH_PIXELS, HEIGHT_PIXELS = 720, 280
"""What a plot's points are spread over where there is room to name them: its usual size on a desk, padding left out."""

LETTER_PIXELS, LINE_PIXELS = 6.4, 15
"""Mean width of a letter and height of a line at the size of the names, with a little air."""

POINT_PIXELS = 13
"""Half the width of a usual circle: a name does not stand on another's."""


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
}

Box = tuple[float, float, float, float]


def place_labels(
    names: Sequence[str], speeds: Sequence[float], heights: Sequence[float], others: Sequence[float] = ()
) -> list[str | None]:
    """For each point, first come first served, the side on which its name fits; None where there is no room.

    `speeds` are drawn on a logarithmic scale from left to right, `heights` on a linear one upwards that has room for
    the `others` too.
    """
    across = _spread([math.log(speed) for speed in speeds], WIDTH_PIXELS)
    down = [HEIGHT_PIXELS - at for at in _spread(heights, HEIGHT_PIXELS, others)]
    points = list(zip(across, down, strict=True))
    taken = [(x - POINT_PIXELS, y - POINT_PIXELS, x + POINT_PIXELS, y + POINT_PIXELS) for x, y in points]
    sides: list[str | None] = []
    for place, name in enumerate(names):
        boxes = taken[:place] + taken[place + 1 :]
        free = [side for side in SIDES if _fits(_box(side, name, points[place]), boxes)]
        sides.append(free[0] if free else None)
        if free:
            taken.append(_box(free[0], name, points[place]))
    return sides


def _spread(values: Sequence[float], pixels: float, others: Sequence[float] = ()) -> list[float]:
    low, high = min([*values, *others]), max([*values, *others])
    return [pixels * (value - low) / (high - low) if high > low else pixels / 2 for value in values]


def _box(side: str, name: str, point: tuple[float, float]) -> Box:
    where, width = SIDES[side], LETTER_PIXELS * len(name)
    x, y = point[0] + where.dx, point[1] + where.dy
    left = {"left": x, "right": x - width, "center": x - width / 2}[where.align]
    return left, y - LINE_PIXELS / 2, left + width, y + LINE_PIXELS / 2


def _fits(box: Box, others: Sequence[Box]) -> bool:
    margin = 26  # what the axes leave beside the outermost points
    inside = box[0] >= -margin and box[2] <= WIDTH_PIXELS + margin
    return inside and not any(
        box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in others
    )
