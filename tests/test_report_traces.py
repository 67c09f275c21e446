"""What the report draws: quantiles, turns, the machine's rounds, where names have room, and colours one can see."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

import pytest
from made_up import speedup_row
from measured import measured_row

from farm import sides
from farm.rates import RATES
from farm.report import traces
from farm.report.chart_parts import times_axis
from farm.report.charts_samples import _usual_range
from farm.report.charts_trust import _RATE_COLOURS
from farm.report.labels import HEIGHT_PIXELS, LETTER_PIXELS, LINE_PIXELS, SIDES, WIDTH_PIXELS, place_labels
from farm.report.numbers import cost_table
from farm.report.theme import COLOURS, SERIES, ramp, resolved
from farm.schemas import MEASUREMENT_SCHEMA
from farm.tables import speedup_table
from tasks import sentinels

MS = 10**6


def _row(rounds: Sequence[Sequence[float]], **changes: Any) -> dict[str, Any]:
    """A measurement row with these latencies in ms, by round."""
    return measured_row("cohort", 0, "fused", 1.0) | {
        "round": [number for number, samples in enumerate(rounds) for _ in samples],
        "latency_ns": [round(each * MS) for samples in rounds for each in samples],
        "tainted": [False for samples in rounds for _ in samples],
        "round_started_unix_ns": [60_000_000_000 * number for number in range(len(rounds))],
        **changes,
    }


def test_a_distribution_keeps_every_call_where_they_are_few() -> None:
    (found,) = traces.distributions([_row([[3, 1], [2, 5], [4, 6]])])
    assert found.latency_ms == (1, 2, 3, 4, 5, 6)
    assert found.shares == (0, 0.2, 0.4, 0.6, 0.8, 1)


def test_a_distribution_of_many_calls_is_thinned_and_keeps_its_ends() -> None:
    (found,) = traces.distributions([_row([[float(at) for at in range(1, 1001)]])])
    assert found.samples == 1000
    assert len(found.latency_ms) == traces.MOST_QUANTILES
    assert (found.latency_ms[0], found.latency_ms[20], found.latency_ms[-1]) == (1, pytest.approx(500.5), 1000)


def test_a_distribution_leaves_disturbed_rounds_out_as_the_speedup_does() -> None:
    rounds = [[1.0, 1.0]] * 4 + [[9.0, 9.0]]
    (found,) = traces.distributions([_row(rounds, tainted=[False] * 8 + [True] * 2)])
    assert max(found.latency_ms) == 1.0
    (few,) = traces.distributions([_row(rounds[2:], tainted=[False] * 4 + [True] * 2)])
    assert max(few.latency_ms) == 9.0, "where too few rounds are left, all of them count"


def test_turns_are_medians_of_rounds_with_their_time_and_their_distance() -> None:
    (found,) = traces.turns([_row([[1, 2, 9], [4, 4, 4], [1, 1, 1]], tainted=[False] * 6 + [True] * 3)])
    assert found.latency_ms == (2, 4, 1)
    assert found.minutes == (0, 1, 2)
    assert found.apart_percent == (0, 100, -50)
    assert found.tainted == (False, False, True)


def test_of_many_rounds_the_first_and_the_last_are_drawn_and_all_are_counted() -> None:
    (found,) = traces.turns([_row([[float(at + 1)] for at in range(500)])])
    assert found.rounds == 500
    assert len(found.minutes) == traces.MOST_ROUNDS
    assert (found.minutes[0], found.minutes[-1]) == (0, 499)


def test_the_twin_is_drawn_beside_its_baseline_and_not_in_distributions() -> None:
    rows = [_row([[1.0]], name="base", role="baseline"), _row([[2.0]], name="base", role="twin")]
    assert [each.role for each in traces.turns(rows)] == ["baseline", "twin"]
    assert [each.latency_ms for each in traces.distributions(rows)] == [(1.0,)]


def test_sentinels_are_told_from_their_replicas_median_and_disturbances_of_any_cell() -> None:
    one = _row([[1], [1], [1]], round_fp32_gflops=[100.0, 110.0, 50.0], round_state=["usual", "usual", "fp32 slower"])
    other = _row([[1], [1], [1]], round_taint_reasons=[[], ["steal"], []])
    found = traces.machine_rounds([one, other])
    assert [each.rates_percent["fp32 products"] for each in found] == [0, 10, -50]
    assert [each.state for each in found] == ["usual", "usual", "fp32 slower"]
    assert [each.disturbed_by for each in found] == [(), ("steal",), ()]


def test_rows_of_an_older_farm_have_turns_without_times() -> None:
    row = _row([[1], [2]], round_started_unix_ns=None, tainted=None)
    assert traces.machine_rounds([row]) == []
    (found,) = traces.turns([row])
    assert found.minutes == (0, 1)


def test_names_of_points_cover_neither_one_another_nor_a_point() -> None:
    names = [f"some-method-{at}" for at in range(9)]
    across = [at / 8 for at in range(9)]
    sides = place_labels(names, [math.exp(at) for at in across], across[::-1])
    assert sum(side is not None for side in sides) >= 6
    boxes = []
    for name, x, side in zip(names, across, sides, strict=True):
        if side is not None:
            where, width = SIDES[side], LETTER_PIXELS * len(name)
            left = x * WIDTH_PIXELS + where.dx - {"left": 0, "right": width, "center": width / 2}[where.align]
            middle = x * HEIGHT_PIXELS + where.dy
            boxes.append((left, middle - LINE_PIXELS / 2, left + width, middle + LINE_PIXELS / 2))
    points = [(x * WIDTH_PIXELS, x * HEIGHT_PIXELS, x * WIDTH_PIXELS, x * HEIGHT_PIXELS) for x in across]
    for one, other in [*itertools.combinations(boxes, 2), *itertools.product(boxes, points)]:
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_a_name_without_room_is_left_out() -> None:
    sides = place_labels(["x" * 60] * 12, [1.0 + at / 1000 for at in range(12)], [0.0] * 12)
    assert None in sides
    assert sides[0] is not None, "the first comes first"


def test_the_names_that_matter_most_always_have_a_place() -> None:
    sides = place_labels(["x" * 60] * 12, [1.0 + at / 1000 for at in range(12)], [0.0] * 12, always=4)
    assert None not in sides[:4]
    assert len(set(sides[:4])) == 4, "none upon another while there is room elsewhere"


def test_a_name_at_the_plots_end_does_not_lie_on_a_rule_or_beyond_the_edge() -> None:
    (side, _) = place_labels(["x" * 20, "y"], [4.0, 1.0], [0.0, 1.0], lines=[-0.1], always=1)
    assert side is not None
    assert not side.startswith(("below", "low", "right"))


def test_one_long_turn_does_not_press_the_drift_of_all_others_into_a_line() -> None:
    low, high = _usual_range([*([-2.0, 0.0, 2.0] * 200), 550.0])
    assert -10 < low < high < 10


def test_ratios_below_one_have_a_tick() -> None:
    assert times_axis([0.57, 5.9])["values"][0] == 0.6
    assert times_axis([0.95, 5.9])["values"][0] == 1


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("mode", [0, 1])
def test_text_and_marks_can_be_told_from_what_they_stand_on(mode: int) -> None:
    """WCAG 2.2: 4.5 : 1 for text, 3 : 1 for what is drawn."""
    for name in ("ink", "quiet", "accent", "warn"):
        for ground in ("surface", "raised"):
            assert _contrast(COLOURS[name][mode], COLOURS[ground][mode]) >= 4.5, (name, ground)
    for name in SERIES:
        assert _contrast(COLOURS[name][mode], COLOURS["surface"][mode]) >= 3, name


def test_a_ramp_runs_from_the_first_colour_to_the_last() -> None:
    assert ramp(1) == ["var(--l5)"]
    assert ramp(2) == ["var(--l0)", "var(--l5)"]
    assert len(ramp(9)) == 9


def test_a_picture_has_colours_instead_of_variables() -> None:
    spec = {"range": ["var(--ink)", "var(--s0)"], "width": 7, "deep": {"text": "say var(--ink)"}}
    assert resolved(spec, "dark") == {
        "range": [COLOURS["ink"][1], COLOURS["s0"][1]],
        "width": 7,
        "deep": {"text": f"say {COLOURS['ink'][1]}"},
    }


def test_every_rate_that_the_sentinel_stores_is_read_by_the_report_and_by_comparisons() -> None:
    stored = {name for name in MEASUREMENT_SCHEMA.names if re.fullmatch(r"round_\w+_(gflops|gops|gbs)", name)}
    assert stored == {rate.column for rate in RATES.values()}
    assert stored <= set(traces.COLUMNS) & set(sides.COLUMNS)
    assert set(_RATE_COLOURS) == set(RATES) == set(sentinels.ORDER)


def test_what_a_gpu_costs_stands_among_the_costs() -> None:
    costs = {"vram_bytes": 512_000_000, "gpu_energy_j_per_call": 0.25, "gpu_power_w": 300.0}
    rows = [speedup_row("pytorch"), speedup_row("quantized") | costs]
    found = cost_table(speedup_table(rows).blocks[0])
    assert {"GPU MB", "GPU mJ per call", "GPU W"} <= set(found.headings)
    (line,) = [line for line in found.lines if line.method == "quantized"]
    assert {"512", "250", "300"} <= set(line.texts)
