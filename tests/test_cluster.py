"""Real Ray: a cluster that starts from nothing, and a node whose memory runs out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import psutil
import pytest
from control_suites import Place, new_place
from ray._private.services import get_node_ip_address
from ray_clusters import TOKEN, free_port, head_node
from ray_nodes import HEAD, STORE_BYTES, ray_nodes

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(400)]

GIB = 1024**3

HEAD_ID = "f" * 51 + "00000"
AUTOSCALER = {
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
}
PROVIDER = {
    # Ray's own for its tests, by its class: by its name, it asks for a file that Ray's package lacks.
    "type": "external",
    "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
    "head_node_id": HEAD_ID,
    "launch_multiple": True,
    "disable_node_updaters": True,
    "disable_launch_config_check": True,
}
COMMANDS = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")


@contextmanager
def _cluster_of_nothing() -> Iterator[tuple[Place, str]]:
    """A head without CPUs whose autoscaler starts raylets on this machine, of two types that differ by a label."""
    port = free_port()
    address = f"{get_node_ip_address()}:{port}"
    worker = {"resources": {"CPU": 1, "object_store_memory": STORE_BYTES}, "node_config": {}, "max_workers": 2}
    types = {colour: worker | {"labels": {"hardware": colour}} for colour in ("blue", "red")}
    types["ray.head.default"] = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0, "labels": {}}
    config = {
        "cluster_name": "of-nothing",
        "max_workers": 4,
        "upscaling_speed": 10,
        "idle_timeout_minutes": 5,
        **{f"{kind}_commands": [] for kind in COMMANDS},
        **{key: {} for key in ("auth", "docker", "file_mounts")},
        "cluster_synced_files": [],
        "provider": PROVIDER | {"gcs_address": address},
        "head_node_type": "ray.head.default",
        "available_node_types": types,
    }
    with new_place() as place:
        (place.root / "scaling.json").write_text(json.dumps(config))
        options = (f"--port={port}", f"--autoscaling-config={place.root / 'scaling.json'}")
        with head_node(place, 0, *options, more_environment=AUTOSCALER):
            yield place, address


def _refusal(place: Place, address: str) -> list[str]:
    """What a run says that shows a token which is not the cluster's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", "another")
        code, said = place.farm("run", str(place.suite(methods=["control-null"])), "--address", address)
    assert code == 2, said
    return said.splitlines()


def test_a_label_brings_up_a_node_of_the_type_that_has_it_where_there_was_none(monkeypatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    with _cluster_of_nothing() as (place, address):
        (line,) = _refusal(place, address)
        assert line.startswith(f"farm: --address {address}: the cluster asks for another token")
        suite = place.suite(methods=["control-null"], hardware="hardware=blue", limits={"node_s": 60})
        code, said = place.farm("run", str(suite), "--address", address)
        assert code == 0, said
        assert "no node with a CPU and the label hardware=blue is up yet" in said
        (part,) = place.measured()
        assert set(pd.read_parquet(part)["hardware_class"].str.rsplit("-", n=1).str[1]) == {"blue"}


def test_a_cell_that_fills_the_nodes_memory_fails_with_its_cohort_and_ends_nothing_else() -> None:
    memory = psutil.virtual_memory()
    threshold = (memory.total - memory.available + 1.5 * GIB) / memory.total
    with ray_nodes(settings={**HEAD, "memory_usage_threshold": threshold, "memory_monitor_refresh_ms": 100}) as nodes:
        nodes.join()
        leak = {"method": "control-leak", "options": {"after": 6_000, "bytes_per_call": 100_000_000}}
        whole = memory.total
        suite = nodes.place.suite(methods=["control-null", leak], limits={"memory_bytes": whole, "call_s": 20})
        code, said = nodes.run(str(suite))
        (part,) = nodes.place.measured()
        rows = pd.read_parquet(part)
    assert code == 1, said
    assert set(rows["status"]) == {"failed"}
    assert all("memory" in reasons[0] for reasons in rows["reasons"]), json.dumps([list(r) for r in rows["reasons"]])
    assert rows["attempt"].max() == 3
