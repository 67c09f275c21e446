"""Claims about what `farm best` says: its means, its doubts, what a deployment takes and who was ruled out."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up import speedup_row
from several_runs import run_name, store_of
from verdicts import baseline, method, printed_of, verdict_of, wild

from farm.cli.best_text import lines
from farm.cli.commands import run_app
from farm.limits import Limits


def test_each_mean_is_called_what_it_is() -> None:
    rows = baseline(), method("a", (4.0, 1.5))
    alone, mixed = verdict_of(*rows), verdict_of(*rows, shares={64: 0.5, 256: 0.5})
    assert alone.choice.entrants[0].speedup.speedup != pytest.approx(mixed.choice.entrants[0].speedup.speedup, rel=0.1)
    assert "Geometric mean over lengths 64, 256\n" in printed_of(alone)
    assert "Mean latency over calls, shares: 50 % of 64 tokens, 50 % of 256 tokens\n" in printed_of(mixed)


def test_what_the_report_doubts_stands_under_the_answer() -> None:
    disturbed = {"rounds_measured": 30, "rounds_tainted": 20}
    twin = [speedup_row("pytorch~twin", length) for length in (64, 256)]
    sound = printed_of(verdict_of(baseline(), twin, method("a", (2.0, 2.0))))
    assert "Do not build on this" not in sound
    told = printed_of(verdict_of(baseline(**disturbed), twin, method("a", (2.0, 2.0), **disturbed)))
    said = "Do not build on this yet. Over half of the rounds were disturbed at length 64, 256."
    assert told.index("Deploy a:") < told.index(said) < told.index("ms a call  ")
    assert "No A/A twin was measured" in printed_of(verdict_of(baseline(), method("a", (2.0, 2.0))))


def test_artifacts_of_several_lengths_add_up_and_a_shared_one_counts_once() -> None:
    small, shared = method("small", (3.0, 3.0)), method("shared", (2.0, 2.0), artifact_key="s")
    for row, key, seconds in zip(small, "ab", (40.0, 90.0), strict=True):
        row |= {"artifact_key": key, "artifact_bytes": 69_000_000, "prepare_s": seconds}
    for row in shared:
        row |= {"artifact_bytes": 130_000_000, "prepare_s": 20.0}
    limits = Limits(artifact_bytes=135_000_000)
    free, limited = verdict_of(baseline(), small, shared), verdict_of(baseline(), small, shared, limits=limits)
    assert "138 MB for 2 lengths, prepared in 130 s." in next(lines(free))
    assert "130 MB for 2 lengths, prepared in 20.0 s." in next(lines(limited))
    assert limited.choice.left_out["small"] == "its size for 2 lengths, 138 MB, is above 135 MB"


def test_where_results_do_not_tell_which_lengths_share_an_artifact_the_size_is_one_lengths() -> None:
    rows = method("a", (2.0, 2.0), artifact_bytes=69_000_000, prepare_s=90.0)
    assert "69 MB per length, prepared in 90.0 s per length at most" in next(lines(verdict_of(baseline(), rows)))


def test_weights_that_all_lengths_read_count_once() -> None:
    rows = method("a", (2.0, 2.0), artifact_bytes=268_000_000, method="pytorch-fp32-compile")
    for row, key in zip(rows, "ab", strict=True):
        row["artifact_key"] = key
    assert verdict_of(baseline(), rows).choice.entrants[0].artifact_bytes == 268_000_000


def test_a_baseline_that_was_prepared_is_not_called_free() -> None:
    for seconds, free in ((90.0, False), (0.0, True)):
        told = " ".join(lines(verdict_of(baseline(prepare_s=seconds), wild("wild", 1.3))))
        assert "No method is shown to be faster than pytorch" in told
        assert ("which takes no preparing" in told) is free


def test_methods_ruled_out_for_one_reason_are_one_line() -> None:
    missing = [
        method(name, (2.0, 2.0), status="unsupported", speedup=None, reasons=[f"{name} needs BF16 instructions"])
        for name in ("one-bf16", "two-bf16")
    ]
    lossy = [
        method(name, (3.0, 3.0), gate="fail", accuracy=0.8, accuracy_drop_points=drop, max_drop_points=0.5)
        for name, drop in (("int4", 10.25), ("int8", 1.5))
    ]
    told = list(lines(verdict_of(baseline(), *missing, *lossy)))
    ruled_out = told[told.index("Ruled out:") + 1 :][:2]
    assert ruled_out == [
        "  one-bf16, two-bf16: no speedup at length 64, 256: unsupported (it needs BF16 instructions).",
        "  int4, int8: loses 1.50 to 10.25 points of accuracy, more than the limit of 0.5.",
    ]


def test_a_joint_interval_says_that_it_is_one() -> None:
    a, b, jointly = method("a", (2.0, 2.0)), method("b", (1.5, 1.5)), "interval holds for all comparisons together"
    assert any(line.startswith("Runner-up: b") and jointly in line for line in lines(verdict_of(baseline(), a, b)))
    assert jointly not in " ".join(lines(verdict_of(baseline(), a))), "of one comparison it is the table's"


@pytest.mark.parametrize("flags", [["--method", "nonsense"], ["--block", "3"]])
def test_what_only_an_export_needs_is_refused_without_one(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    store_of(tmp_path, {"replicas": 1, "lengths": (64,)})
    assert run_app(["best", str(tmp_path), *flags]) == 2
    assert "add --export" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["best"], ["compare"]])
def test_damaged_results_are_named_beside_what_is_concluded(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    store = store_of(tmp_path, {"replicas": 2}, {"replicas": 2})
    old, new = run_name(0), run_name(1)
    damaged = sorted(path for path in (tmp_path / "measurements").rglob("*.parquet") if old in str(path))[0]
    damaged.write_bytes(damaged.read_bytes()[:-40])
    del store
    asked = [str(tmp_path), "--run", old] if command == ["best"] else [old, new, "--results", str(tmp_path)]
    run_app([*command, *asked])
    assert f"left out {damaged}" in capsys.readouterr().err.replace("\n", "")
