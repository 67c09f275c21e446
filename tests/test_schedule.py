"""Replicas are handed out so that a budget that ends early leaves a whole table."""

from __future__ import annotations

from dataclasses import replace

from made_up import GPU_SLOT, SLOT, plan_of, suite_of

from farm.records import Slot
from farm.schedule import Schedule, fits

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


def test_a_slot_gets_only_cohorts_of_its_hardware_class() -> None:
    schedule = Schedule(COHORTS, replicas=1)
    assert schedule.take(replace(SLOT, hardware_class="other")) is None
    assert len(schedule.waiting()) == 3


def test_a_slot_gets_only_cohorts_of_its_device() -> None:
    cohorts = plan_of(suite_of(lengths=[64]), slots=(SLOT, GPU_SLOT)).cohorts
    assert [fits(cohort, SLOT) for cohort in cohorts] == [True, False]
    assert [fits(cohort, GPU_SLOT) for cohort in cohorts] == [False, True]
    schedule = Schedule(cohorts, replicas=1)
    assert _drain(schedule, GPU_SLOT) == [(cohorts[1].cohort, 0)]
    assert _drain(schedule, SLOT) == [(cohorts[0].cohort, 0)]
