"""Plans are laid out from values alone, the same every time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from made_up import GIB, GPU_SLOT, MACHINE, METHODS, MODEL, SLOT, plan_of, suite_of, supports_all_but

from farm.errors import MethodUnsupportedError, RequestError
from farm.plan import check_support, resolve_devices, round_order
from farm.records import Cohort, Device, Machine, ModelInfo
from tasks.controls import Wrong
from tasks.method import find_method


def _cell_ids(**keys: Any) -> list[str]:
    return [cell.cell for cohort in plan_of(suite_of(**keys)).cohorts for cell in cohort.cells]


def test_short_lengths_come_first_whatever_the_suites_order() -> None:
    plan = plan_of(suite_of(lengths=[256, 64, 128], batch_sizes=[2, 1]))
    shapes = [(cohort.workload.length, cohort.workload.batch_size) for cohort in plan.cohorts]
    assert shapes == [(64, 1), (64, 2), (128, 1), (128, 2), (256, 1), (256, 2)]


def test_every_cohort_holds_baseline_twin_and_candidates_in_the_suites_order() -> None:
    plan = plan_of(suite_of(baseline="control-work"))
    assert len(plan.cohorts) == 2
    for cohort in plan.cohorts:
        assert [cell.role for cell in cohort.cells] == ["baseline", "twin", "candidate", "candidate"]
        names = [cell.name for cell in cohort.cells]
        assert names == ["control-work", "control-work~twin", "control-null", "control-wrong"]


def test_the_twin_is_the_baseline_under_another_id() -> None:
    baseline, twin = plan_of().cohorts[0].cells[:2]
    assert replace(twin, cell=baseline.cell, name=baseline.name, role="baseline") == baseline
    assert twin.cell != baseline.cell


def test_ids_are_the_same_at_every_planning() -> None:
    assert plan_of() == plan_of()


def test_no_two_cells_and_no_two_cohorts_share_an_id() -> None:
    plan = plan_of(suite_of(batch_sizes=[1, 2], threads=[1, 2]))
    cells = [cell.cell for cohort in plan.cohorts for cell in cohort.cells]
    assert len(set(cells)) == len(cells) == 8 * 4
    assert len({cohort.cohort for cohort in plan.cohorts}) == 8


def test_ids_change_with_the_methods_options() -> None:
    def ids(units: int) -> set[str]:
        return set(_cell_ids(methods=["control-null", {"method": "control-work", "options": {"units": units}}]))

    assert len(ids(1) - ids(2)) == 2
    assert ids(1) & ids(2) == {name for name in ids(1) if name.startswith("control-null")}


def test_ids_change_with_the_kind_of_inputs() -> None:
    assert not set(_cell_ids(inputs="full")) & set(_cell_ids(inputs="padded"))


def test_auto_threads_are_the_slots_cores() -> None:
    assert {cohort.workload.threads for cohort in plan_of().cohorts} == {4}


def test_more_threads_than_a_slot_has_cores_are_refused() -> None:
    with pytest.raises(RequestError, match=r"threads: 5 is more than the 4 cores that a slot has here. Use at most 4"):
        plan_of(suite_of(threads=[1, 5]))


def test_a_length_beyond_the_models_positions_is_refused() -> None:
    with pytest.raises(RequestError, match="lengths: 513 is over the 512 positions of model 'made-up'"):
        plan_of(suite_of(lengths=[64, 513]))


def test_hardware_that_no_node_has_is_refused() -> None:
    with pytest.raises(RequestError, match="hardware: no node is of class 'fancy'"):
        plan_of(suite_of(hardware="fancy"))


def test_the_named_hardware_class_is_planned_for() -> None:
    fancy = replace(SLOT, slot="there-cpu0", hardware_class="fancy", cores=(0, 1))
    plan = plan_of(suite_of(hardware="fancy"), slots=(SLOT, replace(SLOT, slot="b"), fancy))
    assert {cohort.hardware_class for cohort in plan.cohorts} == {"fancy"}
    assert {cohort.workload.threads for cohort in plan.cohorts} == {2}


def test_any_hardware_is_the_class_with_most_slots() -> None:
    fancy = replace(SLOT, slot="there-cpu0", hardware_class="fancy")
    plan = plan_of(slots=(fancy, SLOT, replace(SLOT, slot="here-cpu1")))
    assert {cohort.hardware_class for cohort in plan.cohorts} == {"plain"}


def test_cuda_is_refused_where_no_node_has_a_gpu() -> None:
    bare = replace(MACHINE, no_gpu="NVML Shared Library Not Found")
    with pytest.raises(RequestError, match="devices: the suite asks for cuda, but no node has a CUDA GPU") as refused:
        resolve_devices(suite_of(devices=["cuda"]), [bare])
    for missing in (
        "(NVML Shared Library Not Found)",
        "a PyTorch built for CUDA",
        "inference-farm[gpu]",
        "--device cpu",
    ):
        assert missing in str(refused.value)


@pytest.mark.parametrize(
    ("asked", "gpus", "expected"),
    [
        (["auto"], (), ("cpu",)),
        (["auto"], ("A GPU",), ("cpu", "cuda")),
        (["cpu"], ("A GPU",), ("cpu",)),
        (["cuda"], ("A GPU",), ("cuda",)),
    ],
)
def test_auto_devices_are_all_that_the_nodes_have(
    asked: list[str], gpus: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert resolve_devices(suite_of(devices=asked), [MACHINE, replace(MACHINE, gpus=gpus)]) == expected


def test_cpu_and_gpu_have_cohorts_of_their_own() -> None:
    plan = plan_of(slots=(SLOT, GPU_SLOT))
    found = [(cohort.workload.length, cohort.workload.device) for cohort in plan.cohorts]
    assert found == [(64, "cpu"), (64, "cuda"), (128, "cpu"), (128, "cuda")]


def test_an_unsupported_method_stays_in_the_plan_with_its_reason() -> None:
    plan = plan_of(supported=supports_all_but("control-wrong"))
    assert plan.unsupported == {"control-wrong": "control-wrong needs what is not here"}
    assert [cell.name for cell in plan.cohorts[0].cells][2:] == list(METHODS[1:])


def test_a_method_that_cannot_run_the_model_is_unsupported_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: Wrong, model: ModelInfo) -> None:
        raise MethodUnsupportedError(f"{self.id} cannot run {model.family} models")

    monkeypatch.setattr(Wrong, "check_model", refuse)
    plan = plan_of(supported=check_support)
    assert plan.unsupported == {"control-wrong": "control-wrong cannot run distilbert models"}


def test_a_baseline_that_cannot_run_is_refused_with_the_remedy() -> None:
    with pytest.raises(RequestError, match=r"baseline: control-null needs what is not here. Name another one"):
        plan_of(supported=supports_all_but("control-null"))


def _packed(memory_bytes: int, methods: int) -> tuple[Cohort, ...]:
    chosen = [{"method": "control-null", "name": f"m{number}"} for number in range(methods)]
    suite = suite_of(methods=chosen, lengths=[64])
    return plan_of(suite, slots=(replace(SLOT, memory_bytes=memory_bytes),)).cohorts


def test_cells_that_do_not_fit_the_memory_are_split_in_packs_with_baseline_and_twin_each() -> None:
    packs = _packed(memory_bytes=8 * GIB, methods=8)
    assert len(packs) > 1
    for pack in packs:
        assert [cell.role for cell in pack.cells[:2]] == ["baseline", "twin"]
        assert pack.baseline == packs[0].baseline
    candidates = [cell.name for pack in packs for cell in pack.cells[2:]]
    assert candidates == [f"m{number}" for number in range(1, 8)]
    assert len({pack.cohort for pack in packs}) == len(packs)


def test_methods_that_cannot_run_here_take_no_room_in_a_pack() -> None:
    chosen = [{"method": "control-null", "name": f"m{number}"} for number in range(8)]
    suite = suite_of(methods=["pytorch-fp32", "openvino-bf16", *chosen], lengths=[64])
    slots = (replace(SLOT, memory_bytes=8 * GIB),)
    without = plan_of(suite_of(methods=["pytorch-fp32", *chosen], lengths=[64]), slots=slots).cohorts
    among = plan_of(suite, slots=slots, supported=supports_all_but("openvino-bf16")).cohorts
    assert [sum(not cell.unsupported for cell in pack.cells) for pack in among] == [len(p.cells) for p in without]


def _comparing(memory_bytes: int, *compare: list[str]) -> list[list[str]]:
    chosen = [{"method": "control-null", "name": f"m{number}"} for number in range(8)]
    suite = suite_of(methods=chosen, lengths=[64], compare=list(compare))
    cohorts = plan_of(suite, slots=(replace(SLOT, memory_bytes=memory_bytes),)).cohorts
    return [[cell.name for cell in cohort.cells[2:]] for cohort in cohorts]


def test_methods_that_are_compared_directly_stand_in_one_pack() -> None:
    packs = _comparing(8 * GIB, ["m1", "m7"])
    assert [pack for pack in packs if {"m1", "m7"} & set(pack)] == [packs[0]]
    assert sorted(name for pack in packs for name in pack) == [f"m{number}" for number in range(1, 8)]


def test_groups_that_share_a_method_stay_together() -> None:
    packs = _comparing(10 * GIB, ["m1", "m5"], ["m5", "m7"])
    assert {"m1", "m5", "m7"} <= set(packs[0])


def test_a_comparison_that_does_not_fit_the_memory_is_refused() -> None:
    with pytest.raises(RequestError, match=r"compare: 3 methods do not fit .* only 1 do"):
        _comparing(4 * GIB, ["m1", "m2", "m3"])


def _on_gpu(gpu_bytes: int | None, methods: int = 12) -> list[list[str]]:
    chosen = [{"method": "control-null", "name": f"m{number}"} for number in range(methods)]
    suite = suite_of(methods=chosen, lengths=[64], devices=["cuda"])
    slot = replace(GPU_SLOT, gpu_memory_bytes=gpu_bytes)
    return [[cell.name for cell in cohort.cells] for cohort in plan_of(suite, slots=(slot,)).cohorts]


def test_cells_that_do_not_fit_the_gpu_together_are_split_in_packs_with_a_baseline_each() -> None:
    packs = _on_gpu(24_000_000_000)
    assert len(packs) > 1
    assert all(pack[:2] == ["m0", "m0~twin"] for pack in packs)
    assert [name for pack in packs for name in pack[2:]] == [f"m{number}" for number in range(1, 12)]


@pytest.mark.parametrize("gpu_bytes", [140_000_000_000, None])
def test_a_large_gpu_or_one_of_unknown_size_holds_them_all(gpu_bytes: int | None) -> None:
    assert len(_on_gpu(gpu_bytes)) == 1


def test_even_the_smallest_gpu_gets_one_candidate_at_a_time() -> None:
    assert [len(pack) for pack in _on_gpu(2_000_000_000, methods=4)] == [3, 3, 3]


def test_cells_that_fit_the_memory_stay_together() -> None:
    assert len(_packed(memory_bytes=64 * GIB, methods=8)) == 1


def test_even_the_smallest_memory_gets_one_candidate_at_a_time() -> None:
    assert [len(pack.cells) for pack in _packed(memory_bytes=GIB, methods=4)] == [3, 3, 3]


def test_a_baseline_alone_is_still_a_cohort_with_its_twin() -> None:
    (only,) = _packed(memory_bytes=GIB, methods=1)
    assert [cell.role for cell in only.cells] == ["baseline", "twin"]


LIVING = [f"cell-{number}" for number in range(6)]
COHORT = plan_of().cohorts[0]


@pytest.mark.parametrize("number", range(0, 10, 2))
def test_an_odd_round_runs_the_reverse_of_the_even_one_before(number: int) -> None:
    assert round_order(COHORT, 0, number + 1, LIVING) == round_order(COHORT, 0, number, LIVING)[::-1]


@pytest.mark.parametrize("number", range(5))
def test_a_round_is_a_permutation_of_the_living(number: int) -> None:
    living = LIVING[: 6 - number]
    assert sorted(round_order(COHORT, 0, number, living)) == living


def test_orders_are_seeded_by_cohort_replica_and_pair_of_rounds() -> None:
    orders = {
        round_order(cohort, replica, number, LIVING)
        for cohort in plan_of().cohorts
        for replica in range(3)
        for number in (0, 2, 4)
    }
    assert len(orders) >= 17  # of 18 draws from 720 orders
    assert round_order(COHORT, 1, 2, LIVING) == round_order(COHORT, 1, 2, LIVING[::-1])


def test_every_cell_comes_first_at_some_time() -> None:
    assert {round_order(COHORT, 0, number, LIVING)[0] for number in range(60)} == set(LIVING)


def test_the_model_decides_what_fits() -> None:
    large = replace(MODEL, weight_bytes=40 * MODEL.weight_bytes)
    assert len(plan_of(model=large).cohorts) > len(plan_of().cohorts)


def _no_cuda(method_id: str, machine: Machine, device: Device, model: ModelInfo, options: object) -> None:
    del machine, model, options
    if device == "cuda":
        raise MethodUnsupportedError(f"{method_id} needs CUDA")


def test_auto_goes_on_without_a_gpu_on_which_the_baseline_cannot_run() -> None:
    plan = plan_of(slots=[SLOT, GPU_SLOT], supported=_no_cuda)
    assert {cohort.workload.device for cohort in plan.cohorts} == {"cpu"}
    assert plan.left_out == {"cuda": "control-null needs CUDA"}


def test_a_gpu_that_was_asked_for_by_name_is_never_left_out() -> None:
    with pytest.raises(RequestError, match="baseline: control-null needs CUDA"):
        plan_of(suite_of(devices=["cuda"]), slots=[GPU_SLOT], supported=_no_cuda)


@pytest.mark.parametrize(
    ("method_id", "option"), [("pytorch-fp32", {"sdpa_backend": "flash"}), ("onnxruntime-fp32", {"cuda_graph": True})]
)
def test_an_option_of_gpus_is_none_of_cpus(method_id: str, option: dict[str, Any]) -> None:
    method = find_method(method_id)
    method.check_options(MACHINE, "cuda", option)
    method.check_options(MACHINE, "cpu", {})
    with pytest.raises(MethodUnsupportedError, match=f"{method_id}: {next(iter(option))} is an option on cuda alone"):
        check_support(method_id, MACHINE, "cpu", MODEL, option)
