"""What to deploy: the fastest that may be, what cannot be told from it, and the front of speed, accuracy and size."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from made_up import speedup_row

from farm.choice import choose, pareto_front
from farm.limits import Limits
from farm.mixes import call_ms

MEGABYTE = 10**6


def _rows(name: str, speedup: float, lengths: tuple[int, ...] = (64, 128), **changes: Any) -> list[dict[str, Any]]:
    """A method whose rounds carry the baseline's noise of 20 %, the same in every method, and little of its own."""
    shared = [[0.2 * (-1) ** number for number in range(6)]] * 5
    own = [0.002 * math.sin(len(name) * (replica + 1)) for replica in range(5)]
    ratios = [[math.log(speedup) + own[at] + noise for noise in shared[at]] for at in range(5)]
    return [speedup_row(name, length, speedup=speedup, log_ratios=ratios, **changes) for length in lengths]


def _baseline(**changes: Any) -> list[dict[str, Any]]:
    return [speedup_row("pytorch", length, **changes) for length in (64, 128)]


def test_the_fastest_over_all_lengths_is_deployed_and_the_next_is_named() -> None:
    found = choose([*_baseline(), *_rows("fused", 1.2), *_rows("quantized", 2.0), *_rows("pruned", 1.9)])
    assert found.winner is not None
    assert (found.winner.name, found.runner_up and found.runner_up.name) == ("quantized", "pruned")
    assert [each.name for each in found.entrants] == ["quantized", "pruned", "fused", "pytorch"]
    assert found.ties == ()
    assert found.leads["pruned"].speedup == pytest.approx(2.0 / 1.9, rel=0.01)


def test_a_lead_is_taken_in_the_rounds_that_both_shared() -> None:
    found = choose([*_baseline(), *_rows("quantized", 2.0), *_rows("pruned", 1.9)])
    lead = found.leads["pruned"]
    assert lead.low is not None and lead.high is not None
    assert lead.high / lead.low < 1.02, "the baseline's noise of 20 % cancels"


def test_methods_of_unlike_cohorts_are_compared_by_their_own_baselines() -> None:
    together = choose([*_baseline(), *_rows("quantized", 2.0), *_rows("pruned", 1.9)]).leads["pruned"]
    apart = choose([*_baseline(), *_rows("quantized", 2.0), *_rows("pruned", 1.9, cohort="another pack")])
    lead = apart.leads["pruned"]
    assert lead.low is not None and together.low is not None
    assert lead.speedup == pytest.approx(together.speedup)
    assert lead.low < together.low


def test_a_baseline_of_several_packs_is_one_and_each_method_is_held_against_its_own() -> None:
    first = _baseline(cohort="one", latency_p50_ns=4e6, baseline_p50_ns=4e6, peak_rss_bytes=5)
    second = _baseline(cohort="two", latency_p50_ns=1e6, baseline_p50_ns=1e6, peak_rss_bytes=7)
    near, far = (
        _rows(name, 2.0, cohort=pack, baseline_p50_ns=ns)
        for name, pack, ns in (("near", "one", 4e6), ("far", "two", 1e6))
    )
    found = choose([*first, *near, *second, *far], {64: 0.5, 128: 0.5})
    by_name = {each.name: each for each in found.entrants}
    times = {name: call_ms(each.rows, {64: 0.5, 128: 0.5}) for name, each in by_name.items()}
    assert times == pytest.approx({"pytorch": 2.0, "near": 2.0, "far": 0.5})
    assert by_name["near"].speedup.speedup == pytest.approx(2.0, rel=0.01)
    assert by_name["far"].speedup.speedup == pytest.approx(2.0, rel=0.01)
    assert by_name["pytorch"].peak_rss_bytes == 7
    broken = [row | {"status": "failed", "speedup": None} for row in first]
    assert call_ms(choose([*broken, *second, *far]).entrants[-1].rows, {64: 0.5, 128: 0.5}) == pytest.approx(1.0)


def test_what_cannot_be_told_from_the_fastest_is_a_tie() -> None:
    noisy = _rows("pruned", 1.98)
    for row in noisy:
        row["log_ratios"] = [
            [each + 0.03 * (-1) ** at for each in rounds] for at, rounds in enumerate(row["log_ratios"])
        ]
    found = choose([*_baseline(), *_rows("quantized", 2.0), *noisy, *_rows("fused", 1.2)])
    assert found.winner is not None
    assert found.winner.name == "quantized"
    assert found.ties == ("pruned",)


def test_a_method_that_fails_the_accuracy_limit_is_not_deployed_however_fast() -> None:
    changes = {"gate": "fail", "accuracy": 0.8, "accuracy_drop_points": 2.5, "max_drop_points": 0.5}
    found = choose([*_baseline(), *_rows("quantized", 3.0, **changes), *_rows("fused", 1.2)])
    assert found.winner is not None
    assert found.winner.name == "fused"
    assert found.left_out == {"quantized": "loses 2.50 points of accuracy, more than the limit of 0.5"}
    assert [each.name for each in found.entrants] == ["quantized", "fused", "pytorch"], "it is still shown"


def test_a_method_that_failed_at_one_length_is_not_deployed_and_says_where() -> None:
    ok, broken = _rows("quantized", 3.0)
    broken |= {"status": "failed", "speedup": None, "reasons": ["ran out of memory"]}
    found = choose([*_baseline(), ok, broken, *_rows("fused", 1.2)])
    assert found.left_out == {"quantized": "no speedup at length 128: failed (ran out of memory)"}
    assert found.winner is not None
    assert found.winner.name == "fused"


def test_a_method_that_was_not_measured_at_every_length_is_not_deployed() -> None:
    found = choose([*_baseline(), *_rows("quantized", 3.0, (64,)), *_rows("fused", 1.2)])
    assert found.left_out == {"quantized": "no speedup at length 128: not measured"}


def test_the_baseline_stays_where_nothing_is_shown_to_be_faster() -> None:
    slower = choose([*_baseline(), *_rows("fused", 0.8)])
    assert slower.winner is not None and slower.winner.is_baseline
    noisy = _rows("fused", 1.01)
    for row in noisy:
        row["log_ratios"] = [
            [each + 0.05 * (-1) ** at for each in rounds] for at, rounds in enumerate(row["log_ratios"])
        ]
    tied = choose([*_baseline(), *noisy])
    assert tied.leader is not None and tied.leader.name == "fused"
    assert tied.winner is not None and tied.winner.is_baseline
    assert tied.ties == ("pytorch",)


def _wild(name: str, speedup: float) -> list[dict[str, Any]]:
    """A method whose replicas differ by so much that its interval holds 1."""
    rows = _rows(name, speedup)
    for row in rows:
        row["log_ratios"] = [
            [each + 0.4 * (-1) ** at * (at != 4) for each in rounds] for at, rounds in enumerate(row["log_ratios"])
        ]
    return rows


def test_what_is_surely_faster_is_deployed_where_the_fastest_is_not() -> None:
    found = choose([*_baseline(), *_wild("wild", 1.3), *_rows("steady", 1.25)])
    assert found.leader is not None and found.leader.name == "wild"
    assert found.leader.speedup.low is not None and found.leader.speedup.low < 1
    assert found.winner is not None and found.winner.name == "steady"
    assert found.runner_up is found.leader
    assert found.ties == ("steady",), "the baseline is shown to be slower than one of them"


def test_a_baseline_that_may_not_stay_does_not() -> None:
    limits = Limits(artifact_bytes=100)
    rows = [*_baseline(artifact_bytes=200), *_wild("wild", 1.3)]
    found = choose([row | {"artifact_bytes": row.get("artifact_bytes") or 50} for row in rows], limits=limits)
    assert found.winner is not None and found.winner.name == "wild"


def test_what_a_table_calls_faster_is_deployed_however_many_methods_are_compared() -> None:
    """Of two replicas a joint interval over many methods holds anything; the leader's own still excludes 1."""
    methods = [row for at in range(12) for row in _rows(f"method-{at}", 2.0 + at / 100)]
    for row in methods:
        row["log_ratios"] = [[each + 0.01 * at for each in rounds] for at, rounds in enumerate(row["log_ratios"][:2])]
    found = choose([*_baseline(), *methods])
    assert found.leader is not None and found.leader.speedup.low is not None
    assert found.leader.speedup.low > 1
    assert found.winner is found.leader
    assert "pytorch" not in found.ties


def test_without_a_baseline_there_is_no_choice() -> None:
    failed = _baseline(status="failed", speedup=None)
    found = choose([*failed, *_rows("fused", 1.2, speedup_low=None)])
    assert found.winner is None
    assert found.left_out["fused"] == "the baseline has no result to compare with"
    assert choose([]).winner is None


def test_rows_without_rounds_give_no_winner_that_could_be_chance() -> None:
    rows = [*_baseline(), *_rows("quantized", 2.0), *_rows("pruned", 1.9)]
    for row in rows:
        row["log_ratios"] = None
    found = choose(rows)
    assert set(found.ties) == {"pruned", "pytorch"}


def test_the_truly_fastest_is_left_behind_by_chance_in_at_most_one_run_of_twenty() -> None:
    """Ten equal methods: the one that leads did so by luck, and the first of them must stay among the ties."""
    generator = np.random.default_rng(3)
    runs, lost = 200, 0
    for _ in range(runs):
        noise = generator.normal(0, 0.01, (10, 5, 1)) + generator.normal(0, 0.03, (10, 5, 6))
        methods = [speedup_row(f"method-{at}", log_ratios=each.tolist()) for at, each in enumerate(noise + math.log(2))]
        found = choose([speedup_row("pytorch"), *methods])
        lost += "method-0" not in found.ties and found.winner is not None and found.winner.name != "method-0"
    assert lost / runs <= 0.05


def _priced(name: str, speedup: float, accuracy: float | None, megabytes: int | None) -> list[dict[str, Any]]:
    size = None if megabytes is None else megabytes * MEGABYTE
    return _rows(name, speedup, accuracy=accuracy, artifact_bytes=size)


def test_the_front_keeps_what_nothing_beats_in_speed_accuracy_and_size() -> None:
    rows = [
        *_baseline(accuracy=0.9, artifact_bytes=268 * MEGABYTE),
        *_priced("fast", 3.0, 0.88, 70),
        *_priced("exact", 1.5, 0.9, 268),
        *_priced("small", 2.0, 0.87, 60),
        *_priced("beaten", 2.5, 0.87, 80),
    ]
    assert set(pareto_front(choose(rows).entrants)) == {"fast", "exact", "small"}


def test_the_front_is_not_drawn_along_what_some_methods_lack() -> None:
    rows = [*_baseline(), *_priced("fast", 3.0, 0.88, 70), *_priced("unknown", 2.0, None, 10)]
    assert set(pareto_front(choose(rows).entrants)) == {"fast"}, "the baseline's size and accuracy are not known"


def test_methods_that_are_alike_in_everything_are_both_on_the_front() -> None:
    rows = [*_priced("one", 2.0, 0.9, 70), *_priced("two", 2.0, 0.9, 70)]
    entrants = choose([*_baseline(accuracy=0.9, artifact_bytes=300 * MEGABYTE), *rows]).entrants
    assert set(pareto_front(entrants)) == {"one", "two"}


def test_a_size_that_hardly_differs_is_no_merit() -> None:
    rows = [*_priced("pruned", 2.2, 0.9, 1000), *_priced("plain", 2.0, 0.9, 995), *_priced("small", 2.0, 0.9, 900)]
    entrants = choose([*_baseline(accuracy=0.9, artifact_bytes=3000 * MEGABYTE), *rows]).entrants
    assert set(pareto_front(entrants)) == {"pruned", "small"}
