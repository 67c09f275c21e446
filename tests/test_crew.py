"""Nodes come, go, hang and are held by others; every replica is published once and no node idles beside work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from made_up import GPU_SLOT, MACHINE, MODEL, SLOT, plan_of, suite_of, supports_all
from simulated_cluster import MemoryLedger, SimulatedNode, Simulation, lower_bound_s, simulated_nodes

from farm.budget import Budget
from farm.crew import MOST_FAILURES, MOST_NODES_LOST, POLL_S
from farm.errors import FarmError
from farm.events import AttemptFailed, NodeJoined, NodeLost, Notice, ReplicaBegan
from farm.plan import make_plan
from farm.quarantine import MOST_IN_A_ROW, QUARANTINE_S
from farm.records import Slot
from farm.replica import NodeFaultError, NodeUnfitError, ReplicaLostError
from farm.schedule import Job, Schedule
from farm.stopping import EFFORTS

COHORTS = plan_of(suite_of(lengths=[64, 128, 256, 512])).cohorts
OTHER = replace(SLOT, hardware_class="other")


def _published_once(simulation: Simulation, replicas: int, cohorts: int = len(COHORTS)) -> bool:
    published = simulation.ledger.published
    return set(published.values()) == {1} and len(published) == replicas * cohorts


def test_every_replica_is_published_once_however_many_nodes_there_are() -> None:
    for count in (1, 2, 3, 20):
        assert _published_once(Simulation(Schedule(COHORTS, 3), simulated_nodes(count, SLOT)).run(), replicas=3)


def test_nodes_that_fail_lose_nothing() -> None:
    nodes = simulated_nodes(4, SLOT)
    for number, node in enumerate(list(nodes.values())[:3]):
        node.fails_s = 15.0 + 20.0 * number
    run = Simulation(Schedule(COHORTS, 5), nodes).run()
    assert _published_once(run, replicas=5)
    assert sum(isinstance(event, NodeLost) for event in run.told.events) == 3
    assert not run.ledger.failed


def test_what_a_lost_node_was_measuring_starts_over_as_another_attempt() -> None:
    nodes = simulated_nodes(2, SLOT)
    nodes["plain-0"].fails_s = 5.0
    run = Simulation(Schedule(COHORTS[:2], 1), nodes).run()
    again = [each for each in run.grounds.measured if each.job.attempt == 2]
    assert [(each.slot.node_id, each.job.nodes_lost) for each in again] == [("plain-1", 1)]


def test_a_replica_under_which_every_node_dies_is_published_as_failed() -> None:
    nodes = {}
    for number in range(MOST_NODES_LOST + 1):
        joins_s = number * 10.0
        one = simulated_nodes(1, replace(SLOT, hostname=str(number)), joins_s=joins_s, fails_s=joins_s + 6.0)
        nodes[f"n{number}"] = SimulatedNode(
            [replace(one["plain-0"].slots[0], node_id=f"n{number}")], joins_s=joins_s, fails_s=joins_s + 6.0
        )
    run = Simulation(Schedule(COHORTS[:1], 1), nodes, seconds_of=lambda _: 8.0).run()
    assert run.ledger.failed == {(COHORTS[0].cohort, 0)}


def test_a_node_that_joins_later_is_taken_into_the_run() -> None:
    nodes = simulated_nodes(1, SLOT) | {"late": SimulatedNode([replace(SLOT, node_id="late")], joins_s=20.0)}
    run = Simulation(Schedule(COHORTS, 5), nodes).run()
    assert _published_once(run, replicas=5)
    on_late = [each.began_s for each in run.grounds.measured if each.slot.node_id == "late"]
    assert 20.0 <= min(on_late) <= 20.0 + POLL_S
    assert len(on_late) > 5


def test_a_class_that_joins_later_is_planned_for_where_the_suite_takes_every_class() -> None:
    suite = suite_of(lengths=[64, 128], hardware="all")
    machines = {name: replace(MACHINE, hardware_class=name) for name in ("plain", "other")}
    nodes = simulated_nodes(1, SLOT) | simulated_nodes(1, OTHER, joins_s=10.0)
    run = Simulation(
        Schedule(plan_of(suite).cohorts, 2),
        nodes,
        plan_for=lambda slots: make_plan(suite, MODEL, slots, machines, supports_all).cohorts,
    ).run()
    assert _published_once(run, replicas=2, cohorts=4)
    assert {each.slot.hardware_class for each in run.grounds.measured} == {"plain", "other"}


def test_a_replica_is_measured_on_its_own_class_alone() -> None:
    both = plan_of(suite_of(lengths=[64, 128], hardware="all"), slots=(SLOT, OTHER)).cohorts
    run = Simulation(Schedule(both, 3), simulated_nodes(2, SLOT) | simulated_nodes(2, OTHER)).run()
    assert _published_once(run, replicas=3, cohorts=4)
    assert all(each.slot.hardware_class == each.job.cohort.hardware_class for each in run.grounds.measured)


def test_replicas_of_a_cohort_spread_over_the_nodes_of_its_class() -> None:
    run = Simulation(Schedule(COHORTS, 6), simulated_nodes(3, SLOT)).run()
    for cohort in COHORTS:
        on = [each.slot.node_id for each in run.grounds.measured if each.job.cohort == cohort]
        assert {on.count(node) for node in set(on)} <= {1, 2, 3}
        assert len(set(on)) == 3


def test_a_lost_class_is_waited_for_and_then_given_up() -> None:
    nodes = simulated_nodes(1, SLOT, fails_s=15.0)
    simulation = Simulation(Schedule(COHORTS, 2), nodes, patience_s=100.0)
    with pytest.raises(FarmError, match=r"gave up after 100 s .* no node of class plain is up\. \d replicas"):
        simulation.run()
    told = [event.message for event in simulation.told.events if isinstance(event, Notice)]
    assert told.count("no node of class plain is up") == 1


def test_a_lost_class_is_given_up_though_others_hold_a_node_that_has_no_work_left() -> None:
    both = plan_of(suite_of(lengths=[64, 128, 256, 512], hardware="all"), slots=(SLOT, OTHER)).cohorts
    nodes = simulated_nodes(1, OTHER, fails_s=5.0) | simulated_nodes(2, SLOT)
    nodes["plain-0"].busy_until_s = float("inf")
    with pytest.raises(FarmError, match="no node of class other is up"):
        Simulation(Schedule(both, 1), nodes, patience_s=100.0).run()


def test_a_node_that_comes_back_in_time_finishes_the_run() -> None:
    nodes = simulated_nodes(1, SLOT, fails_s=15.0)
    nodes["again"] = SimulatedNode([replace(SLOT, node_id="again")], joins_s=90.0)
    assert _published_once(Simulation(Schedule(COHORTS, 2), nodes, patience_s=100.0).run(), replicas=2)


def test_a_node_that_others_hold_is_gone_around_and_taken_when_it_is_free() -> None:
    nodes = simulated_nodes(2, SLOT)
    nodes["plain-0"].busy_until_s = 60.0
    run = Simulation(Schedule(COHORTS, 4), nodes).run()
    assert _published_once(run, replicas=4)
    began = {node: min(m.began_s for m in run.grounds.measured if m.slot.node_id == node) for node in nodes}
    assert began["plain-1"] < 5.0
    assert began["plain-0"] >= 60.0
    assert sum(isinstance(event, Notice) for event in run.told.events) == 1


def test_nodes_that_others_hold_are_waited_for_as_long_as_it_takes_without_using_up_the_budget() -> None:
    nodes = simulated_nodes(1, SLOT)
    nodes["plain-0"].busy_until_s = 3000.0
    run = Simulation(Schedule(COHORTS, 2), nodes, patience_s=50.0, budget_s=200.0).run()
    assert _published_once(run, replicas=2)
    (notice,) = [event for event in run.told.events if isinstance(event, Notice)]
    assert notice.message == "somebody holds plain-0" and "however long" in notice.remedy


def _one_bad_of_four(error: type[ReplicaLostError], cohorts: int = 20) -> Simulation:
    """Four nodes on one of which everything fails at once, so that it is always the first to ask for more."""
    many = plan_of(suite_of(lengths=list(range(16, 16 * (cohorts + 1), 16)))).cohorts
    nodes = simulated_nodes(4, SLOT)
    nodes["plain-0"].bad = error
    return Simulation(Schedule(many, 1), nodes).run()


@pytest.mark.parametrize("error", [ReplicaLostError, NodeFaultError, NodeUnfitError])
def test_one_bad_node_among_busy_ones_fails_nothing_for_good(error: type[ReplicaLostError]) -> None:
    run = _one_bad_of_four(error)
    assert _published_once(run, replicas=1, cohorts=20)
    assert run.ledger.failed == set()


def test_a_node_where_one_cohort_after_another_fails_is_left_alone_and_that_is_told() -> None:
    run = _one_bad_of_four(ReplicaLostError)
    tried = [event.slot.node_id for event in run.told.events if isinstance(event, AttemptFailed)]
    assert tried == ["plain-0"] * MOST_IN_A_ROW
    told = [event for event in run.told.events if isinstance(event, Notice) and "in a row" in event.message]
    assert [event.message for event in told] == [
        "3 cohorts in a row failed on plain-0, the last because: the disk is full"
    ]


def test_a_node_that_was_left_alone_is_tried_again_later() -> None:
    nodes = simulated_nodes(2, SLOT)
    nodes["plain-0"].bad = ReplicaLostError
    simulation = Simulation(Schedule(COHORTS, 30), nodes)

    def mend(_: Job) -> int:
        nodes["plain-0"].bad = None
        return 0

    simulation.ledger.want = mend
    run = simulation.run()
    assert run.took_s > QUARANTINE_S
    again = [each.began_s for each in run.grounds.measured if each.slot.node_id == "plain-0"]
    assert min(again) == pytest.approx(QUARANTINE_S, abs=30.0)
    assert _published_once(run, replicas=30)


def test_cohorts_that_fail_everywhere_keep_no_node_from_work() -> None:
    many = plan_of(suite_of(lengths=list(range(16, 176, 16)))).cohorts
    nodes = simulated_nodes(2, SLOT)
    for node in nodes.values():
        node.bad = ReplicaLostError
    run = Simulation(Schedule(many, 1), nodes).run()
    assert len(run.ledger.failed) == 10
    assert run.took_s < QUARANTINE_S


def test_a_run_without_any_fit_node_is_given_up_rather_than_published_as_failed() -> None:
    nodes = simulated_nodes(1, SLOT)
    nodes["plain-0"].bad = NodeUnfitError
    simulation = Simulation(Schedule(COHORTS, 1), nodes, patience_s=50.0)
    with pytest.raises(FarmError, match="the disk is full"):
        simulation.run()
    assert not simulation.ledger.published


def test_what_was_measured_is_published_though_its_node_dies_as_its_processes_end() -> None:
    nodes = simulated_nodes(2, SLOT)
    nodes["plain-0"].fails_s = 16.0
    run = Simulation(
        Schedule(COHORTS[:2], 1), nodes, seconds_of=lambda _: 15.0, ledger=MemoryLedger(takes_s=5.0), ending_s=5.0
    ).run()
    assert _published_once(run, replicas=1, cohorts=2)
    assert run.grounds.attempts == 2


def test_a_replica_that_fails_is_tried_on_another_node_and_then_published_as_failed() -> None:
    run = Simulation(Schedule(COHORTS[:1], 1), simulated_nodes(3, SLOT), failing=1.0).run()
    tried = [event.slot.node_id for event in run.told.events if isinstance(event, AttemptFailed)]
    assert len(tried) == MOST_FAILURES
    assert all(one != other for one, other in pairwise(tried))
    assert run.ledger.failed == {(COHORTS[0].cohort, 0)}


def test_what_another_farm_publishes_meanwhile_is_not_measured() -> None:
    elsewhere = {(cohort.cohort, 1) for cohort in COHORTS}
    run = Simulation(Schedule(COHORTS, 2), simulated_nodes(2, SLOT), ledger=MemoryLedger(elsewhere)).run()
    assert set(run.ledger.published) == {(cohort.cohort, 0) for cohort in COHORTS}


def test_idle_nodes_take_the_replicas_that_a_pilot_turns_out_to_need() -> None:
    ledger = MemoryLedger(want=lambda job: 8 if job.replica == 0 else 0)
    run = Simulation(Schedule(COHORTS[:1], 1), simulated_nodes(4, SLOT), ledger=ledger).run()
    assert _published_once(run, replicas=8, cohorts=1)
    assert len({each.slot.node_id for each in run.grounds.measured}) == 4


def test_no_node_idles_while_work_it_can_do_is_left() -> None:
    run = Simulation(Schedule(COHORTS, 7), simulated_nodes(3, SLOT)).run()
    last_began = max(each.began_s for each in run.grounds.measured)
    for node in {each.slot.node_id for each in run.grounds.measured}:
        mine = sorted((m.began_s, m.ended_s) for m in run.grounds.measured if m.slot.node_id == node)
        gaps = [later[0] - earlier[1] for earlier, later in pairwise(mine)]
        assert max(gaps) < 1e-6
        assert mine[-1][1] >= last_began


def test_many_nodes_end_within_a_tenth_of_the_shortest_possible_schedule() -> None:
    cohorts = plan_of(suite_of(lengths=list(range(16, 512, 16)), batch_sizes=[1, 2])).cohorts
    run = Simulation(Schedule(cohorts, 2), simulated_nodes(16, SLOT)).run()
    seconds = [run.seconds_of(each.job) for each in run.grounds.measured]
    assert run.took_s <= 1.1 * lower_bound_s(seconds, 16) + POLL_S


def test_the_devices_of_a_node_take_turns_and_its_packed_slots_do_not() -> None:
    packed = [replace(SLOT, slot=f"here-cpu{n}", cores=(2 * n, 2 * n + 1), packed=True) for n in range(2)]
    gpu = replace(GPU_SLOT, packed=True)
    cohorts = plan_of(suite_of(lengths=[64, 128], threads=[1]), slots=(packed[0], gpu)).cohorts
    run = Simulation(Schedule(cohorts, 2), {"node": SimulatedNode([*packed, gpu])}).run()
    assert _published_once(run, replicas=2, cohorts=4)
    began = {name: [m.began_s for m in run.grounds.measured if m.slot.slot == name] for name in _names(packed)}
    assert all(min(times) == 0.0 for times in began.values())
    gpu_began = min(m.began_s for m in run.grounds.measured if m.slot.gpu)
    assert gpu_began == max(m.ended_s for m in run.grounds.measured if not m.slot.gpu)


def _names(slots: Sequence[Slot]) -> list[str]:
    return [slot.slot for slot in slots]


def test_a_budget_that_ends_leaves_first_replicas_whole_and_drops_later_ones() -> None:
    run = Simulation(Schedule(COHORTS, 5), simulated_nodes(1, SLOT), budget_s=60.0).run()
    assert {key for key in run.ledger.published if key[1] == 0} == {(cohort.cohort, 0) for cohort in COHORTS}
    assert len(run.ledger.published) < 5 * len(COHORTS)
    assert [event.message for event in run.told.events if isinstance(event, Notice)] == [
        "the time budget ended before every replica was measured"
    ]


def test_a_class_that_comes_late_has_the_whole_budget() -> None:
    both = plan_of(suite_of(lengths=[64, 128], hardware="all"), slots=(SLOT, OTHER)).cohorts
    nodes = simulated_nodes(1, SLOT) | simulated_nodes(1, OTHER, joins_s=300.0)
    run = Simulation(Schedule(both, 3), nodes, budget_s=150.0).run()
    assert _published_once(run, replicas=3, cohorts=4)


def test_what_the_slots_of_a_node_exclude_at_the_same_time_counts_once() -> None:
    now = [0.0]
    budget = Budget(EFFORTS["standard"], 100.0, clock=lambda: now[0])
    with budget.excluded(SLOT.node_id):
        now[0] = 5.0
        with budget.excluded(SLOT.node_id):
            now[0] = 20.0
            assert budget.left_s(SLOT) == 100.0
    now[0] = 30.0
    assert budget.left_s(SLOT) == 90.0
    assert budget.left_s(replace(SLOT, node_id="another")) == 70.0


def test_nodes_share_a_budget_class_by_class() -> None:
    alone = Simulation(Schedule(COHORTS, 1), simulated_nodes(1, SLOT), budget_s=100.0).run()
    four = Simulation(Schedule(COHORTS, 1), simulated_nodes(4, SLOT), budget_s=100.0).run()
    longest = COHORTS[-1].cohort

    def share(run: Simulation) -> float:
        began = [event.cohort.cohort for event in run.told.events if isinstance(event, ReplicaBegan)]
        return float(run.grounds.shares[began.index(longest)] or 0.0)

    assert share(four) > share(alone)


def test_a_node_that_the_run_cannot_use_is_left_alone() -> None:
    run = Simulation(Schedule(COHORTS, 2), simulated_nodes(1, SLOT) | simulated_nodes(2, OTHER)).run()
    joined = [event.hardware_class for event in run.told.events if isinstance(event, NodeJoined)]
    assert joined == ["plain"]
