"""Which of a cluster's nodes are measured on, with Ray's own answers made up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from made_up import MACHINE, MODEL, suite_of
from ray.exceptions import RayTaskError
from simulated_cluster import Told

from farm import cluster as module
from farm import connecting, nodes
from farm.budget import Budget
from farm.cluster import MOST_SILENCES, RayCluster
from farm.errors import RequestError
from farm.events import Notice
from farm.nodes import HEAD_RESOURCE
from farm.preview import preview
from farm.stopping import EFFORTS

Answers = Mapping[str, Any]


def _node(node_id: str, labels: Mapping[str, str] | None = None, **resources: float) -> dict[str, Any]:
    resources = {"CPU": 4.0, **resources}
    return {"NodeID": node_id, "NodeManagerHostname": node_id, "Resources": resources, "Labels": dict(labels or {})}


HEAD = _node("head", **{HEAD_RESOURCE: 1.0})


class _Ray:
    """A cluster of these nodes, each of which answers with its machine, with an error, or with nothing."""

    def __init__(self, patch: pytest.MonkeyPatch, *told: dict[str, Any]) -> None:
        self.nodes = list(told)
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        patch.setattr(nodes, "alive_nodes", lambda: {node["NodeID"]: node for node in self.nodes})
        patch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "head"))
        patch.setattr("ray.wait", lambda asked, **_: (asked, []))
        patch.setattr(nodes, "ask_machine", self._ask)
        patch.setattr(nodes, "tell_machine", self._tell)
        patch.setattr(module.NodeWish, "ask", lambda *_: iter(()))

    def _ask(self, node_id: str) -> str:
        self.asked.append(node_id)
        return node_id

    def _tell(self, asked: str) -> Any:
        answer = self.answers.get(asked, MACHINE)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def cluster(self, told: Told, **keys: Any) -> RayCluster:
        budget = Budget(EFFORTS["quick"], None)
        bench: Any = SimpleNamespace(suite=suite_of(**keys), model=MODEL, listener=told, budget=budget)
        return RayCluster(bench, shared=True)


def _now(cluster: RayCluster) -> set[str]:
    return set(asyncio.run(_slots(cluster)))


async def _slots(cluster: RayCluster) -> Any:
    return await cluster.slots({})


def _messages(told: Told) -> list[str]:
    return [event.message for event in told.events if isinstance(event, Notice)]


def test_the_head_is_left_when_a_worker_of_its_class_is_there(monkeypatch) -> None:
    ray, told = _Ray(monkeypatch, HEAD), Told()
    cluster = ray.cluster(told)
    assert [slot.node_id for slot in cluster.first_slots()] == ["head"]
    assert "the cluster has no node but its head and this driver's" in _messages(told)
    assert _now(cluster) == {"head"}
    ray.nodes.append(_node("other", {"hardware": "red"}))
    assert _now(cluster) == {"head", "other"}  # or nobody could measure what was planned for the head's class
    ray.nodes.append(_node("worker"))
    assert _now(cluster) == {"other", "worker"}
    assert "a worker node is there" in _messages(told)


def test_the_head_is_not_measured_on_where_a_worker_is_up_that_the_suite_does_not_want(monkeypatch) -> None:
    ray = _Ray(monkeypatch, HEAD, _node("worker"))
    ray.answers["worker"] = replace(MACHINE, hardware_class="another")
    with pytest.raises(RequestError, match="no node is of class 'plain'"):
        ray.cluster(Told(), hardware="plain").first_slots()
    assert ray.asked == ["worker"]


def test_a_foreign_node_without_the_farm_is_left_out_and_told_and_one_without_the_label_not_even_asked(
    monkeypatch,
) -> None:
    blue = {"hardware": "blue"}
    ray, told = _Ray(monkeypatch, HEAD, _node("foreign", blue), _node("red"), _node("good", blue)), Told()
    ray.answers["foreign"] = RequestError("No module named 'farm'")
    assert {slot.node_id for slot in ray.cluster(told, hardware="hardware=blue").first_slots()} == {"good"}
    assert set(ray.asked) == {"foreign", "good"}
    assert _messages(told) == ["node foreign is left out"]


def test_a_node_with_other_libraries_than_its_class_is_left_out_and_one_of_another_class_is_not(monkeypatch) -> None:
    ray, told = _Ray(monkeypatch, HEAD, _node("older"), _node("first"), _node("same")), Told()
    new = {"platform": "Linux-6.1", "torch": "2.13.0", "onnx": "1.19"}
    ray.answers["first"] = replace(MACHINE, software=new)  # of two against one, though the one is asked before them
    ray.answers["older"] = replace(MACHINE, software={**new, "torch": "2.12.1", "nncf": "2.1"})
    ray.answers["same"] = replace(MACHINE, software={**new, "platform": "Linux-6.2"})
    cluster = ray.cluster(told, hardware="all")
    assert {slot.node_id for slot in cluster.first_slots()} == {"first", "same"}
    (notice,) = [event for event in told.events if isinstance(event, Notice)]
    assert notice.message == "node older is left out"
    assert "class: nncf 2.1 instead of none, torch 2.12.1 instead of 2.13.0; install the same there" in notice.remedy
    ray.answers["other"] = replace(ray.answers["older"], hardware_class="another")
    ray.nodes.append(_node("other"))
    assert _now(cluster) == {"first", "same", "other"}


def test_libraries_of_a_node_that_the_suite_does_not_want_keep_none_out(monkeypatch) -> None:
    ray, told = _Ray(monkeypatch, HEAD, _node("others"), _node("others-too"), _node("wanted")), Told()
    ray.answers["wanted"] = replace(MACHINE, hostname="wanted", software={"torch": "2.13.0"})
    assert [slot.node_id for slot in ray.cluster(told, hardware="wanted").first_slots()] == ["wanted"]
    assert _messages(told) == []


def test_where_no_node_can_run_the_farm_the_reason_is_the_answer(monkeypatch) -> None:
    ray = _Ray(monkeypatch, HEAD, _node("foreign"))
    ray.answers["foreign"] = RequestError("No module named 'farm'")
    with pytest.raises(RequestError, match="No module named 'farm'"):
        ray.cluster(Told()).first_slots()


def test_a_node_that_never_answers_is_told_and_asked_no_more(monkeypatch) -> None:
    ray, told = _Ray(monkeypatch, HEAD, _node("good"), _node("silent")), Told()
    ray.answers["silent"] = None
    cluster = ray.cluster(told)
    cluster.first_slots()
    for _ in range(MOST_SILENCES + 2):
        assert _now(cluster) == {"good"}
    assert ray.asked.count("silent") == MOST_SILENCES
    assert _messages(told) == ["node silent is left out"]


def test_a_suite_that_names_the_gpu_waits_for_a_node_that_has_one(monkeypatch) -> None:
    ray, told = _Ray(monkeypatch, HEAD, _node("worker")), Told()
    with pytest.raises(RequestError, match=r"no node with a GPU is up, nor came within 0 s"):
        ray.cluster(told, devices=["cpu", "cuda"], limits={"node_s": 0.001}).first_slots()


def test_a_plan_on_a_cluster_shows_nodes_classes_and_labels_and_so_does_its_refusal(monkeypatch) -> None:
    ray = _Ray(monkeypatch, HEAD, _node("foreign"), _node("good", {"hardware": "blue"}))
    ray.answers["foreign"] = RequestError("No module named 'farm'")
    monkeypatch.setattr(connecting, "connected", lambda _: nullcontext())
    monkeypatch.setattr("farm.preview._model", lambda _: MODEL)
    there = ["node here: class plain-blue; labels hardware=blue", "node foreign is left out: No module named 'farm'"]
    assert list(preview(suite_of(), "auto").footer[-2:]) == there
    with pytest.raises(RequestError, match="no node is of class 'red'") as refused:
        preview(suite_of(hardware="red"), "auto")
    assert str(refused.value).splitlines()[1:] == there


def test_a_plan_on_a_cluster_without_nodes_says_what_a_run_would_ask_for(monkeypatch) -> None:
    _Ray(monkeypatch)
    monkeypatch.setattr(connecting, "connected", lambda _: nullcontext())
    asked = "no node with a CPU is up to plan for; a run would ask the cluster for 3 and wait up to 7 s"
    with pytest.raises(RequestError, match=asked):
        preview(suite_of(nodes=3, limits={"node_s": 7}), "auto")


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (RequestError("unknown method 'acme-fast'"), "could not go on: unknown method 'acme-fast'"),
        (PermissionError(13, "Permission denied"), "could not go on: PermissionError: [Errno 13] Permission denied"),
    ],
)
def test_what_a_cohorts_process_raises_is_what_its_rows_say(cause: Exception, said: str) -> None:
    error = RayTaskError("CohortProcess.prepare", "\x1b[36mray::CohortProcess\x1b[39m\nTraceback ...", cause)
    assert module._explained(error) == f"the cohort's process {said}"
