"""Claims about the lines under a table: each stands there when there is something to say, and only then."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from made_up import FEWEST_COLUMNS, speedup_row, speedup_rows, state, with_changes

from farm import documents
from farm.documents import to_csv, to_html, to_markdown
from farm.rendering import to_text
from farm.schemas import SPEEDUP_SCHEMA
from farm.tables import SpeedupTable, speedup_table

Rows = Sequence[dict[str, Any]]


def footer_of(rows: Rows, effort: str | None = "standard") -> str:
    """The lines under the only block."""
    return "\n".join(speedup_table(rows, effort=effort).blocks[0].footer)


def spread(shift: float, deviation: float) -> list[list[float]]:
    """Log ratios of five replicas of four rounds, their means around `shift` with this standard deviation."""
    return [[shift + deviation * offset] * 4 for offset in (-1.2649, -0.6325, 0.0, 0.6325, 1.2649)]


def everything() -> list[dict[str, Any]]:
    """Four lengths with three methods, and something of every kind to say."""
    states = [state("usual", 48, 2.4), state("bf16 slower", 12, 1.9)]
    changes = {"accuracy": 0.9, "accuracy_n": 678, "artifact_bytes": 268_000_000}
    rows = [
        speedup_row(name, length, p_value=1e-5, p_holm=1e-4, rounds_tainted=0, resolved=True, **changes)
        for length in (64, 128, 256, 512)
        for name in ("pytorch", "pytorch~twin", "torchscript", "onnxruntime", "quantized")
    ]
    for row in rows:
        row["reasons"] = ["not steady when timing began"] if row["length"] > 128 else []
        if row["length"] == 64:
            row |= {"rounds_tainted": 14, "taint_reasons": ["steal", "foreign-cpu"]}
        if row["name"] == "quantized":
            row |= {"accuracy": 0.87, "accuracy_drop_points": 3.0, "gate": "fail"}
    rows = with_changes(rows, "torchscript", 64, resolved=False)
    rows = with_changes(rows, "torchscript", 512, resolved=False, verdict="unclear", p_value=0.3, p_holm=0.6)
    rows = with_changes(rows, "onnxruntime", 64, resolved=False, speedup_all_rounds=1.91, p_value=0.02, p_holm=0.1)
    rows = with_changes(rows, "onnxruntime", 256, states=[state("usual", 48, 1.4), state("bf16 slower", 12, 1.39)])
    rows = with_changes(rows, "quantized", 256, states=states)
    return with_changes(rows, "quantized", 128, bootstrap_low=1.7, bootstrap_high=2.1, bootstrap_agrees=False)


def test_a_sound_table_has_no_caveats() -> None:
    assert footer_of(speedup_rows(64)).splitlines()[0].endswith("Equal within the noise, as it should be.")
    assert footer_of(speedup_rows(64)).splitlines()[1].startswith("Means over length 64")


@pytest.mark.parametrize("write", [to_text, to_markdown, to_html])
def test_rows_without_guards_and_sentinels_print(write: Callable[[SpeedupTable], str]) -> None:
    rows = [{name: row[name] for name in FEWEST_COLUMNS} for row in speedup_rows(64, 128)]
    text = write(speedup_table(rows, effort="standard"))
    assert not any(word in text for word in ("Unresolved", "disturbed", "state", "ootstrap", "Holm", "None"))


def test_a_twin_apart_from_its_baseline_is_a_warning() -> None:
    rows = with_changes(speedup_rows(64, 128), "pytorch~twin", 128, speedup=1.1, log_ratios=spread(0.1, 0.01))
    assert "Warning: apart at length 128; do not trust differences of this size." in footer_of(rows)


def test_a_twin_is_judged_together_with_those_of_other_blocks() -> None:
    # On its own p = 0.03; one of five, 0.15.
    apart = {"speedup": 1.05, "log_ratios": spread(0.05, 0.033)}
    alone = with_changes(speedup_rows(64), "pytorch~twin", 64, **apart)
    others = [row | {"batch_size": 8} for row in speedup_rows(64, 128, 256, 512)]
    assert "Warning: apart at length 64" in footer_of(alone)
    together = footer_of([*alone, *others])
    assert "Warning" not in together
    assert "Its interval leaves 1 out, as chance alone makes one in 20 do" in together
    assert "Equal within the noise" not in together


def test_once_a_twin_is_apart_the_next_is_judged_among_the_rest() -> None:
    # p < 0.001 and p = 0.03: the second counts twice in Bonferroni's rule and once in Holm's.
    rows = with_changes(speedup_rows(64, 128), "pytorch~twin", 64, speedup=1.2, log_ratios=spread(0.2, 0.02))
    rows = with_changes(rows, "pytorch~twin", 128, speedup=1.05, log_ratios=spread(0.05, 0.033))
    assert "Warning: apart at length 64, 128" in footer_of(rows)


@pytest.mark.parametrize(("effort", "aim"), [("standard", "2 %"), ("rigorous", "1 %")])
def test_unresolved_cells_are_named_with_what_their_effort_aims_at(effort: str, aim: str) -> None:
    rows = with_changes(speedup_rows(64, 512), "quantized", 64, resolved=False)
    rows = with_changes(rows, "quantized", 512, resolved=False)
    rows = with_changes(rows, "onnxruntime", 64, resolved=False)
    line = f"Unresolved (interval wider than {aim} either way, the aim of {effort}): "
    assert f"{line}onnxruntime (64); quantized (64, 512)." in footer_of(rows, effort)


@pytest.mark.parametrize(("effort", "resolved"), [("quick", False), (None, False), ("standard", True)])
def test_nothing_else_is_called_unresolved(effort: str | None, resolved: bool) -> None:
    assert "Unresolved" not in footer_of(with_changes(speedup_rows(64), "quantized", 64, resolved=resolved), effort)


def test_a_twin_is_not_called_unresolved() -> None:
    assert "Unresolved" not in footer_of(with_changes(speedup_rows(64), "pytorch~twin", 64, resolved=False))


def disturbed(tainted: int, *reasons: str, rounds: int = 30) -> list[dict[str, Any]]:
    """Two lengths of 30 sound rounds; at length 64 some more were disturbed, for every cell alike."""
    seen = {"rounds": rounds, "rounds_tainted": tainted, "taint_reasons": list(reasons)}
    return [row | (seen if row["length"] == 64 else {"rounds_tainted": 0}) for row in speedup_rows(64, 128)]


def test_disturbed_rounds_are_counted_once_for_all_cells_of_a_cohort() -> None:
    footer = footer_of(disturbed(14, "steal", "foreign-cpu"))
    assert (
        "Left out if enough others remain, disturbed: 14 of 74 rounds (steal; foreign-cpu). Mostly the host gave"
        in footer
    )
    assert "too disturbed" not in footer


def test_a_single_reason_comes_with_its_remedy() -> None:
    assert "(throttled). The container's CPU quota ran out: raise or remove it" in footer_of(disturbed(3, "throttled"))


def test_the_reason_of_most_rounds_comes_first() -> None:
    rows = [
        row | {"rounds_tainted": 9, "taint_reasons": ["throttled"]} if row["length"] == 128 else row
        for row in disturbed(4, "steal", "throttled")
    ]
    assert "13 of 73 rounds (throttled; steal). Mostly the container's" in footer_of(rows)


def test_a_cell_that_failed_early_does_not_change_the_number_of_rounds() -> None:
    rows = with_changes(disturbed(14, "steal"), "quantized", 64, status="failed", rounds=2, rounds_tainted=1)
    assert "14 of 74 rounds" in footer_of(rows)


def test_more_disturbed_rounds_than_others_make_a_machine_too_disturbed() -> None:
    assert "too disturbed at length 64, in over half" in footer_of(disturbed(31, "steal"))
    assert "too disturbed" not in footer_of(disturbed(30, "steal"))


def test_what_leaving_rounds_out_has_moved_is_said_from_one_per_cent_on() -> None:
    rows = with_changes(disturbed(9, "steal"), "quantized", 64, speedup_all_rounds=1.93)
    rows = with_changes(rows, "onnxruntime", 64, speedup_all_rounds=1.99)
    assert "With disturbed rounds: quantized (64) 1.93x instead of 2.00x." in footer_of(rows)


def test_of_many_moved_cells_the_furthest_are_named() -> None:
    rows = [speedup_row("quantized", length, speedup_all_rounds=2 - length / 1000) for length in range(100, 700, 100)]
    line = next(line for line in footer_of(rows).splitlines() if line.startswith("With disturbed rounds"))
    assert line.startswith("With disturbed rounds: quantized (600) 1.40x instead of 2.00x; quantized (500)")
    assert line.endswith("; and 2 more cells.") and line.count("instead of") == 4


def held(rows: Rows) -> dict[str, tuple[int, int] | None]:
    found = {row.name: row.after_holm for row in speedup_table(rows).blocks[0].rows}
    return {name: (claims.held, claims.made) if claims else None for name, claims in found.items()}


def test_claims_that_hold_together_are_counted_among_those_made() -> None:
    rows = with_changes(speedup_rows(64, 128, 256), "quantized", 64, p_holm=0.001)
    rows = with_changes(rows, "quantized", 128, p_holm=0.06)
    rows = with_changes(rows, "quantized", 256, p_holm=1.0, verdict="unclear")
    assert held(rows) == {"pytorch": None, "onnxruntime": None, "quantized": (1, 2)}


@pytest.mark.parametrize("write", [to_text, to_markdown, to_html])
def test_the_column_for_holm_is_there_where_it_is_known(write: Callable[[SpeedupTable], str]) -> None:
    known = write(speedup_table(with_changes(speedup_rows(64), "quantized", 64, p_holm=0.001)))
    assert "1 of 1" in known and "After Holm: how many" in known
    assert "Holm" not in write(speedup_table(speedup_rows(64)))


def test_only_a_bootstrap_that_disagrees_is_mentioned() -> None:
    rows = with_changes(speedup_rows(64, 128), "onnxruntime", 64, bootstrap_agrees=True)
    assert "ootstrap" not in footer_of(rows)
    rows = with_changes(rows, "quantized", 128, bootstrap_agrees=False)
    assert "The bootstrap disagrees with the interval of quantized (128): most likely one replica" in footer_of(rows)


def replicas_with_one_apart(shift: float) -> list[list[float]]:
    """Log ratios of ten replicas of four rounds, twice as fast and a per cent apart; the fourth is off by `shift`."""
    generator = np.random.default_rng(0)
    means = math.log(2) + generator.normal(0, 0.01, 10) + shift * (np.arange(10) == 3)
    return (means[:, None] + generator.normal(0, 0.01, (10, 4))).tolist()


@pytest.mark.parametrize(("shift", "said"), [(0.0, False), (0.3, True)])
def test_a_geometric_mean_whose_interval_the_bootstrap_contradicts_is_named(shift: float, said: bool) -> None:
    rows = speedup_rows(64, 128)
    for length in (64, 128):
        rows = with_changes(rows, "quantized", length, log_ratios=replicas_with_one_apart(shift))
    named = "The bootstrap disagrees with the interval of the geometric mean of quantized: most likely"
    assert (named in footer_of(rows)) == said
    with_a_cell = with_changes(rows, "onnxruntime", 128, bootstrap_agrees=False)
    both = "with the interval of onnxruntime (128); the geometric mean of quantized: most likely"
    assert (both in footer_of(with_a_cell)) == said


def test_a_mean_over_lengths_that_not_all_methods_share_is_held_against_the_bootstrap_of_those_it_covers() -> None:
    rows = with_changes(speedup_rows(64, 128, 256), "onnxruntime", 256, status="failed", speedup=None)
    for length, shift in ((64, 0.0), (128, 0.0), (256, 2.0)):
        rows = with_changes(rows, "quantized", length, log_ratios=replicas_with_one_apart(shift))
    assert "ootstrap" not in footer_of(rows)


def test_remarks_about_sound_cells_are_one_line_and_no_footnotes() -> None:
    rows = with_changes(speedup_rows(64, 128), "quantized", 64, reasons=["not steady when timing began"])
    rows = with_changes(rows, "quantized", 128, reasons=["not steady when timing began (1 of 5 replicas)"])
    assert speedup_table(rows).blocks[0].notes == ()
    assert "Not steady when timing began, in one replica or more: quantized (64, 128)." in footer_of(rows)


def test_what_a_method_does_without_in_every_replica_is_said_without_counting_replicas() -> None:
    rows = speedup_rows(64, 128)
    for length in (64, 128):
        rows = with_changes(rows, "onnxruntime", length, reasons=["attention is not fused"])
    assert "Attention is not fused: onnxruntime (64, 128)." in footer_of(rows)


def test_the_footer_goes_from_what_matters_most_to_what_only_explains() -> None:
    starts = ["A/A twin", "Unresolved", "Left out", "With disturbed", "The machine changed", "Speedup by state"]
    starts += ["The bootstrap", "Not steady", "Means over", "Founding average", "Accuracy on"]
    lines = footer_of(everything()).splitlines()
    assert len(lines) == len(starts)
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True))


def test_everything_at_once_fits_in_a_hundred_columns_of_ascii() -> None:
    text = to_text(speedup_table(everything(), effort="standard"))
    assert max(map(len, text.splitlines())) <= 100
    assert text.isascii()
    assert sum(line.startswith("quantized ") and line.count("ms") == 4 for line in text.splitlines()) == 1


def test_a_common_table_has_at_most_twelve_lines_beneath() -> None:
    rows = [
        row | {"resolved": True, "p_holm": 0.001, "accuracy_n": 678, "reasons": ["not steady when timing began"]}
        for row in speedup_rows(64, 128, 256, 512)
    ]
    rows = [row | {"rounds_tainted": 9, "taint_reasons": ["steal", "foreign-cpu"]} for row in rows]
    text = to_text(speedup_table(rows, effort="quick"))
    assert len([line for line in text[text.index("A/A twin") :].splitlines() if line]) <= 12


def test_every_caveat_is_a_list_item_in_markdown() -> None:
    table = speedup_table(everything(), effort="standard")
    markdown = to_markdown(table).splitlines()
    assert all(f"- {line}" in markdown for line in (*table.blocks[0].footer, *table.footer))
    assert len({line.count("|") for line in markdown if line.startswith("|")}) == 1


def test_caveats_are_escaped_in_html() -> None:
    states = [state("usual", 50, 2.0), state("<i>", 10, 1.5)]
    marked = {"states": states, "resolved": False, "bootstrap_agrees": False, "speedup_all_rounds": 1.5}
    rows = [row | marked | {"name": "<b>"} if row["name"] == "quantized" else row for row in disturbed(9, "<u>")]
    page = to_html(speedup_table(rows, effort="standard"))
    assert "&lt;b&gt; (64, 128)" in page and "&lt;i&gt; in" in page and "(&lt;u&gt;)" in page
    assert not any(tag in page for tag in ("<b> ", "<i>", "<u>"))


def test_csv_has_lists_as_plain_text() -> None:
    table = pa.Table.from_pylist(everything(), schema=SPEEDUP_SCHEMA)
    rows = {(row["name"], row["length"]): row for row in csv.DictReader(io.StringIO(to_csv(table)))}
    assert rows["onnxruntime", "64"]["rounds_tainted"] == "14"
    assert rows["onnxruntime", "64"]["taint_reasons"] == "steal; foreign-cpu"
    assert rows["onnxruntime", "64"]["resolved"] == "False" and rows["pytorch", "64"]["states"] == ""
    assert json.loads(rows["quantized", "256"]["states"])[1] == state("bf16 slower", 12, 1.9)
    assert float(rows["quantized", "64"]["p_holm"]) == 1e-4


def test_csv_of_speedups_with_the_fewest_columns_prints() -> None:
    table = pa.Table.from_pylist(speedup_rows(64), schema=SPEEDUP_SCHEMA).select(FEWEST_COLUMNS)
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert lines[0]["rounds"] == "30" and lines[0]["gate"] == "" and len(lines) == 4


def test_every_format_is_made_of_the_same_lines() -> None:
    table = speedup_table(everything(), effort="standard")
    assert all("Unresolved (interval wider" in " ".join(write(table).split()) for write in documents.FORMATS.values())
