"""What a cell costs is told per call and per method, and when its preparation has paid off."""

from __future__ import annotations

import json
from typing import Any

import pytest
from made_up import speedup_row, speedup_rows
from measured import as_table, measured_row

from farm.costs import break_even_calls
from farm.documents import to_csv, to_html, to_markdown
from farm.rendering import to_text
from farm.speedups import derive_speedups
from farm.tables import speedup_table


def test_preparing_has_paid_off_when_shorter_calls_have_won_back_its_time() -> None:
    assert break_even_calls(10.0, 100e6, 50e6) == 200
    assert break_even_calls(10.0, 100e6, 97e6) == 3334


def test_what_costs_no_more_has_paid_off_at_once() -> None:
    assert break_even_calls(0.0, 100e6, 50e6) == break_even_calls(-3.0, 100e6, 50e6) == 0


@pytest.mark.parametrize("method_ns", [100e6, 120e6])
def test_what_is_not_faster_never_pays_off(method_ns: float) -> None:
    assert break_even_calls(10.0, 100e6, method_ns) is None


def derived(*changes: dict[str, Any], latency_ms: float = 50.0) -> dict[str, Any]:
    """The speedup row of a method with these changes in each replica; the baseline loads in half a second."""
    rows = []
    for replica, change in enumerate(changes):
        rows.append(measured_row("c", replica, "pytorch", 100.0, prepare_s=0.0, load_s=0.5))
        rows.append(measured_row("c", replica, "quantized", latency_ms) | change)
    return derive_speedups(as_table(rows), 0.03).to_pylist()[1]


def test_break_even_is_against_the_baselines_own_preparing_and_loading() -> None:
    assert derived({"prepare_s": 9.0, "load_s": 1.5})["break_even_calls"] == 200


def test_a_difference_within_the_noise_never_pays_off() -> None:
    row = derived({"prepare_s": 9.0}, latency_ms=99.9)
    assert row["latency_p50_ns"] < row["baseline_p50_ns"]
    assert row["break_even_calls"] is None


def test_cpu_time_of_a_call_counts_all_calls_of_a_turn() -> None:
    """Turns of five samples of four calls each."""
    row = derived({"round_cpu_ns": [2_000, 4_000, 40_000], "calls_per_sample": 4})
    assert row["cpu_ns_per_call"] == 200


def test_energy_of_a_call_leaves_the_re_warm_out() -> None:
    """The guards' readings enclose 200 ms, of which the turn took 100."""
    turn = {"round_cpu_ns": [1, 1, 1], "round_turn_ns": [100_000_000] * 3, "round_wall_ns": [200_000_000] * 3}
    assert derived({**turn, "round_energy_j": [20.0, 20.0, 20.0]})["energy_j_per_call"] == pytest.approx(2.0)
    assert derived({**turn, "round_energy_j": [None, 30.0, None]})["energy_j_per_call"] == pytest.approx(3.0)
    assert derived({**turn, "round_energy_j": [None, None, None]})["energy_j_per_call"] is None


def test_rows_of_an_older_farm_have_the_costs_they_have() -> None:
    row = derived({"round_cpu_ns": None, "prepare_steps": None, "warmup_calls": None})
    assert row["cpu_ns_per_call"] is row["energy_j_per_call"] is row["warmup_calls"] is None
    assert row["load_s"] == 0.5


def test_the_steps_shown_are_those_of_the_dearest_preparing() -> None:
    steps = [{"prepare_s": seconds, "prepare_steps": json.dumps({"export": seconds})} for seconds in (1.0, 3.0, 2.0)]
    assert json.loads(derived(*steps)["prepare_steps"]) == {"export": 3.0}


# The table


def costly_rows() -> list[dict[str, Any]]:
    """Two lengths of three methods with every cost known."""
    rows = [
        row
        | {"artifact_bytes": 268_000_000, "prepare_s": 21.4, "load_s": 0.62, "first_call_ns": 9e6 * row["length"]}
        | {"warmup_calls": 12.0, "peak_rss_bytes": 912_000_000, "cpu_ns_per_call": 2e6 * row["length"]}
        | {
            "prepare_steps": json.dumps({"export": 15.0, "fuse": 6.3, "other": 0.1}),
            "limit_fraction": row["length"] / 256,
        }
        for row in speedup_rows(64, 128)
    ]
    payoff = {"quantized": {64: 812, 128: None}, "onnxruntime": {64: 40, 128: 20}}
    return [row | {"break_even_calls": payoff.get(row["name"], {}).get(row["length"])} for row in rows]


def line_of(name: str, text: str, place: int) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(name)][place].split()


def test_costs_stand_in_a_second_summary() -> None:
    text = to_text(speedup_table(costly_rows()))
    assert line_of("quantized", text, 1)[4] == "25-50"
    costs = ["268", "21.4", "0.620", "576-1152", "12", "912", "128-256", "812", "to", "never"]
    assert line_of("quantized", text, 2)[1:] == costs
    assert line_of("onnxruntime", text, 2)[-1] == "20-40"
    assert line_of("pytorch", text, 2)[-1] == "-"
    assert "energy" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_names_are_not_broken_where_a_verdict_can_be() -> None:
    rows = [row | {"name": row["name"].replace("quantized", "openvino-int8-pruned")} for row in costly_rows()]
    text = to_text(speedup_table([row | {"gate": "fail", "accuracy": 0.9} for row in rows]))
    assert sum(line.startswith("openvino-int8-pruned ") for line in text.splitlines()) == 3


def test_no_word_of_a_verdict_is_cut_off_where_every_column_is_at_its_widest() -> None:
    interval = {"accuracy_drop_points": 1.18, "accuracy_drop_low_points": -0.1, "accuracy_drop_high_points": 2.7}
    widest = {"gate": "fail", "accuracy": 0.8732, "accuracy_n": 678, "p_holm": 1e-4, **interval}
    rows = [row | {"name": row["name"].replace("quantized", "pytorch-int8-dynamic")} for row in costly_rows()]
    text = to_text(speedup_table([row | (widest if row["role"] == "candidate" else {}) for row in rows]))
    assert "-1.18 [-2.7, +0.1]" in text
    lines = text.splitlines()
    start = next(line.index("verdict") for line in lines if line.startswith("method"))
    first = next(place for place, line in enumerate(lines) if line.startswith("pytorch-int8-dynamic ") and place > 10)
    words = " ".join(line[start:] for line in lines[first : first + 4]).split()
    assert words == ["faster;", "fails", "the", "accuracy", "limit"]


def test_energy_is_a_column_where_any_row_has_it() -> None:
    text = to_text(speedup_table([row | {"energy_j_per_call": row["length"] / 10} for row in costly_rows()]))
    assert "6.40-12.8" in line_of("quantized", text, 2)
    assert max(map(len, text.splitlines())) <= 100


def test_the_dearest_preparations_are_taken_apart() -> None:
    lines = " ".join(to_text(speedup_table(costly_rows())).split())
    assert "onnxruntime 21.4 s (export 15.0, fuse 6.30)" in lines


def test_that_only_a_processs_first_preparation_includes_imports_is_said_where_lengths_are_compared() -> None:
    said = "Prepare: the first that a process makes includes imports"
    assert said in " ".join(to_text(speedup_table(costly_rows())).split())
    assert said not in to_text(speedup_table([row for row in costly_rows() if row["length"] == 64]))


def test_a_table_without_costs_has_no_summary_of_them() -> None:
    text = to_text(speedup_table([speedup_row("pytorch"), speedup_row("quantized")]))
    assert "prepare" not in text and "Costs" not in text and "limit" not in text


def test_other_formats_have_every_cost() -> None:
    table = speedup_table(costly_rows())
    for page in (to_markdown(table), to_html(table)):
        assert "peak RSS MB" in page and "812 to never" in page and "limit %" in page
    head = to_csv(derive_speedups(as_table([measured_row("c", 0, "pytorch", 1.0)]), 0.03)).splitlines()[0]
    assert {"break_even_calls", "limit_fraction", "energy_j_per_call"} <= set(head.split(","))
