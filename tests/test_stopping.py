"""When to stop depends on time and effort, never on what was measured."""

from __future__ import annotations

import numpy as np
import pytest
from made_up import plan_of, suite_of

from farm.records import Cohort
from farm.stopping import (
    AFTER_PILOT_SHARE,
    EFFORTS,
    LEAST_ROUNDS,
    Allowance,
    Effort,
    budget_share,
    known_parts,
    replica_share_s,
    same_margin,
    spendable_s,
    weight,
    worth_starting,
)
from farm.variance import VarianceParts

QUICK = EFFORTS["quick"]
STANDARD = EFFORTS["standard"]
STORED = known_parts([])
COHORTS = plan_of(suite_of(lengths=[64, 128, 512])).cohorts


def _rounds(
    share_s: float | None,
    round_s: float = 1.0,
    *,
    effort: Effort = QUICK,
    parts: VarianceParts = STORED,
    setup_s: float = 0.0,
    tainted_of: float = 0.0,
) -> int:
    """Rounds of a made-up replica whose rounds all take `round_s`, of which the part `tainted_of` is disturbed."""
    allowance = Allowance(effort, parts, setup_s, share_s)
    done: list[float] = []
    while allowance.another_round(done, tainted=int(tainted_of * len(done)), elapsed_s=sum(done)):
        done.append(round_s)
    return len(done)


def _others(cohort: Cohort) -> float:
    return sum(weight(other) for other in COHORTS if other is not cohort)


def test_shares_spend_the_whole_budget() -> None:
    left = 100.0
    waiting = list(COHORTS)
    while waiting:
        cohort = waiting.pop(0)
        left -= left * budget_share(cohort, sum(map(weight, waiting)))
    assert left == pytest.approx(0.0, abs=1e-9)


def test_every_replica_gets_what_it_would_get_if_it_came_first() -> None:
    first = [budget_share(cohort, _others(cohort)) for cohort in COHORTS]
    assert sum(first) == pytest.approx(1.0)
    in_turn, left = [], 1.0
    for number, cohort in enumerate(COHORTS):
        in_turn.append(left * budget_share(cohort, sum(map(weight, COHORTS[number + 1 :]))))
        left -= in_turn[-1]
    assert in_turn == pytest.approx(first)


def test_longer_texts_get_a_larger_share() -> None:
    shares = [budget_share(cohort, _others(cohort)) for cohort in COHORTS]
    assert shares == sorted(shares)
    assert shares[0] < shares[-1]


def test_two_slots_share_what_is_waiting() -> None:
    alone = budget_share(COHORTS[0], sum(map(weight, COHORTS[1:])), slots=1)
    assert budget_share(COHORTS[0], sum(map(weight, COHORTS[1:])), slots=2) > alone


def test_rounds_stop_at_the_efforts_cap_when_time_is_plenty() -> None:
    assert _rounds(share_s=None) == _rounds(share_s=1e9) == QUICK.most_rounds


@pytest.mark.parametrize("share_s", [0.0, -5.0, 1.0, 4.0, 5.9])
def test_rounds_never_fall_below_the_least(share_s: float) -> None:
    assert _rounds(share_s) == LEAST_ROUNDS


@pytest.mark.parametrize("share_s", [6.0, 7.0, 8.5, 10.0, 11.9, 13.3])
def test_rounds_stay_within_the_share_and_even(share_s: float) -> None:
    rounds = _rounds(share_s)
    assert rounds % 2 == 0
    assert rounds <= share_s < rounds + 2


def test_an_odd_number_of_rounds_is_completed_where_one_more_fits() -> None:
    done = [1.0] * 5
    assert Allowance(QUICK, STORED, 0.0, share_s=6.0).another_round(done, 0, 5.0)
    assert not Allowance(QUICK, STORED, 0.0, share_s=5.5).another_round(done, 0, 5.0)


@pytest.mark.parametrize("share_s", [None, 3.0, 9.0, 9.5, 12.2, 40.0])
@pytest.mark.parametrize("tainted_of", [0.0, 0.2, 0.8])
def test_as_many_rounds_come_out_when_several_are_asked_for_at_once(share_s: float | None, tainted_of: float) -> None:
    allowance = Allowance(QUICK, STORED, 0.0, share_s)
    done: list[float] = []
    requests = 0
    while ahead := allowance.rounds_ahead(done, int(tainted_of * len(done)), sum(done)):
        done += [1.0] * min(ahead, 3)
        requests += 1
    assert len(done) == _rounds(share_s, tainted_of=tainted_of)
    assert requests <= len(done) // 3 + 3


def test_what_setting_up_took_is_taken_from_the_share() -> None:
    assert _rounds(20.0, setup_s=12.0) == _rounds(8.0) == 8


def test_rounds_that_differ_much_are_worth_more_of_them() -> None:
    calm, rough = VarianceParts(1e-4, 0.02**2, 5), VarianceParts(1e-4, 0.10**2, 5)
    assert _rounds(None, effort=STANDARD, parts=calm, setup_s=14.0) < _rounds(
        None, effort=STANDARD, parts=rough, setup_s=14.0
    )


def test_processes_that_differ_much_leave_the_time_to_more_replicas() -> None:
    alike, unlike = VarianceParts(1e-5, 0.05**2, 5), VarianceParts(1e-3, 0.05**2, 5)
    assert _rounds(None, effort=STANDARD, parts=alike, setup_s=14.0) > _rounds(
        None, effort=STANDARD, parts=unlike, setup_s=14.0
    )


def test_a_single_replica_takes_all_the_rounds_it_may() -> None:
    assert _rounds(None, parts=VarianceParts(1.0, 1e-6, 0)) == QUICK.most_rounds


def test_disturbed_rounds_are_repeated_up_to_a_quarter_more() -> None:
    assert _rounds(None, tainted_of=0.2) == pytest.approx(QUICK.most_rounds * 1.25, abs=2)
    assert _rounds(None, tainted_of=0.5) == QUICK.most_rounds * 1.25


def test_a_machine_that_disturbs_most_rounds_is_not_asked_again() -> None:
    assert _rounds(None, tainted_of=0.8) == QUICK.most_rounds


def test_disturbed_rounds_are_repeated_within_the_budget_only() -> None:
    assert _rounds(10.0, tainted_of=0.5) == 10


def test_before_the_first_replica_stored_variances_stand_in() -> None:
    assert STORED.replicas == 0
    assert STORED.between > 0
    assert STORED.round > STORED.between


def test_how_processes_differ_is_believed_only_after_the_pilot() -> None:
    rounds = np.array([0.10, 0.12, 0.08, 0.11])
    apart = [rounds + 0.2 * number for number in range(5)]
    assert known_parts([apart[:4]]).between == STORED.between
    assert known_parts([apart[:4]]).round == pytest.approx(float(np.var(rounds, ddof=1)))
    assert known_parts([apart]).between > 0.04


def test_caps_are_even_so_that_drift_cancels() -> None:
    assert all(effort.most_rounds % 2 == 0 for effort in EFFORTS.values())
    assert LEAST_ROUNDS % 2 == 0


def test_more_effort_never_has_shorter_turns() -> None:
    least = [EFFORTS[name].turn_calls for name in ("quick", "standard", "rigorous")]
    assert least == sorted(least)


def test_without_a_budget_nothing_is_shared_out() -> None:
    assert spendable_s(QUICK, None, None, pilot_waiting=True) is None


def test_time_is_held_back_while_pilots_wait_and_given_out_afterwards() -> None:
    effort = EFFORTS["standard"]
    assert spendable_s(effort, 100.0, 100.0, pilot_waiting=True) == pytest.approx(100 * (1 - AFTER_PILOT_SHARE))
    assert spendable_s(effort, 100.0, 40.0, pilot_waiting=False) == 40.0
    assert spendable_s(effort, 100.0, 10.0, pilot_waiting=True) == 0.0


def test_an_effort_without_further_replicas_holds_nothing_back() -> None:
    assert spendable_s(QUICK, 100.0, 60.0, pilot_waiting=True) == 60.0


def test_a_replica_takes_its_part_of_the_time_but_is_not_cut_shorter_than_usual() -> None:
    assert replica_share_s(100.0, 0.4, None) == 40.0
    assert replica_share_s(100.0, 0.4, usual_s=25.0) == 40.0
    assert replica_share_s(100.0, 0.1, usual_s=25.0) == 25.0
    assert replica_share_s(20.0, 0.1, usual_s=25.0) == 20.0


def test_a_replica_is_not_begun_where_half_of_it_would_not_fit() -> None:
    assert worth_starting(None, 60.0)
    assert worth_starting(31.0, 60.0)
    assert not worth_starting(29.0, 60.0)
    assert worth_starting(1.0, None)
    assert not worth_starting(0.0, None)


def test_the_margin_of_same_follows_the_efforts_target() -> None:
    assert same_margin("standard") == pytest.approx(0.03)
    assert same_margin("rigorous") == pytest.approx(0.015)
