"""Claims about the method to deploy: under limits, for a mix of lengths, with ties called ties."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
from made_up import speedup_row
from rich.console import Console
from several_runs import store_of
from verdicts import NO_LIMITS, baseline, method, verdict_of, wild

from farm.cli.best_text import lines, to_rich
from farm.cli.commands import run_app
from farm.errors import RequestError
from farm.limits import Limits, parse_bytes, parse_mix, parse_ns, parse_share
from farm.mixes import call_ms, time_weights, weighted_ratio


def test_the_mix_of_lengths_decides() -> None:
    short, long = method("short", (3.0, 1.0)), method("long", (1.0, 1.5))
    mostly_short = verdict_of(baseline(), short, long, shares={64: 0.95, 256: 0.05})
    mostly_long = verdict_of(baseline(), short, long, shares={64: 0.05, 256: 0.95})
    assert mostly_short.choice.winner and mostly_short.choice.winner.name == "short"
    assert mostly_long.choice.winner and mostly_long.choice.winner.name == "long"


def test_a_speedup_for_a_mix_is_the_ratio_of_both_mean_latencies() -> None:
    shares = {64: 0.7, 256: 0.3}
    found = verdict_of(baseline(), method("a", (3.0, 1.2)), method("b", (1.5, 2.5)), shares=shares)
    times = {each.name: found.call_ms(each) for each in found.choice.entrants}
    assert times["a"] == pytest.approx(0.7 * 64 / 3.0 + 0.3 * 256 / 1.2)
    for entrant in found.choice.entrants:
        assert entrant.speedup.speedup == pytest.approx(times["pytorch"] / times[entrant.name])
    (lead,) = [lead for name, lead in found.choice.leads.items() if name == "a"]
    assert lead.speedup == pytest.approx(times["a"] / times["b"])


def test_intervals_for_a_mix_hold_the_truth() -> None:
    """Two lengths of unlike noise, simulated; the share of intervals that hold the true ratio of mean latencies."""
    generator = np.random.default_rng(1)
    shares = {64: 0.9, 256: 0.1}
    held = []
    for _ in range(300):
        rows = [
            speedup_row("a", length, baseline_p50_ns=1e6 * length, latency_p50_ns=1e6 * length / speedup)
            | {
                "log_ratios": [
                    list(generator.normal(math.log(speedup) + generator.normal(0, sd), 0.05, 8)) for _ in range(5)
                ]
            }
            for length, speedup, sd in ((64, 1.5, 0.01), (256, 2.5, 0.04))
        ]
        for row in rows:
            row["speedup"] = math.exp(np.mean(row["log_ratios"]))
        plain = [speedup_row("pytorch", length) for length in (64, 256)]
        found = weighted_ratio(rows, time_weights(rows, plain, shares), 0.95)
        truth = (0.9 * 64 + 0.1 * 256) / (0.9 * 64 / 1.5 + 0.1 * 256 / 2.5)
        assert found.low is not None and found.high is not None
        held.append(found.low <= truth <= found.high)
    assert np.mean(held) >= 0.92


def test_each_limit_rules_out_with_its_numbers() -> None:
    fast = method(
        *("fast", (3.0, 3.0)),
        accuracy=0.8,
        accuracy_drop_points=1.2,
        artifact_bytes=200_000_000,
        artifact_key="one",
        peak_rss_bytes=3_000_000_000,
        latency_p99_ns=50e6,
    )
    small = method(
        "small",
        (1.5, 1.5),
        accuracy=0.88,
        accuracy_drop_points=0.0,
        artifact_bytes=1,
        peak_rss_bytes=1,
        latency_p99_ns=1e6,
    )
    plain = baseline(accuracy=0.88, artifact_bytes=1, peak_rss_bytes=1, latency_p99_ns=1e6)
    for limits, said in [
        (Limits(accuracy_drop_points=0.2), "loses 1.20 points of accuracy, more than 0.2"),
        (Limits(artifact_bytes=150_000_000), "its size for 2 lengths, 200 MB, is above 150 MB"),
        (Limits(peak_rss_bytes=10**9), "its peak memory, 3000 MB, is above 1000 MB"),
        (Limits(percentiles_ns={99: 20_000_000}), "p99 at length 64, 50 ms, is above 20 ms"),
    ]:
        found = verdict_of(plain, fast, small, limits=limits)
        assert found.choice.winner and found.choice.winner.name == "small"
        assert found.choice.left_out == {"fast": said}
        assert "fast is 2.00 times as fast as what they leave" in list(lines(found))[-1]


def test_what_is_not_known_does_not_keep_a_limit() -> None:
    limits = Limits(percentiles_ns={99: 10**9}, artifact_bytes=10**9)
    found = verdict_of(baseline(), method("fast", (3.0, 3.0)), limits=limits)
    assert found.choice.winner is None
    assert "its p99 is not known at length 64, 256: it takes 662 samples" in found.choice.left_out["fast"]
    assert next(lines(found)).startswith("Nothing to deploy")


def test_a_limit_of_ones_own_stands_in_for_the_suites() -> None:
    lossy = method("lossy", (3.0, 3.0), gate="fail", accuracy=0.87, accuracy_drop_points=1.0, max_drop_points=0.5)
    assert "lossy" in verdict_of(baseline(), lossy).choice.left_out
    assert verdict_of(baseline(), lossy, limits=Limits(accuracy_drop_points=2.0)).choice.left_out == {}


def test_a_tie_is_called_a_tie() -> None:
    other = method("b", (1.99, 1.99))
    for row in other:
        row["log_ratios"] = row["log_ratios"][::-1]
        row["log_ratios"][0] = [each + 0.02 for each in row["log_ratios"][0]]
    found = verdict_of(baseline(), method("a", (2.0, 2.0)), other, shares={64: 0.5, 256: 0.5})
    assert "b" in found.choice.ties
    assert any(line.startswith("Level with a") for line in lines(found))


def test_there_is_always_a_runner_up_and_why_it_lost() -> None:
    small = {"artifact_bytes": 1}
    for rows, limits, said in [
        ((wild("wild", 1.3), method("steady", (1.25, 1.25))), NO_LIMITS, "Runner-up: wild. It came out at 1.30x ["),
        ((wild("wild", 1.3),), NO_LIMITS, "Runner-up: wild. It came out at 1.30x ["),
        ((method("a", (2.0, 2.0)), method("b", (1.5, 1.5))), NO_LIMITS, "Runner-up: b. It lost by speed: a is 1.33x"),
        ((method("a", (2.0, 2.0)), wild("b", 1.99)), NO_LIMITS, "Runner-up: b. It lost within the noise: a came out"),
        ((method("slow", (0.8, 0.8)),), NO_LIMITS, "Runner-up: slow. It lost by speed: pytorch is"),
        (
            (method("a", (2.0, 2.0), **small),),
            Limits(artifact_bytes=2),
            "Runner-up: pytorch, which may not be deployed: its size is not known",
        ),
        ((), NO_LIMITS, "Runner-up: none"),
    ]:
        told = list(lines(verdict_of(baseline(), *rows, limits=limits)))
        assert any(line.startswith(said) for line in told), told
    told = list(lines(verdict_of(baseline(), wild("wild", 1.3), method("steady", (1.25, 1.25)))))
    assert told[0].startswith("Deploy steady")
    assert told[1] == "wild came out faster, but is not shown to be faster than pytorch, as steady is."
    assert told[2].startswith("Level with wild")


def test_a_single_round_is_as_uncertain_in_a_mix_as_its_weights_say() -> None:
    """All calls at one of two lengths: the interval of the mix is the interval of that length."""
    rows = [row | {"log_ratios": [[math.log(2.0)]]} for row in method("a", (2.0, 2.0))]
    mixed = weighted_ratio(rows, (1.0, 0.0), 0.95)
    alone = weighted_ratio(rows[:1], (1.0,), 0.95)
    assert (mixed.low, mixed.high) == pytest.approx((alone.low, alone.high))


def test_brackets_in_a_name_are_printed_as_they_are() -> None:
    console = Console(width=200, file=io.StringIO())
    with console.capture() as captured:
        console.print(to_rich([verdict_of(baseline(), method("[/tmp/x]", (2.0, 2.0)))], "run"))
    assert captured.get().count("[/tmp/x]") >= 2


def test_a_failed_length_rules_a_method_out() -> None:
    broken = method("broken", (3.0, 3.0))
    broken[1] |= {"status": "failed", "reasons": ["crashed"], "speedup": None}
    found = verdict_of(baseline(), broken, method("whole", (1.5, 1.5)))
    assert found.choice.left_out["broken"] == "no speedup at length 256: failed (crashed)"


def test_a_length_that_was_not_measured_is_a_mistake_of_the_request() -> None:
    with pytest.raises(RequestError, match="512 was not measured in this run, but 64, 256"):
        verdict_of(baseline(), method("a", (2.0, 2.0)), shares={512: 1.0})


def test_mean_latency_of_a_mix() -> None:
    assert call_ms(method("a", (2.0, 4.0)), {64: 0.5, 256: 0.5}) == pytest.approx(0.5 * 32 + 0.5 * 64)


def test_limits_are_read_with_their_units() -> None:
    assert parse_bytes("150MB", "") == 150_000_000
    assert parse_bytes("1.5 GiB", "") == 1_610_612_736
    assert parse_ns("20ms", "") == 20_000_000
    assert parse_share("5%", "") == parse_share("0.05", "") == 0.05
    assert parse_share("150%", "") == 1.5
    assert parse_mix("64:7,256:3") == {64: 0.7, 256: 0.3}
    assert parse_mix("64,256") == {64: 0.5, 256: 0.5}


@pytest.mark.parametrize(
    "flags",
    [["--max-size", "150"], ["--p99", "fast"], ["--lengths", "short"], ["--lengths", "64:-1"], ["--lengths", "999"]]
    + [["--lengths", mix] for mix in ("64:nan", "64:inf", "64:1,64:2", "")]
    + [["--max-accuracy-drop", points] for points in ("nan", "inf", "-1")]
    + [["--max-size", "0MB"], ["--p99", "0ms"]],
)
def test_a_limit_that_cannot_be_read_is_one_line(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    store_of(tmp_path, {"replicas": 1, "lengths": (64,)})
    assert run_app(["best", str(tmp_path), *flags]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) <= 2


def test_the_command_names_the_method_to_deploy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store_of(tmp_path, {"replicas": 5})
    assert run_app(["best", str(tmp_path), "--lengths", "64:0.7,128:0.3", "--max-accuracy-drop", "0.5"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Deploy onnxruntime:" in printed
    assert "quantized: loses 1.62 points of accuracy, more than 0.5" in printed
    assert "Mean latency over calls, shares: 70 % of 64 tokens, 30 % of 128 tokens" in printed
    assert "(modelled)" in printed and "ms a call: modelled (mean over these calls)" in printed
