"""A model that a node lacks is brought there whole, once, and never in place of another."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
import ray
from control_suites import new_place
from ray.cluster_utils import Cluster

from farm import cargo
from farm.cargo import Cargo, Receiver, describe, has


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(os.urandom(5000))
    (folder / "inner" / "config.json").write_text("{}")
    (folder / "empty").touch()
    (folder / ".lock").touch()
    return folder


def test_a_folder_is_put_in_place_when_all_of_it_is_there(model: Path, tmp_path: Path) -> None:
    files, elsewhere = describe(model), tmp_path / "node" / "model"
    receiver = Receiver(str(elsewhere))
    for name in files:
        content = (model / name).read_bytes()
        receiver.take(name, content[:2000])
        receiver.take(name, content[2000:])
        assert not elsewhere.exists()
    assert receiver.finish(files) == ""
    assert has(str(elsewhere), files)
    assert sorted(path.name for path in elsewhere.parent.iterdir()) == ["model"]


def test_what_a_receiver_left_that_was_killed_is_removed_by_a_later_one(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    killed, at_work = Receiver(str(tmp_path / "node" / "model")), Receiver(str(tmp_path / "node" / "model"))
    for receiver in (killed, at_work):
        receiver.take("config.json", b"{}")
    left, going_on = sorted((tmp_path / "node").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    for path in (left, left / "config.json"):
        os.utime(path, (1, 1))
    Receiver(str(tmp_path / "node" / "model"))
    assert list((tmp_path / "node").iterdir()) == [going_on]


def test_a_folder_that_did_not_arrive_as_it_was_sent_is_not_put_in_place(model: Path, tmp_path: Path) -> None:
    files = describe(model)
    receiver = Receiver(str(tmp_path / "node" / "model"))
    for name in files:
        receiver.take(name, (model / name).read_bytes()[:100])
    assert "as they were sent" in receiver.finish(files)
    assert not (tmp_path / "node" / "model").exists()


def test_another_model_at_that_path_is_named_and_left_alone(model: Path, tmp_path: Path) -> None:
    files, elsewhere = describe(model), tmp_path / "node" / "model"
    elsewhere.mkdir(parents=True)
    (elsewhere / "model.safetensors").write_bytes(b"another")
    receiver = Receiver(str(elsewhere))
    for name in files:
        receiver.take(name, (model / name).read_bytes())
    assert "move it away" in receiver.finish(files)
    assert (elsewhere / "model.safetensors").read_bytes() == b"another"


def test_a_file_of_the_same_size_and_other_content_is_not_the_same_model(model: Path) -> None:
    files = describe(model)
    assert has(str(model), files)
    (model / "model.safetensors").write_bytes(os.urandom(5000))
    assert not has(str(model), files)


@pytest.mark.real
def test_a_node_that_lacks_the_model_gets_it_through_ray_in_pieces(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cargo, "CHUNK_BYTES", 2000)
    elsewhere = tmp_path / "other" / "model"
    with new_place() as place:
        for name, value in place.environment.items():
            monkeypatch.setenv(name, value)
        head = {"num_cpus": 0, "object_store_memory": 80_000_000, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, connect=True, head_node_args=head)
        try:
            other = cluster.add_node(num_cpus=1, object_store_memory=80_000_000, include_dashboard=False)
            cluster.wait_for_nodes()
            asyncio.run(_bring_twice(Cargo(str(model), str(elsewhere)), other.node_id))
        finally:
            ray.shutdown()
            cluster.shutdown()
    assert has(str(elsewhere), describe(model))


async def _bring_twice(cargo: Cargo, node_id: str) -> None:
    await asyncio.gather(cargo.bring(node_id), cargo.bring(node_id))
    await cargo.bring(ray.get_runtime_context().get_node_id())
