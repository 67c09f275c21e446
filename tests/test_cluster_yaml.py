"""The cluster's description: valid for Ray's own launcher, and what the README says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[1]


@pytest.fixture
def cluster() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "cluster.yaml").read_text()))


def test_rays_launcher_accepts_it(cluster: dict[str, Any]) -> None:
    validate_config(prepare_config(cluster))


def test_rays_launcher_would_notice_a_mistake(cluster: dict[str, Any]) -> None:
    cluster["available_node_types"]["gpu"]["lables"] = {"hardware": "gpu"}
    with pytest.raises(Exception, match="lables"):
        validate_config(prepare_config(cluster))


def test_rays_launcher_accepts_it_for_machines_that_are_there(cluster: dict[str, Any]) -> None:
    local = next(
        line.partition("provider:")[2]
        for line in (ROOT / "cluster.yaml").read_text().splitlines()
        if "type: local" in line
    )
    cluster["provider"] = yaml.safe_load(local)
    del cluster["available_node_types"], cluster["head_node_type"], cluster["max_workers"]
    validate_config(prepare_config(cluster))


def test_the_head_never_measures_and_no_worker_is_up_before_it_is_needed(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    head = types.pop(cluster["head_node_type"])
    assert head["resources"]["CPU"] == 0
    assert all(each["min_workers"] == 0 < each["max_workers"] for each in types.values())


def test_every_kind_of_worker_has_a_label_that_a_suite_can_name(cluster: dict[str, Any]) -> None:
    labels = [each["labels"]["hardware"] for each in cluster["available_node_types"].values()]
    assert sorted(labels) == ["cpu", "gpu", "head"]
    assert cluster["available_node_types"]["gpu"]["resources"]["GPU"] == 1


def test_every_node_has_what_a_gpu_takes_for_the_head_plans_by_its_own_packages(cluster: dict[str, Any]) -> None:
    assert any("[cpu,gpu,s3]" in command for command in cluster["setup_commands"])
    assert any("g++" in command for command in cluster["setup_commands"])
    own = ("setup_commands", "worker_setup_commands", "head_setup_commands")
    assert not any(name in each for name in own for each in (cluster["available_node_types"].values()))


def test_every_type_of_node_has_an_image_to_fill_in(cluster: dict[str, Any]) -> None:
    images = {name: each["node_config"]["ImageId"] for name, each in cluster["available_node_types"].items()}
    assert images["head"] == images["cpu"] != images["gpu"]


def test_every_node_shows_a_token(cluster: dict[str, Any]) -> None:
    assert "~/.ray/auth_token" in cluster["file_mounts"].values()
    assert any("RAY_AUTH_MODE=token" in command for command in cluster["setup_commands"])
    # Without the extra for GPUs, ONNX Runtime is refused on the GPU worker.
    assert any("inference-farm[cpu,gpu,s3]" in command for command in cluster["setup_commands"])
