"""The table tells a drop of accuracy with its interval, and says what the limit judged."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from made_up import speedup_row
from measured import RUN, as_table, measured_row, run_record, simulated_cohort

from farm import speedups
from farm.documents import to_html, to_markdown
from farm.numerals import change_text
from farm.parts import CONTENT_KEY
from farm.quality import accuracy_columns
from farm.ratios import AccuracyChange
from farm.rendering import to_text
from farm.schemas import SPEEDUP_SCHEMA
from farm.speedups import derive_speedups
from farm.store import Store
from farm.tables import SpeedupTable, speedup_table

TEXTS = 678
RIGHT = 600


def judged(name: str, lost: int, gained: int, length: int = 64, **changes: Any) -> dict[str, Any]:
    """A row of speedups of a method that loses and gains so many of the baseline's 600 right answers."""
    row = speedup_row(name, length)
    measured = {
        "role": row["role"],
        "accuracy": (RIGHT - lost + gained) / TEXTS,
        "accuracy_n": TEXTS,
        "baseline_right_only": lost,
        "method_right_only": gained,
        "max_drop_points": 0.5,
    }
    baseline = {"accuracy": RIGHT / TEXTS}
    gate = {"gate": "pass" if lost - gained <= 3 else "fail"}
    return row | accuracy_columns(measured, baseline) | gate | changes


def table_of(*rows: dict[str, Any]) -> SpeedupTable:
    """A table of these rows and of a baseline that has 600 of 678 texts right."""
    return speedup_table([judged("pytorch", 0, 0), *rows])


def lines_of(table: SpeedupTable) -> list[str]:
    """The footer's lines that speak of accuracy."""
    return [line for line in table.blocks[0].footer if line.startswith("Accuracy")]


def test_a_change_stands_under_the_accuracy_with_its_paired_interval() -> None:
    text = to_text(table_of(judged("quantized", 14, 6)))
    accuracy = next(line for line in text.splitlines() if line.startswith("quantized") and "87.32" in line)
    below = text.splitlines()[text.splitlines().index(accuracy) + 1]
    assert "-1.18 [-2.7, +0.1]" in below
    assert max(map(len, text.splitlines())) <= 100


def test_a_method_right_on_the_same_texts_has_nothing_under_its_accuracy_and_the_footer_says_why() -> None:
    table = table_of(judged("onnxruntime", 0, 0))
    assert [row.accuracy_change for row in table.blocks[0].rows] == [None, None]
    assert lines_of(table)[0] == (
        "Accuracy on 678 held-out texts at length 64, the baseline's within [85.9, 90.7]; below it the change from the "
        "baseline in points [paired 95 % interval]; none: right on the same texts (+-0.56)."
    )


def test_equally_many_right_answers_on_other_texts_are_a_change_of_nothing_with_an_interval() -> None:
    assert "+0.00 [-1.0, +1.0]" in to_text(table_of(judged("onnxruntime", 4, 4)))


def test_the_limit_is_said_to_judge_the_change_and_names_who_is_not_shown_to_keep_it() -> None:
    table = table_of(judged("onnxruntime", 3, 2), judged("quantized", 14, 6), judged("exact", 0, 0))
    assert lines_of(table)[1] == (
        "Accuracy limit: a drop of 0.5 points, judged by the change itself, not by its interval; reaching beyond it: "
        "onnxruntime."
    )
    verdicts = {row.name: row.verdict for row in table.blocks[0].rows}
    assert verdicts["quantized"].endswith("fails the accuracy limit")
    assert verdicts["onnxruntime"] == "faster"


def test_a_suite_without_a_limit_has_no_line_about_one() -> None:
    row = judged("quantized", 14, 6, gate=None, max_drop_points=None)
    assert not any("limit" in line for line in lines_of(speedup_table([row])))


def test_changes_beyond_chance_are_named_with_their_p_value() -> None:
    table = table_of(judged("onnxruntime", 14, 6), judged("quantized", 20, 4))
    assert lines_of(table)[2] == "Accuracy changed beyond chance, by McNemar's exact test: quantized (p = 0.0015)."
    assert len(lines_of(table_of(judged("onnxruntime", 14, 6)))) == 2


def test_of_lengths_that_differ_the_one_with_the_largest_drop_speaks() -> None:
    table = speedup_table([judged("quantized", 2, 2, 64), judged("quantized", 9, 2, 128)])
    row = table.blocks[0].rows[0]
    assert row.accuracy == pytest.approx((RIGHT - 7) / TEXTS)
    assert row.accuracy_change is not None
    assert row.accuracy_change.points == pytest.approx(-700 / TEXTS)


def test_markdown_and_html_keep_the_change_in_the_accuracys_cell() -> None:
    table = table_of(judged("quantized", 14, 6))
    assert "87.32<br>-1.18 [-2.7, +0.1]" in to_markdown(table)
    assert "87.32<br>-1.18 [-2.7, +0.1]" in to_html(table)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (AccuracyChange(-1.18, -2.71, 0.22), "-1.18 [-2.7, +0.2]"),
        (AccuracyChange(-1.5, -2.9, -0.04), "-1.50 [-2.9, -0.04]"),
        (AccuracyChange(0.2, 0.004, 0.4), "+0.20 [+0.004, +0.4]"),
        (AccuracyChange(-1.62), "-1.62"),
    ],
)
def test_printed_ends_never_hide_that_an_interval_excludes_0(change: AccuracyChange, expected: str) -> None:
    assert change_text(change) == expected


def test_counts_in_measurements_become_intervals_in_speedups() -> None:
    rows = [
        measured_row("c", 0, "pytorch", 100.0, accuracy=RIGHT / TEXTS, baseline_right_only=0, method_right_only=0),
        measured_row("c", 0, "quantized", 50.0, accuracy=592 / TEXTS, baseline_right_only=14, method_right_only=6),
    ]
    table = derive_speedups(as_table(rows), same_within=0.03)
    assert table.schema.equals(SPEEDUP_SCHEMA)
    baseline, quantized = table.to_pylist()
    assert quantized["accuracy_drop_points"] == 100 * 8 / TEXTS
    assert quantized["accuracy_drop_low_points"] < 0 < quantized["accuracy_drop_high_points"]
    assert (quantized["baseline_right_only"], quantized["method_right_only"]) == (14, 6)
    assert baseline["mcnemar_p"] is baseline["accuracy_drop_low_points"] is None
    assert baseline["accuracy_low"] < RIGHT / TEXTS < baseline["accuracy_high"]


def test_a_part_published_before_the_counts_is_read_and_makes_a_table(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    store.write_run(run_record())
    store.publish_replica(RUN, "cpu-b1-l64", 0, simulated_cohort(64, 0))
    part = store.part_path(RUN, "cpu-b1-l64", 0)
    counts = ["baseline_right_only", "method_right_only", "max_drop_points"]
    older = pq.read_table(part, partitioning=None).drop_columns(counts)
    content = hashlib.sha256(json.dumps(older.to_pylist(), sort_keys=True).encode()).hexdigest()
    pq.write_table(older.replace_schema_metadata({CONTENT_KEY: content.encode()}), part)

    assert store.damaged(RUN) == []
    derived = speedups.rebuild(store, RUN)
    text = to_text(speedup_table(derived))
    assert all(0.8 < low < 0.9 for low in derived["accuracy_low"].to_pylist())
    assert "-1.62" in text and "None" not in text
    assert "below it the change from the baseline in points." in " ".join(text.split())
