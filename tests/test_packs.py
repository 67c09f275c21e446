"""Claims about runs whose methods were split into packs, each with a baseline of its own, and of disturbed rounds."""

from __future__ import annotations

import math
from typing import Any

import pytest
from made_up import speedup_row, with_changes

from farm import packs
from farm.choice import choose
from farm.report import charts_found, charts_trust, numbers
from farm.report.answer import Fact, answer
from farm.report.content import report_blocks
from farm.report.subject import Subject, make_subject
from farm.tables import Block, MethodRow, speedup_table

Rows = list[dict[str, Any]]

LENGTHS = (64, 128)
PACKS = {"aa": ("quantized", 25e6), "bb": ("onnxruntime", 100e6)}
"""Cohorts with their method and the median of their baseline. By the methods' names, bb is pack 1."""


def split(**of_first: Any) -> Rows:
    """Two packs at two lengths; `of_first` are changes of all rows of aa at length 64."""
    rows = []
    for length in LENGTHS:
        for cohort, (method, baseline_ns) in PACKS.items():
            seen = {"cohort": f"{cohort}-{length}", "baseline_p50_ns": baseline_ns, "rounds_measured": 30}
            changes = of_first if (cohort, length) == ("aa", 64) else {}
            rows += [
                speedup_row(name, length, **seen | {"latency_p50_ns": ns, "load_s": ns / 1e8, **changes})
                for name, ns in (("pytorch", baseline_ns), ("pytorch~twin", baseline_ns), (method, baseline_ns / 2))
            ]
    return rows


def block_of(rows: Rows) -> Block:
    return speedup_table(rows).blocks[0]


def baseline_of(rows: Rows) -> MethodRow:
    return next(row for row in block_of(rows).rows if row.is_baseline)


def footer_of(rows: Rows) -> str:
    return "\n".join(block_of(rows).footer)


def subject_of(rows: Rows) -> Subject:
    return make_subject(rows, (), 0.03)


def latency_fact(rows: Rows) -> Fact:
    return next(fact for fact in answer(rows, rows, choose(rows), "pytorch").facts if fact.term == "Latency")


def test_the_tables_baseline_is_over_all_packs() -> None:
    found = baseline_of(split())
    assert [entry.latency_ms for entry in found.entries] == pytest.approx([50, 50])
    assert found.figures["load_s"] == pytest.approx((0.625, 0.625))
    assert found.mean is not None and found.mean.speedup == 1


def test_a_percentile_that_one_pack_withholds_is_withheld() -> None:
    entry = baseline_of(with_changes(split(latency_p90_ns=3e7), "pytorch", 128, latency_p90_ns=3e7)).entries
    assert 90 not in entry[0].percentiles_ms and entry[1].percentiles_ms[90] == pytest.approx(30)


def test_a_baseline_without_a_result_in_one_pack_says_so() -> None:
    rows = [
        row | {"status": "failed", "speedup": None, "reasons": ["killed"]}
        if (row["name"], row["cohort"]) == ("pytorch", "bb-128")
        else row
        for row in split()
    ]
    assert [entry.word for entry in baseline_of(rows).entries] == [None, "failed"]


def test_packs_are_counted_once_under_the_table_with_what_a_speedup_is_over() -> None:
    footer = footer_of(split())
    assert footer.count("Measured in 2 packs (1: onnxruntime; 2: quantized) at length 64, 128: each method's") == 1
    one = [row for row in split() if row["cohort"].startswith("aa")]
    assert "pack" not in footer_of(one)


def test_milliseconds_in_the_answer_are_those_the_speedup_is_over() -> None:
    ratios = [[math.log(3) + offset] * 6 for offset in (-0.003, 0.002, 0.0, -0.001, 0.002)]
    faster = {"speedup": 3.0, "log_ratios": ratios, "latency_p50_ns": 33e6}
    found = latency_fact([row | faster if row["name"] == "onnxruntime" else row for row in split()])
    assert found.figure == "33.0 ms"
    assert found.detail == "median at 64 tokens instead of 100 ms; 33.0 ms at 128 instead of 100 ms"


def test_a_baseline_that_stays_has_the_latency_of_all_its_packs() -> None:
    rows = [row | {"speedup": 0.5, "log_ratios": [[math.log(0.5)] * 6] * 5} for row in split()]
    rows = [row | {"speedup": 1.0} if row["role"] == "baseline" else row for row in rows]
    assert latency_fact(rows).figure == "50.0 ms"


def test_the_twin_has_one_figure_for_each_length() -> None:
    apart = split(speedup=1.21, log_ratios=[[math.log(1.21)] * 6] * 5)
    assert "by length 1.100x, 1.000x." in footer_of(apart)


def test_a_twin_that_is_apart_is_named_with_its_pack() -> None:
    ratios = [[0.19 + offset] * 6 for offset in (-0.003, 0.002, 0.0, -0.001, 0.002)]
    rows = split()
    rows = [row | {"log_ratios": ratios} if row["cohort"] == "aa-64" and row["role"] == "twin" else row for row in rows]
    assert "Warning: apart at length 64 (pack 2);" in footer_of(rows)
    doubts = answer(rows, rows, choose(rows), "pytorch").doubts
    assert "The baseline differs from its own twin at length 64 (pack 2)." in doubts


def test_only_the_pack_that_was_too_disturbed_is_named() -> None:
    rows = split(rounds_tainted=20, rounds=10)
    assert "too disturbed at length 64 (pack 2), in over half" in footer_of(rows)
    doubts = answer(rows, rows, choose(rows), "pytorch").doubts
    assert "Over half of the rounds were disturbed at length 64 (pack 2)." in doubts
    everywhere = [row | {"rounds_tainted": 20} for row in rows]
    assert "too disturbed at length 64, 128, in over half" in footer_of(everywhere)


def test_disturbed_rounds_that_count_are_said_to() -> None:
    said = "Disturbed rounds that count, for a replica had fewer than 4 others: at length 64 (pack 2)."
    assert said in footer_of(split(rounds_tainted=28, rounds=30))
    assert "that count" not in footer_of(split(rounds_tainted=20, rounds=10))


@pytest.mark.parametrize(("rounds", "count"), [(30, True), (2, False)])
def test_the_report_says_of_rounds_and_calls_where_disturbed_ones_count(rounds: int, count: bool) -> None:
    rows = split(rounds_tainted=28, rounds=rounds)
    (block,) = report_blocks(rows, (), speedup_table(rows), 0.03)
    readings = {figure.plot.name: figure.plot.reading for figure in block.figures}
    for name in ("rounds", "distribution"):
        assert "where enough others remain" in readings[name]
        assert ("At length 64 (pack 2) fewer than 4 undisturbed" in readings[name]) is count
    assert "undisturbed rounds remained" not in readings["latency"]


def test_the_latency_plot_has_one_point_of_the_baseline_at_each_length() -> None:
    drawing = charts_found.latency(subject_of(split(limit_ns=1e7)))
    assert drawing is not None
    points = [(row["length"], round(row["ms"])) for row in drawing.rows if row["name"] == "pytorch"]
    assert points == [(64, 50), (128, 50)]


def test_the_twin_plot_has_a_row_for_each_pack() -> None:
    drawing = charts_trust.twin(subject_of(split()))
    assert drawing is not None
    named = ["64 (pack 1)", "64 (pack 2)", "128 (pack 1)", "128 (pack 2)"]
    assert [row["length"] for row in drawing.rows] == named
    assert [line.texts[0] for line in numbers.twin_table(subject_of(split())).lines] == named


def test_the_table_of_latencies_pools_the_baseline_and_names_the_pack_of_each_method() -> None:
    table = numbers.latency_table(subject_of(split()))
    assert table.headings[2] == "pack"
    packs_of = [line.texts[:3] for line in table.lines if line.texts[1] == "64"]
    assert sorted(packs_of) == [("onnxruntime", "64", "1"), ("pytorch", "64", "all"), ("quantized", "64", "2")]


def test_packs_of_the_same_methods_have_the_same_number_at_every_length() -> None:
    rows = [row | {"cohort": f"{'zz' if row['cohort'] == 'bb-128' else ''}{row['cohort']}"} for row in split()]
    assert packs.pack_numbers(rows) == {"bb-64": 1, "aa-64": 2, "zzbb-128": 1, "aa-128": 2}
