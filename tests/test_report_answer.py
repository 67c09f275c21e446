"""The answer in words: what to deploy, by how much, at what price, how sure, and what stands against it."""

from __future__ import annotations

import math
from typing import Any

from made_up import speedup_row, with_changes

from farm.choice import choose
from farm.report.answer import Answer, answer

LENGTHS = (64, 128)
NAMES = ("pytorch", "pytorch~twin", "onnxruntime", "quantized")


def _rows(**speedups: float) -> list[dict[str, Any]]:
    """The baseline, its twin and these methods at two lengths, everything known of them."""
    rows = []
    for length in LENGTHS:
        for name in ("pytorch", "pytorch~twin", *speedups):
            speedup = speedups.get(name, 1.0)
            ratios = [[math.log(speedup) + offset] * 6 for offset in (-0.003, 0.002, 0.0, -0.001, 0.002)]
            judged = {} if name == "pytorch" else {"speedup": speedup, "log_ratios": ratios, "resolved": True}
            rows.append(
                speedup_row(
                    name,
                    length,
                    latency_p50_ns=1e6 * length / speedup,
                    baseline_p50_ns=1e6 * length,
                    load_s=0.5,
                    **judged,
                )
            )
    return rows


def _answer(rows: list[dict[str, Any]]) -> Answer:
    return answer(rows, rows, choose(rows), "pytorch")


def _fact(found: Answer, term: str) -> str:
    fact = next(fact for fact in found.facts if fact.term == term)
    return f"{fact.figure} {fact.detail}"


def test_one_sentence_says_what_to_deploy_by_how_much_and_within_which_interval() -> None:
    found = _answer(_rows(onnxruntime=1.5, quantized=2.0))
    assert (found.verb, found.name) == ("Deploy", "quantized")
    assert found.sentence == (
        "It is 2.00 times as fast as pytorch (95 % interval 1.99 to 2.01), over 64 and 128 tokens (geometric mean)."
    )


def test_the_price_is_told_beside_the_baselines() -> None:
    rows = _rows(quantized=2.0)
    sizes = {"artifact_bytes": 70_000_000, "peak_rss_bytes": 300_000_000, "prepare_s": 40.0, "break_even_calls": 1234}
    rows = with_changes(rows, "quantized", 64, **sizes, accuracy=0.88, accuracy_n=678, accuracy_drop_points=1.5)
    rows = with_changes(rows, "pytorch", 64, artifact_bytes=268_000_000, peak_rss_bytes=600_000_000, accuracy=0.9)
    found = _answer(rows)
    assert _fact(found, "Latency") == (
        "32.0 ms median at 64 tokens instead of 64.0 ms; 64.0 ms at 128 instead of 128 ms"
    )
    assert (
        _fact(found, "Size") == "70 MB on disk per length instead of 268 MB; 300 MB of memory at most instead of 600 MB"
    )
    assert _fact(found, "Accuracy") == "88.00 % -1.50 points against the baseline, on 678 held-out texts"
    assert (
        _fact(found, "Start-up")
        == "0.500 s to load; prepared once in 40.0 s; paid off after 1\N{NARROW NO-BREAK SPACE}234 calls"
    )


def test_the_next_best_is_named_with_what_it_costs_in_time() -> None:
    assert _fact(_answer(_rows(onnxruntime=1.6, quantized=2.0)), "Next best").startswith("onnxruntime takes 25.0 % [")


def test_a_method_that_is_surely_faster_stands_before_one_that_may_be() -> None:
    rows = _rows(steady=1.25, wild=1.3)
    for row in rows:
        if row["name"] == "wild":
            row["log_ratios"] = [[each + 0.4 * (-1) ** at for each in one] for at, one in enumerate(row["log_ratios"])]
    found = _answer(rows)
    assert (found.verb, found.name) == ("Deploy", "steady")
    assert _fact(found, "Next best").startswith("wild 1.")
    assert any(note.startswith("wild came out fastest") for note in found.notes)


def test_methods_as_fast_within_the_interval_are_called_so() -> None:
    found = _answer(_rows(onnxruntime=2.0, quantized=2.0))
    assert any(note.startswith("This run cannot tell it from ") for note in found.notes)
    assert "a tie" in _fact(found, "Next best")


def test_a_faster_method_that_fails_the_limit_is_named_with_the_reason() -> None:
    rows = _rows(onnxruntime=1.5, quantized=2.0)
    failing = {"gate": "fail", "accuracy": 0.8, "accuracy_drop_points": 1.2, "max_drop_points": 0.5}
    found = _answer(with_changes(rows, "quantized", 64, **failing))
    assert found.name == "onnxruntime"
    (note,) = found.notes
    assert note.startswith("quantized is 2.00 times as fast (95 % interval")
    assert note.endswith("but loses 1.20 points of accuracy, more than the limit of 0.5.")


def test_the_baseline_stays_where_nothing_is_shown_to_be_faster() -> None:
    found = _answer(_rows(onnxruntime=0.8))
    assert (found.verb, found.name) == ("Stay with", "pytorch")
    assert "No other method that may be deployed is shown to be faster" in found.sentence


def test_a_run_whose_baseline_failed_has_no_answer_and_says_why() -> None:
    rows = [row | {"status": "failed", "speedup": None, "reasons": ["segfault"]} for row in _rows(quantized=2.0)]
    found = _answer(rows)
    assert found.verb == "No answer:"
    assert "segfault" in found.sentence
    assert found.sureness == "doubtful"


def test_sureness_follows_the_twin_the_replicas_and_the_intervals() -> None:
    rows = _rows(quantized=2.0)
    assert _answer(rows).sureness == "solid"
    wide = with_changes(rows, "quantized", 64, resolved=False)
    assert _answer(wide).sureness == "open"
    single = with_changes(rows, "quantized", 64, interval="one-replica")
    assert _answer(single).sureness == "rough"
    few = [row | {"replicas": 2} for row in rows]
    assert _answer(few).sureness == "open"
    assert "Only 2 sets of processes" in _answer(few).doubts[0]
    apart = [[0.2 + 0.001 * replica] * 6 for replica in range(5)]
    doubtful = _answer(with_changes(rows, "pytorch~twin", 64, log_ratios=apart, speedup=1.22))
    assert doubtful.sureness == "doubtful"
    assert "differs from its own twin at length 64" in doubtful.doubts[0]


def test_a_machine_that_was_too_disturbed_makes_the_answer_doubtful() -> None:
    rows = [row | {"rounds_measured": 30, "rounds_tainted": 20} for row in _rows(quantized=2.0)]
    found = _answer(rows)
    assert found.sureness == "doubtful"
    assert "Over half of the rounds were disturbed at length 64, 128." in found.doubts


def test_without_a_twin_nothing_is_believed() -> None:
    rows = [row for row in _rows(quantized=2.0) if row["role"] != "twin"]
    assert any("No A/A twin was measured" in doubt for doubt in _answer(rows).doubts)
