"""The autoscaler is asked for what helps with what waits, and for no more than that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from made_up import GPU_SLOT, SLOT, suite_of

from farm import node_wish
from farm.node_wish import MOST_IN_VAIN, TOGETHER_S, NodeKind, NodeWish, nodes_wanted, usual_kind
from farm.schedule import Kind

LABELS = {"red": ("hardware", "red")}
ANY = NodeKind(gpu=False, label=None)
RED = NodeKind(gpu=False, label=("hardware", "red"))


def _wanted(waiting: Mapping[Kind, int], *up: Sequence[Any], **keys: Any) -> dict[NodeKind, int]:
    return dict(nodes_wanted(suite_of(**keys), waiting, up, LABELS))


def test_nodes_are_asked_for_only_as_long_as_there_are_jobs_for_them() -> None:
    assert _wanted({("plain", "cpu"): 5}, [SLOT], nodes=3) == {ANY: 2}
    assert _wanted({("plain", "cpu"): 1}, [SLOT], nodes=3) == {ANY: 1}
    assert _wanted({}, [SLOT], nodes=3) == {}
    assert _wanted({("plain", "cpu"): 5}, [SLOT], nodes=1) == {}


def test_a_class_that_lost_its_nodes_is_asked_for_by_its_label_while_another_is_up() -> None:
    assert _wanted({("red", "cpu"): 2, ("plain", "cpu"): 2}, [SLOT], hardware="all") == {RED: 1}
    assert _wanted({("red", "cpu"): 2}, [replace(SLOT, hardware_class="red")], hardware="all") == {}
    both = {("red", "cpu"): 1, ("red", "cuda"): 1}
    assert _wanted(both, [SLOT], hardware="all") == {replace(RED, gpu=True): 1}


def test_a_suite_that_names_the_gpu_asks_for_a_node_that_has_one() -> None:
    assert [usual_kind(suite_of(devices=each)).gpu for each in (["auto"], ["cpu"], ["cpu", "cuda"])] == [
        False,
        False,
        True,
    ]
    assert _wanted({("plain", "cuda"): 1}, [GPU_SLOT], nodes=2, devices=["cuda"]) == {replace(ANY, gpu=True): 1}


class _Ray:
    """Ray's placement groups, of which a test says which are placed."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.groups: list[Any] = []
        self.placed = False
        patch.setattr(node_wish, "placement_group", self._make)
        patch.setattr(node_wish, "remove_placement_group", self.groups.remove)
        patch.setattr(node_wish, "placement_group_table", lambda _: {"state": "CREATED" if self.placed else "PENDING"})

    def _make(self, bundles: list[Any], strategy: str, bundle_label_selector: list[Any]) -> Any:
        self.groups.append(
            SimpleNamespace(bundle_count=len(bundles), selector=bundle_label_selector, strategy=strategy)
        )
        return self.groups[-1]


def test_what_is_asked_for_shrinks_as_nodes_come_and_only_new_ones_can_satisfy_it(monkeypatch) -> None:
    ray, wish = _Ray(monkeypatch), NodeWish()
    assert not list(wish.ask({RED: 2}, ["a"]))
    (group,) = ray.groups
    assert group.strategy == "STRICT_SPREAD"
    assert group.selector == [{"hardware": "red", "ray.io/node-id": "!in(a)"}] * 2
    assert not list(wish.ask({RED: 2}, ["a"]))
    assert ray.groups == [group]
    assert not list(wish.ask({RED: 1}, ["a", "b"]))
    assert [each.selector for each in ray.groups] == [[{"hardware": "red", "ray.io/node-id": "!in(a,b)"}]]
    assert not list(wish.ask({}, ["a", "b", "c"]))
    assert ray.groups == []


def test_nodes_that_come_and_are_no_help_are_not_asked_for_for_ever(monkeypatch) -> None:
    ray, wish = _Ray(monkeypatch), NodeWish()
    list(wish.ask({ANY: 1}, []))
    ray.placed = True
    told = [list(wish.ask({ANY: 1}, [str(number)])) for number in range(MOST_IN_VAIN)]
    assert [len(each) for each in told] == [0] * (MOST_IN_VAIN - 1) + [1]
    assert ray.groups == []


def test_where_not_all_come_together_one_after_the_other_is_asked_for(monkeypatch) -> None:
    now_s = [0.0]
    ray, wish = _Ray(monkeypatch), NodeWish(lambda: now_s[0])
    assert not list(wish.ask({RED: 3}, []))
    now_s[0] = TOGETHER_S
    assert not list(wish.ask({RED: 3}, []))
    assert [each.bundle_count for each in ray.groups] == [3]
    now_s[0] += 1
    assert not list(wish.ask({RED: 3}, []))
    assert [each.bundle_count for each in ray.groups] == [1]
    now_s[0] += 10 * TOGETHER_S
    assert not list(wish.ask({RED: 3}, []))
    assert [each.bundle_count for each in ray.groups] == [1]
    ray.placed = True
    assert not list(wish.ask({RED: 2}, ["a"]))
    assert [each.selector for each in ray.groups] == [[{"hardware": "red", "ray.io/node-id": "!in(a)"}] * 2]
