"""How a speedup, a latency and a change are written: few digits, and never one that belies what an interval says."""

from __future__ import annotations

from farm.ratios import AccuracyChange, Ratio


def ratio_text(ratio: Ratio) -> str:
    """A speedup as `1.23x [1.20, 1.26]`; an end gets more digits where rounding to 1.00 would belie the verdict."""
    if ratio.low is None or ratio.high is None:
        return f"{factor_text(ratio.speedup)}x"
    return f"{factor_text(ratio.speedup)}x [{end_text(ratio.low)}, {end_text(ratio.high)}]"


def change_text(change: AccuracyChange) -> str:
    """A change of accuracy in points as `-1.18 [-2.4, +0.1]`; an end gets more digits where one would make it 0."""
    if change.low is None or change.high is None:
        return f"{change.points:+.2f}"
    return f"{change.points:+.2f} [{_points_end(change.low)}, {_points_end(change.high)}]"


def milliseconds_text(latency_ms: float) -> str:
    """Three significant digits: 1234, 506, 89.1, 8.92, 0.892."""
    return f"{figure_text(latency_ms)} ms"


def figure_text(value: float) -> str:
    """A quantity with three significant digits, without an exponent and never more than three decimals; 0 is `0`."""
    if value == 0:
        return "0"
    decimals = next((places for limit, places in ((100, 0), (10, 1), (1, 2)) if value >= limit), 3)
    return f"{value:.{decimals}f}"


def grouped_text(value: float) -> str:
    """Rounded to a whole number, its digits in groups of three, between which no line is broken."""
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def factor_text(ratio: float) -> str:
    """How many times: `1.23`, `12.3`, `123`."""
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}" if ratio < 100 else f"{ratio:.0f}"


def end_text(value: float) -> str:
    """An end of an interval of ratios; it gets more digits where rounding to 1.00 would belie the verdict."""
    shown = [factor_text(value), f"{value:.3f}", f"{value:.4f}"]
    return next((text for text in shown if float(text) != 1), "1.00")


def _points_end(value: float) -> str:
    shown = [f"{value:+.{digits}f}" for digits in (1, 2, 3)]
    return next((text for text in shown if float(text) != 0), "0.0")
