"""A self-check finds what is known, says what disturbed it, and fails a machine that misses, not a noisy one."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from synthetic import World, log_latencies, log_ratios

from farm import guards, honesty, selfcheck
from farm.cli import check_text
from farm.cli.commands import run_app
from farm.conditions import Conditions, find, observe
from farm.honesty import Evidence, Known, SelfCheck, judge
from farm.selfcheck import KNOWN

TRUE = {known.name: known.slowdown for known in KNOWN}
REPLICAS, ROUNDS = 5, 12
QUIET_SD = 0.003
"""Of a replica's mean log ratio, on a machine that can tell 1 % apart."""


def speedup_rows(slowdowns: dict[str, float], sd: float = QUIET_SD, seed: int = 0) -> list[dict[str, Any]]:
    """What a run of the known cells would give, were these the times over the baseline's."""
    generator = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = [
        {"name": "work", "role": "baseline", "status": "ok", "speedup": 1.0, "replicas": REPLICAS}
    ]
    for name, slowdown in slowdowns.items():
        means = generator.normal(-np.log(slowdown), sd, REPLICAS)
        ratios = [list(generator.normal(mean, sd, ROUNDS)) for mean in means]
        role = "twin" if name.endswith("~twin") else "candidate"
        row = {"name": name, "role": role, "status": "ok", "speedup": 1 / slowdown, "replicas": REPLICAS, "reasons": []}
        rows.append(row | {"log_ratios": ratios})
    return rows


def measurement_rows(reasons: Sequence[Sequence[str]] = ((),) * 4, **columns: Any) -> list[dict[str, Any]]:
    """Two cells of one replica whose second cell was disturbed for these reasons, one entry a round."""
    began = list(range(len(reasons)))
    quiet: list[list[str]] = [[] for _ in reasons]
    given = [list(entry) for entry in reasons]
    return [
        {"cohort": "c", "replica": 0, "round_started_unix_ns": began, "round_taint_reasons": taints} | columns
        for taints in (quiet, given)
    ]


def checked(
    slowdowns: dict[str, float] | None = None,
    measurements: list[dict[str, Any]] | None = None,
    sd: float = QUIET_SD,
    **changes: Any,
) -> SelfCheck:
    """The judgement of a made-up run, with fields of it changed."""
    rows = speedup_rows(slowdowns or TRUE, sd)
    evidence = Evidence(rows, measurement_rows() if measurements is None else measurements)
    return replace(judge(KNOWN, evidence, None, REPLICAS, seconds=110), **changes)


def shown(check: SelfCheck) -> str:
    console = Console(file=io.StringIO(), width=160, color_system=None)
    with console.capture() as captured:
        console.print(check_text.to_rich(check), width=check_text.TEXT_WIDTH, highlight=False)
    return captured.get()


def test_what_is_known_is_a_twin_and_slowdowns_of_2_5_and_20_percent() -> None:
    assert TRUE == {"work~twin": 1.0, "work+2": 1.02, "work+5": 1.05, "work+20": 1.20}


def test_the_work_of_every_known_cell_is_exactly_as_much_more_as_is_claimed(tmp_path: Path) -> None:
    suite = selfcheck.known_suite(tmp_path, "interleaved")
    units = {choice.name: choice.options["units"] for choice in suite.methods}
    assert suite.baseline == "work"
    assert {name: count / units["work"] for name, count in units.items() if name != "work"} == {
        name: slowdown for name, slowdown in TRUE.items() if name != "work~twin"
    }


def test_an_honest_machine_passes() -> None:
    check = checked()
    assert check.honest
    assert all(each.held for each in check.recoveries)
    assert "This machine measures honestly." in shown(check)


@pytest.mark.parametrize("name", sorted(TRUE))
def test_a_machine_that_misses_one_known_ratio_fails_and_says_which(name: str) -> None:
    check = checked(TRUE | {name: TRUE[name] * 1.03})
    assert [each.known.name for each in check.recoveries if not each.held] == [name]
    assert not check.honest
    what = next(known.what for known in KNOWN if known.name == name)
    assert check.faults == (f"{what}: the interval does not hold the truth",)
    assert f"This machine does not measure honestly. {what}" in " ".join(shown(check).split())


def test_what_was_found_is_a_time_over_the_baselines() -> None:
    slow = next(each for each in checked(sd=1e-6).recoveries if each.known.name == "work+20")
    assert slow.found == pytest.approx(1.2, abs=1e-4)
    assert slow.low is not None
    assert slow.high is not None
    assert slow.low < slow.found < slow.high


@pytest.mark.parametrize("sd", [0.003, 0.05])
def test_honest_machines_fail_at_most_once_in_twenty_checks(sd: float) -> None:
    repetitions = 600
    world = World(between_sd=sd, round_sd=3 * sd)
    turns = log_latencies(
        world,
        np.random.default_rng(7),
        repetitions=repetitions,
        replicas=REPLICAS,
        rounds=ROUNDS,
        speedups=tuple(1 / known.slowdown for known in KNOWN),
    )
    failed = 0
    for cells in log_ratios(turns):
        pairs = zip(KNOWN, cells, strict=True)
        rows = [{"name": known.name, "status": "ok", "speedup": 1.0, "log_ratios": cell} for known, cell in pairs]
        failed += not all(each.held for each in honesty.recover(KNOWN, rows))
    assert failed / repetitions <= honesty.FALSE_ALARMS + 3 * np.sqrt(0.05 * 0.95 / repetitions)


def test_a_noisy_machine_is_honest_but_is_told_what_it_cannot_tell_apart() -> None:
    check = checked(sd=0.1)
    assert check.honest
    assert check.resolution is not None
    assert check.resolution > 0.05
    assert any("rounds of the very same work differ by" in finding.what for finding in check.findings)
    assert "Differences below" in shown(check)


def test_the_resolution_is_that_of_ordinary_intervals() -> None:
    check = checked()
    assert check.resolution is not None
    joint = [(each.high or 0) / (each.low or 1) for each in check.recoveries]
    assert all(1 + check.resolution < ends**0.5 * 1.5 for ends in joint)
    assert 1 + check.resolution < np.median(joint) ** 0.5


def test_later_replicas_of_a_check_count_in_how_far_it_may_be_off() -> None:
    calm = speedup_rows(TRUE)
    apart = [[0.1] * ROUNDS, [-0.1] * ROUNDS]
    restless = [row | {"log_ratios": [*row["log_ratios"], *apart]} if "log_ratios" in row else row for row in calm]
    widths = [[each.half_width or 0.0 for each in honesty.recover(KNOWN, rows)] for rows in (calm, restless)]
    assert all(after > before for before, after in zip(*widths, strict=True))


def test_a_known_cell_that_failed_is_a_fault_with_its_reason() -> None:
    rows = speedup_rows(TRUE)
    rows[2] |= {"status": "failed", "speedup": None, "reasons": ["the process died"]}
    check = judge(KNOWN, Evidence(rows, measurement_rows()), None, REPLICAS, 1.0)
    assert check.faults == ("2 % more work: the process died",)
    assert "not measured" in shown(check)


def test_a_known_cell_without_a_row_is_a_fault() -> None:
    rows = [row for row in speedup_rows(TRUE) if row["name"] != "work+5"]
    check = judge(KNOWN, Evidence(rows, []), None, REPLICAS, 1.0)
    assert check.faults == ("5 % more work: was not measured",)


def test_more_than_half_of_all_rounds_disturbed_is_a_fault() -> None:
    check = checked(measurements=measurement_rows([["steal"], ["steal"], ["foreign-cpu"], []]))
    assert check.faults == ("3 of 4 rounds were disturbed",)


def test_half_of_all_rounds_disturbed_is_only_a_finding() -> None:
    check = checked(measurements=measurement_rows([["steal"], ["steal"], [], []]))
    assert check.honest
    assert check.findings[0].what == "steal in 2 of 4 rounds"


@pytest.mark.parametrize("reason", [*guards.ADVICE, "something new"])
def test_every_reason_comes_with_the_guards_advice(reason: str) -> None:
    check = checked(measurements=measurement_rows([[reason], [], [], []]))
    assert (f"{reason} in 1 of 4 rounds", guards.advice(reason)) in [
        (each.what, each.advice) for each in check.findings
    ]


def test_the_most_frequent_reason_comes_first_with_the_worst_share_it_took() -> None:
    rows = measurement_rows([["steal"], ["steal", "throttled"], [], []], round_steal_ratio=[0.31, 0.04, None, 0.0])
    assert [each.what for each in find(observe(rows))][:2] == [
        "steal in 2 of 4 rounds, up to 31 % of the slot's time",
        "throttled in 1 of 4 rounds",
    ]


def test_a_round_is_counted_once_however_many_cells_were_disturbed_in_it() -> None:
    rows = measurement_rows([["steal"], [], [], []])
    rows.append(rows[1])
    conditions = observe(rows)
    assert (conditions.rounds, conditions.disturbed, conditions.reasons) == (4, 1, {"steal": 1})


def test_rounds_of_other_replicas_are_other_rounds() -> None:
    rows = measurement_rows([["steal"], []])
    assert observe([*rows, *({**row, "replica": 1} for row in rows)]).rounds == 4


def test_missing_columns_are_unknown_and_no_fault() -> None:
    bare = [{"cohort": "c", "replica": 0, "round_started_unix_ns": [1, 2]}]
    check = checked(measurements=bare)
    assert check.honest
    assert check.conditions == Conditions(rounds=2, worst={"steal": 0.0, "foreign-cpu": 0.0})
    assert "nobody watched for disturbances" in [each.what for each in check.findings]
    assert shown(check).count("unknown") >= 3


def test_null_columns_are_as_unknown_as_missing_ones() -> None:
    nulls = {"round_taint_reasons": None, "round_own_ratio": None, "round_foreign_ratio": [None, None]}
    rows = [{"cohort": "c", "replica": 0, "round_started_unix_ns": [1, 2]} | nulls]
    assert observe(rows).disturbed is None
    assert observe(rows).own_ratio is None
    assert observe(rows).foreign_ratio is None


def test_what_the_platform_does_not_tell_is_named() -> None:
    rows = measurement_rows(round_foreign_ratio=[0.0] * 4, round_throttled_ns=[0] * 4, round_major_faults=[0] * 4)
    assert observe(rows).unread == ("stolen time",)
    assert "this platform does not tell: stolen time" in [each.what for each in find(observe(rows))]


def test_the_farms_own_share_beyond_its_promise_is_a_finding_and_no_fault() -> None:
    check = checked(measurements=measurement_rows(round_own_ratio=[0.02, 0.07, 0.08, 0.09]))
    assert check.conditions.own_ratio == pytest.approx(0.075)
    assert check.honest
    assert any("the farm and Ray themselves used 7.5 % of a core" in each.what for each in check.findings)
    assert "too much" in shown(check)


def test_shares_within_their_limits_are_no_findings() -> None:
    columns = {"round_own_ratio": [0.03] * 4, "round_foreign_ratio": [0.001] * 4, "round_steal_ratio": [0.0] * 4}
    columns |= {"round_throttled_ns": [0] * 4, "round_major_faults": [0] * 4}
    assert find(observe(measurement_rows(**columns))) == ()


def test_a_machine_that_changed_its_speed_is_told_so() -> None:
    rows = measurement_rows(round_state=["usual", "bf16", "bf16", "usual"])
    assert "the machine changed its speed: bf16 (2 of 4 rounds)" in [each.what for each in find(observe(rows))]


def test_fewer_replicas_than_wanted_are_a_finding() -> None:
    check = checked(replicas=3)
    assert "3 of 5 sets of processes were measured in the time there was" in [each.what for each in check.findings]


def test_the_orders_are_compared_by_how_far_single_replicas_are_off() -> None:
    known = (Known("a", "a", 1.0), Known("b", "b", 1.2))

    def rows(error: float) -> list[dict[str, Any]]:
        found = {"a": np.log(1.0) + error, "b": -np.log(1.2) - error}
        return [
            {"name": name, "status": "ok", "speedup": 1.0, "log_ratios": [[mean - 0.1, mean + 0.1]]}
            for name, mean in found.items()
        ]

    orders = honesty.compare_orders(known, rows(0.01), rows(0.04))
    assert orders is not None
    assert orders.interleaved == pytest.approx(np.expm1(0.01))
    assert orders.blocked == pytest.approx(np.expm1(0.04))
    assert (orders.interleaved_ratios, orders.blocked_ratios) == (2, 2)


def test_orders_are_not_compared_where_one_has_no_ratio() -> None:
    assert honesty.compare_orders(KNOWN, speedup_rows(TRUE), []) is None


def test_the_report_fits_100_columns() -> None:
    bad = measurement_rows([["steal", "foreign-cpu", "throttled", "major-faults"]] * 4, round_own_ratio=[0.5] * 4)
    orders = honesty.Orders(0.0123, 20, 0.123, 4)
    text = shown(checked(TRUE | {"work~twin": 1.5}, bad, sd=0.05, orders=orders))
    assert max(map(len, text.splitlines())) <= 100
    assert "10.0 times as much" in text


def _exit_code(check: SelfCheck, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(selfcheck, "check", lambda *_, **__: check)
    return run_app(["selfcheck", *arguments])


def test_an_honest_machine_gives_exit_code_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _exit_code(checked(), monkeypatch) == 0
    assert "This machine measures honestly." in capsys.readouterr().out


def test_a_machine_that_misses_gives_exit_code_1_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _exit_code(checked(TRUE | {"work~twin": 1.05}), monkeypatch, "--quiet") == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "This machine does not measure honestly." in said
    assert "repeat the check" in said


def test_an_effort_that_is_not_offered_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _exit_code(checked(), monkeypatch, "--effort", "rigorous") == 2
