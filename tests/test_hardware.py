"""A suite's `hardware` means nodes by class, label or name; each class gets cohorts of its own."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from made_up import GIB, GPU_SLOT, MACHINE, MODEL, SLOT, plan_of, suite_of, supports_all

from farm.errors import MethodUnsupportedError, RequestError
from farm.hardware import admits, classify, may_admit
from farm.nodes import HEAD_RESOURCE, Node, makeshift_of, workers_of
from farm.plan import make_plan
from farm.records import Device, Gpu, Machine, ModelInfo, Slot
from farm.slots import slots_of

BLUE = replace(SLOT, hardware_class="plain-blue", node_id="b" * 56, hostname="b1", labels=(("hardware", "blue"),))
RED = replace(SLOT, hardware_class="plain-red", node_id="r" * 56, hostname="r1", labels=(("hardware", "red"),))


def test_nodes_of_one_fingerprint_are_told_apart_by_the_hardware_label() -> None:
    assert classify("xeon-1", {"hardware": "Fast disks"}) == "xeon-1-fast-disks"
    assert classify("xeon-1", {"zone": "a"}) == "xeon-1"


@pytest.mark.parametrize(
    ("hardware", "admitted"),
    [
        ("any", (True, True)),
        ("all", (True, True)),
        ("hardware=blue", (True, False)),
        ("hardware = red", (False, True)),
        ("zone=a", (False, False)),
        ("plain-blue", (True, False)),
        ("r1", (False, True)),
        ("r" * 56, (False, True)),
    ],
)
def test_hardware_is_a_class_a_label_or_a_node(hardware: str, admitted: tuple[bool, bool]) -> None:
    assert (admits(hardware, BLUE), admits(hardware, RED)) == admitted


def _classes(hardware: str, *slots: Slot) -> list[str]:
    return [cohort.hardware_class for cohort in plan_of(suite_of(lengths=[64], hardware=hardware), slots=slots).cohorts]


def test_any_takes_the_class_with_most_slots_and_all_takes_each() -> None:
    assert _classes("any", BLUE, RED, replace(RED, node_id="r2")) == ["plain-red"]
    assert _classes("all", BLUE, RED, replace(RED, node_id="r2")) == ["plain-blue", "plain-red"]


def test_a_label_takes_every_class_of_the_nodes_that_have_it() -> None:
    slots = [replace(each, labels=(*each.labels, ("zone", "a"))) for each in (BLUE, RED)]
    assert _classes("zone=a", *slots, SLOT) == ["plain-blue", "plain-red"]


def test_cohorts_of_two_classes_never_share_an_id() -> None:
    cohorts = plan_of(suite_of(hardware="all"), slots=(BLUE, RED)).cohorts
    assert len({cohort.cohort for cohort in cohorts}) == len(cohorts) == 4


def test_planning_for_a_class_that_joins_later_gives_what_planning_for_all_at_once_gives() -> None:
    suite = suite_of(hardware="all")
    together = plan_of(suite, slots=(BLUE, RED)).cohorts
    apart = [*plan_of(suite, slots=(BLUE,)).cohorts, *plan_of(suite, slots=(RED,)).cohorts]
    assert {cohort.cohort: cohort for cohort in together} == {cohort.cohort: cohort for cohort in apart}


def test_a_class_that_joins_later_lacks_threads_as_it_would_have_from_the_beginning() -> None:
    suite, small = suite_of(threads=[1, 4], lengths=[64], hardware="all"), replace(RED, cores=(0,))
    machines = {"plain-red": replace(MACHINE, hardware_class="plain-red")}
    late = make_plan(suite, MODEL, [small], machines, supports_all, late=True)
    together = plan_of(suite, slots=(BLUE, small))
    assert list(late.cohorts) == [each for each in together.cohorts if each.hardware_class == "plain-red"]
    assert late.left_out == together.left_out == {"4 threads on plain-red": "it has 1 core"}


def test_nodes_without_the_label_are_not_even_asked_what_they_are() -> None:
    assert [may_admit("hardware=blue", dict(slot.labels)) for slot in (BLUE, RED)] == [True, False]
    assert all(may_admit(each, {}) for each in ("any", "all", "r1"))


def test_a_label_that_no_node_has_is_refused() -> None:
    with pytest.raises(RequestError, match="no node has the label zone=b; of classes there are plain-blue"):
        _classes("zone=b", BLUE)


def test_of_several_classes_one_without_the_asked_threads_is_left_out_with_the_reason() -> None:
    small = replace(RED, cores=(0,))
    plan = plan_of(suite_of(threads=[1, 4], lengths=[64], hardware="all"), slots=(BLUE, small))
    found = [(cohort.hardware_class, cohort.workload.threads) for cohort in plan.cohorts]
    assert found == [("plain-blue", 1), ("plain-red", 1), ("plain-blue", 4)]
    assert plan.left_out == {"4 threads on plain-red": "it has 1 core"}


def _not_on_red(method_id: str, machine: Machine, device: Device, model: ModelInfo, options: object) -> None:
    del device, model, options
    if machine.hardware_class == "plain-red":
        raise MethodUnsupportedError(f"{method_id} needs what is not here")


def test_of_several_classes_one_on_which_the_baseline_cannot_run_is_left_out_with_the_reason() -> None:
    plan = plan_of(suite_of(lengths=[64], hardware="all"), slots=(BLUE, RED), supported=_not_on_red)
    assert [cohort.hardware_class for cohort in plan.cohorts] == ["plain-blue"]
    assert plan.left_out == {"cpu on plain-red": "control-null needs what is not here"}


TWO_SOCKETS = replace(
    MACHINE,
    usable_cpus=tuple(range(16)),
    smt_siblings=tuple((cpu,) for cpu in range(16)),
    numa_nodes=(tuple(range(8)), tuple(range(8, 16))),
    gpus=("G",) * 4,
    gpu_devices=tuple(Gpu("G", f"GPU-{number}", 80 * GIB) for number in range(4)),
)


def _slots(exclusive: Any, *devices: Device, machine: Machine = TWO_SOCKETS) -> list[Slot]:
    return slots_of(Node("n", 16.0, len(machine.gpus), machine, (("zone", "a"),)), devices, "idle", exclusive)


def test_a_node_is_one_slot_for_a_cohort_that_has_it_to_itself() -> None:
    (only,) = _slots("node", "cpu")
    assert (len(only.cores), only.ray_cpus, only.packed) == (15, 16.0, False)
    assert only.labels == (("zone", "a"),)


def test_a_packed_node_has_a_slot_for_each_numa_node_and_each_gpu() -> None:
    cpus = _slots("slot", "cpu")
    assert [(min(slot.cores), max(slot.cores)) for slot in cpus] == [(1, 7), (8, 15)]
    gpus = _slots("slot", "cuda")
    assert len({core for slot in gpus for core in slot.cores}) == sum(len(slot.cores) for slot in gpus) == 15
    for slots in (cpus, gpus):
        assert all(slot.packed for slot in slots)
        assert sum(slot.ray_cpus for slot in slots) == 16.0
        assert sum(slot.memory_bytes for slot in slots) <= TWO_SOCKETS.memory_bytes


def test_more_gpus_than_cores_share_cores() -> None:
    few = replace(TWO_SOCKETS, smt_siblings=((0,), (1,)), numa_nodes=((0, 1),))
    assert [slot.cores for slot in _slots("slot", "cuda", machine=few)] == [(0,), (0,), (1,), (1,)]


def test_a_machine_of_two_classes_of_devices_is_planned_for_each() -> None:
    suite = suite_of(lengths=[64], hardware="all")
    plan = make_plan(suite, MODEL, [SLOT, GPU_SLOT], {"plain": MACHINE}, supports_all)
    assert [cohort.workload.device for cohort in plan.cohorts] == ["cpu", "cuda"]


def _ray_node(node_id: str, **resources: float) -> tuple[str, dict[str, Any]]:
    return node_id, {"NodeID": node_id, "Resources": {"CPU": 1.0, **resources}}


@pytest.mark.parametrize(("driver", "left"), [("head", {"w1", "w2"}), ("w1", {"w2"})])
def test_the_head_and_the_drivers_node_are_no_workers(
    driver: str, left: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: driver))
    alive = dict([_ray_node("head", **{HEAD_RESOURCE: 1.0}), _ray_node("w1"), _ray_node("w2")])
    assert set(workers_of(alive)) == left


@pytest.mark.parametrize(
    ("driver", "others", "measured"), [("head", [], {"head"}), ("w1", ["w1"], {"w1"}), ("elsewhere", [], {"head"})]
)
def test_without_workers_the_drivers_node_is_measured_and_the_head_where_it_is_alone(
    driver: str, others: list[str], measured: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: driver))
    alive = dict([_ray_node("head", **{HEAD_RESOURCE: 1.0}), *map(_ray_node, others)])
    assert workers_of(alive) == {}
    assert set(makeshift_of(alive)) == measured
