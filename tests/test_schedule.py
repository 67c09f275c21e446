"""Replicas are handed out so that a budget that ends early leaves a whole table."""

from __future__ import annotations

from dataclasses import replace

from made_up import GPU_SLOT, SLOT, plan_of, suite_of

from farm.records import Slot
from farm.schedule import Schedule
from farm.stopping import weight

COHORTS = plan_of(suite_of(lengths=[64, 128, 256])).cohorts
NAMES = [cohort.cohort for cohort in COHORTS]


def _drain(schedule: Schedule, slot: Slot = SLOT) -> list[tuple[str, int]]:
    taken = []
    while (job := schedule.take(slot)) is not None:
        taken.append((job.cohort.cohort, job.replica))
        schedule.finish(job)
    return taken


def test_every_cohort_gets_its_first_replica_before_any_gets_its_second() -> None:
    order = _drain(Schedule(COHORTS, replicas=2))
    assert order == [(name, 0) for name in NAMES] + [(name, 1) for name in NAMES]


def test_what_is_published_is_not_measured_again() -> None:
    done = [(NAMES[0], 0), (NAMES[2], 1)]
    schedule = Schedule(COHORTS, replicas=2, done=done)
    taken = _drain(schedule)
    assert not set(taken) & set(done)
    assert sorted([*taken, *done]) == sorted((name, replica) for name in NAMES for replica in range(2))
    assert schedule.total == 6


def test_a_job_in_work_is_not_handed_out_twice() -> None:
    schedule = Schedule(COHORTS[:1], replicas=1)
    assert schedule.take(SLOT) is not None
    assert schedule.take(replace(SLOT, slot="another")) is None


def test_more_replicas_can_be_asked_for_and_are_handed_out() -> None:
    schedule = Schedule(COHORTS[:2], replicas=1)
    schedule.want(COHORTS[1], 3)
    assert schedule.wanted(COHORTS[1]) == 3
    assert _drain(schedule) == [(NAMES[0], 0), (NAMES[1], 0), (NAMES[1], 1), (NAMES[1], 2)]


def test_the_number_wanted_never_shrinks() -> None:
    schedule = Schedule(COHORTS[:1], replicas=3)
    schedule.want(COHORTS[0], 2)
    assert schedule.wanted(COHORTS[0]) == schedule.total == 3


def test_one_slot_takes_the_shortest_cohort_first_and_several_the_longest() -> None:
    schedule = Schedule(COHORTS, replicas=1)
    schedule.join(SLOT)
    assert _next(schedule) == NAMES[0]
    schedule.join(replace(SLOT, node_id="another"))
    assert _next(schedule) == NAMES[2]


def test_a_second_farm_on_the_same_run_begins_at_the_other_end() -> None:
    first, second = Schedule(COHORTS, replicas=1), Schedule(COHORTS, replicas=1, backwards=True)
    assert [_next(first), _next(second)] == [NAMES[0], NAMES[2]]


def _next(schedule: Schedule) -> str:
    return _next_on(schedule, SLOT)


def _next_on(schedule: Schedule, slot: Slot) -> str:
    job = schedule.take(slot)
    assert job is not None
    return job.cohort.cohort


def test_a_job_that_was_given_back_comes_before_all_others() -> None:
    schedule = Schedule(COHORTS, replicas=2)
    job = schedule.take(SLOT)
    assert job is not None
    schedule.take(SLOT)
    schedule.give_back(replace(job, attempt=2))
    assert schedule.take(SLOT) == replace(job, attempt=2)


OTHER = replace(SLOT, node_id="another")


def _failed_on_first() -> Schedule:
    """Two nodes: the second works, and what the first had failed."""
    schedule = Schedule(COHORTS[:2], replicas=1)
    for slot in (SLOT, OTHER):
        schedule.join(slot)
    assert schedule.take(OTHER) is not None
    job = schedule.take(SLOT)
    assert job is not None
    schedule.give_back(replace(job, tried=frozenset({SLOT.node_id})))
    return schedule


def test_a_job_waits_for_a_node_where_it_did_not_fail_even_if_all_those_work() -> None:
    schedule = _failed_on_first()
    assert not schedule.has_work(SLOT)
    assert schedule.take(SLOT) is None
    assert schedule.take(OTHER) is not None


def test_a_job_returns_to_where_it_failed_when_every_other_node_is_gone_set_aside_or_held() -> None:
    for end in (
        lambda schedule: schedule.leave(OTHER),
        lambda schedule: schedule.set_aside(OTHER.node_id),
        lambda schedule: schedule.hold(OTHER.node_id, by_others=True),
    ):
        schedule = _failed_on_first()
        assert not schedule.has_work(SLOT)
        end(schedule)
        assert schedule.has_work(SLOT)
        assert schedule.take(SLOT) is not None


def test_a_node_tries_what_is_new_before_what_failed_there() -> None:
    schedule = Schedule(COHORTS[:2], replicas=1)
    schedule.join(SLOT)
    job = schedule.take(SLOT)
    assert job is not None
    schedule.give_back(replace(job, tried=frozenset({SLOT.node_id})))
    assert [_next_on(schedule, SLOT), _next_on(schedule, SLOT)] == [NAMES[1], NAMES[0]]


def test_a_node_that_is_set_aside_gets_nothing_until_it_is_let_back() -> None:
    schedule = Schedule(COHORTS, replicas=1)
    for slot in (SLOT, OTHER):
        schedule.join(slot)
    assert schedule.replaceable(SLOT)
    schedule.set_aside(SLOT.node_id)
    assert not schedule.has_work(SLOT)
    assert schedule.take(SLOT) is None
    assert not schedule.replaceable(OTHER)
    schedule.let_back(SLOT.node_id)
    assert schedule.take(SLOT) is not None


def test_what_is_done_counts_only_what_is_asked_for() -> None:
    done = [(NAMES[0], 0), ("of a class that is not there", 0)]
    schedule = Schedule(COHORTS[:2], replicas=1, done=done)
    assert (schedule.done, schedule.total) == (1, 2)
    assert schedule.waiting_by_kind() == {("plain", "cpu"): 1}
    assert schedule.unfinished_classes() == {"plain"}


def test_a_node_prefers_cohorts_that_it_measured_less_often() -> None:
    schedule = Schedule(COHORTS[:2], replicas=2)
    other = replace(SLOT, node_id="another")
    for slot in (SLOT, other):
        schedule.join(slot)
    order = [schedule.take(slot) for slot in (SLOT, other, SLOT, other)]
    taken = [job.cohort.cohort for job in order if job]
    assert taken[0] != taken[2]
    assert taken[1] != taken[3]


def test_it_is_complete_when_nothing_waits_and_nobody_works() -> None:
    schedule = Schedule(COHORTS[:1], replicas=2)
    first, second = schedule.take(SLOT), schedule.take(SLOT)
    assert first and second and not schedule.complete
    schedule.finish(first)
    assert not schedule.complete
    schedule.drop(second)
    assert schedule.complete
    assert (schedule.done, schedule.total, schedule.unfinished) == (1, 2, 0)


def test_cohorts_that_come_later_are_handed_out_and_known_ones_are_not_doubled() -> None:
    schedule = Schedule(COHORTS[:1], replicas=1)
    schedule.add(COHORTS[:2])
    assert _drain(schedule) == [(NAMES[0], 0), (NAMES[1], 0)]


def test_what_waits_is_weighed_as_it_comes_and_goes() -> None:
    schedule = Schedule(COHORTS, replicas=1)
    whole = schedule.waiting_weight("plain")
    assert whole == sum(weight(cohort) for cohort in COHORTS)
    job = schedule.take(SLOT)
    assert job is not None
    assert schedule.waiting_weight("plain") == whole - weight(job.cohort)
    schedule.give_back(job)
    assert schedule.waiting_weight("plain") == whole


def test_a_slot_gets_only_cohorts_of_its_hardware_class() -> None:
    schedule = Schedule(COHORTS, replicas=1)
    assert schedule.take(replace(SLOT, hardware_class="other")) is None
    assert sum(schedule.waiting_by_kind().values()) == 3


def test_a_slot_gets_only_cohorts_of_its_device() -> None:
    cohorts = plan_of(suite_of(lengths=[64]), slots=(SLOT, GPU_SLOT)).cohorts
    schedule = Schedule(cohorts, replicas=1)
    assert _drain(schedule, GPU_SLOT) == [(cohorts[1].cohort, 0)]
    assert _drain(schedule, SLOT) == [(cohorts[0].cohort, 0)]
