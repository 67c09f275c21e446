"""An artifact is made once, found again by what it depends on, and never half there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from made_up import MACHINE, MODEL

from farm.records import ModelInfo, Workload
from tasks import openvino
from tasks.artifacts import (
    Artifact,
    artifact_key,
    check_outputs,
    evaluation_path,
    find_artifact,
    load_evaluation,
    prepare_artifact,
    save_evaluation,
)
from tasks.method import Loaded, Method, find_method
from tasks.steps import step

WORKLOAD = Workload("cpu", 2, 1, 8)


@dataclass(frozen=True)
class Level:
    """How well it copies."""

    level: int = 1


@dataclass
class Copier(Method):
    """Prepares two small files; counts how often."""

    id: ClassVar[str] = "copier"
    Options: ClassVar[type] = Level
    library: str = "1.0"
    fails: bool = False
    prepared: list[Path] = field(default_factory=list)

    def depends_on(self, workload: Workload) -> Mapping[str, Any] | None:
        return {"library": self.library, "length": workload.length}

    def prepare(self, model: ModelInfo, workload: Workload, folder: Path) -> None:
        self.prepared.append(folder)
        (folder / "weights").write_bytes(b"w" * 100)
        if self.fails:
            raise RuntimeError("the disk is full")
        (folder / "graph").write_text(f"{model.name} at {workload.length}")

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        raise NotImplementedError


class AsIs(Copier):
    """Prepares nothing."""

    def depends_on(self, workload: Workload) -> None:
        del workload


@pytest.fixture
def cache(empty_cache: Path) -> Path:
    return empty_cache / "artifacts"


@pytest.mark.usefixtures("cache")
def test_an_artifact_is_made_once_and_found_again() -> None:
    method = Copier()
    assert find_artifact(method, MODEL, WORKLOAD) is None
    made = prepare_artifact(method, MODEL, WORKLOAD)
    assert (made.cached, made.size_bytes) == (False, 100 + len("made-up at 8"))
    again = prepare_artifact(method, MODEL, WORKLOAD)
    assert again == find_artifact(method, MODEL, WORKLOAD) == replace(made, cached=True)
    assert len(method.prepared) == 1
    assert (Path(made.folder) / "graph").read_text() == "made-up at 8"


@pytest.mark.parametrize(
    ("library", "model", "workload"),
    [
        ("1.1", MODEL, WORKLOAD),
        ("1.0", replace(MODEL, sha256="b" * 64), WORKLOAD),
        ("1.0", MODEL, replace(WORKLOAD, length=16)),
        ("1.0", MODEL, replace(WORKLOAD, options={"level": 3})),
    ],
)
@pytest.mark.usefixtures("cache")
def test_an_artifact_is_made_anew_when_what_it_depends_on_changes(
    library: str, model: ModelInfo, workload: Workload
) -> None:
    first = prepare_artifact(Copier(), MODEL, WORKLOAD)
    method = Copier(library=library)
    second = prepare_artifact(method, model, workload)
    assert second.key != first.key
    assert len(method.prepared) == 1
    assert find_artifact(Copier(), MODEL, WORKLOAD) is not None


def test_an_option_that_is_left_out_is_its_default() -> None:
    keys = [artifact_key(Copier(), MODEL, replace(WORKLOAD, options=each)) for each in ({}, {"level": 1}, {"level": 2})]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(
    ("method_id", "loading_alone", "preparing"),
    [
        ("onnxruntime-fp32", {"spinning": False, "arena": False, "dynamic_block_base": 4}, {}),
        ("onnxruntime-int8-dynamic", {"spinning": False}, {"per_channel": False}),
        ("openvino-int8", {"activations": "f32", "hyper_threading": False}, {"preset": "performance"}),
    ],
)
def test_options_that_only_loading_reads_need_no_artifact_of_their_own(
    method_id: str, loading_alone: dict[str, Any], preparing: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "texts_sha256", lambda _source: "")
    method = find_method(method_id)
    usual, shared, own = (
        artifact_key(method, MODEL, replace(WORKLOAD, options=each)) for each in ({}, loading_alone, preparing)
    )
    assert usual == shared
    assert (usual == own) is not bool(preparing)


def test_another_compiler_makes_another_artifact(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = []
    for name in ("one", "other"):
        compiler = tmp_path / name
        compiler.write_text(f"#!/bin/sh\necho {name} 13.2\n")
        compiler.chmod(0o755)
        monkeypatch.setenv("CXX", str(compiler))
        keys.append(artifact_key(find_method("pytorch-fp32-aot"), MODEL, WORKLOAD))
    assert len(set(keys)) == 2


@pytest.mark.usefixtures("cache")
def test_an_artifact_serves_all_that_it_does_not_depend_on() -> None:
    assert artifact_key(Copier(), MODEL, WORKLOAD) == artifact_key(Copier(), MODEL, replace(WORKLOAD, threads=1))


@pytest.mark.parametrize("damage", ["changed", "cut", "removed", "manifest"])
@pytest.mark.usefixtures("cache")
def test_damage_is_noticed_and_the_artifact_made_anew(damage: str) -> None:
    method = Copier()
    made = prepare_artifact(method, MODEL, WORKLOAD)
    weights = Path(made.folder) / "weights"
    match damage:
        case "changed":
            weights.write_bytes(b"w" * 99 + b"x")
        case "cut":
            weights.write_bytes(b"w" * 50)
        case "removed":
            weights.unlink()
        case "manifest":
            (Path(made.folder) / "artifact.json").write_text("{")
    assert find_artifact(method, MODEL, WORKLOAD) is None
    again = prepare_artifact(method, MODEL, WORKLOAD)
    assert (again.key, again.cached) == (made.key, False)
    assert weights.read_bytes() == b"w" * 100
    assert find_artifact(method, MODEL, WORKLOAD) is not None


def test_a_preparation_that_fails_leaves_nothing(cache: Path) -> None:
    with pytest.raises(RuntimeError, match="the disk is full"):
        prepare_artifact(Copier(fails=True), MODEL, WORKLOAD)
    assert [path.name for path in cache.iterdir() if not path.name.endswith(".lock")] == []
    assert find_artifact(Copier(), MODEL, WORKLOAD) is None
    assert not prepare_artifact(Copier(), MODEL, WORKLOAD).cached


@pytest.mark.usefixtures("cache")
def test_a_method_that_prepares_nothing_runs_from_the_models_own_folder() -> None:
    method = AsIs()
    found = find_artifact(method, MODEL, WORKLOAD)
    assert found is not None
    assert (found.folder, found.size_bytes, found.cached) == (MODEL.folder, MODEL.weight_bytes, True)
    assert method.prepared == []


@pytest.mark.usefixtures("cache")
def test_the_models_weights_count_where_loading_reads_them_beside_the_artifact() -> None:
    class Beside(Copier):
        reads_checkpoint: ClassVar[bool] = True

    own = prepare_artifact(Copier(), MODEL, WORKLOAD).size_bytes
    sizes = {prepare_artifact(Beside(library="2"), MODEL, WORKLOAD).size_bytes for _ in ("made", "found")}
    assert sizes == {own + MODEL.weight_bytes}
    assert MODEL.weight_bytes > 0
    assert find_method("pytorch-fp32-compile").reads_checkpoint


@pytest.mark.usefixtures("cache")
def test_the_steps_of_preparing_are_remembered() -> None:
    class Stepwise(Copier):
        def prepare(self, model: ModelInfo, workload: Workload, folder: Path) -> None:
            with step("copy"):
                super().prepare(model, workload, folder)

    made = prepare_artifact(Stepwise(), MODEL, WORKLOAD)
    assert list(made.steps) == ["copy", "other"]
    assert sum(made.steps.values()) == made.prepare_s
    found = find_artifact(Stepwise(), MODEL, WORKLOAD)
    assert found is not None and found.steps == made.steps


PROGRAM = """
import sys, time
sys.path[:0] = sys.argv[1:3]
import test_artifacts as tests
from tasks.artifacts import prepare_artifact

class Slow(tests.Copier):
    def prepare(self, model, workload, folder):
        time.sleep(1)
        super().prepare(model, workload, folder)

print(prepare_artifact(Slow(), tests.MODEL, tests.WORKLOAD).cached)
"""
COMMAND = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), str(Path(__file__).parents[1])]


@pytest.mark.timeout(240)
def test_what_a_killed_preparation_left_is_removed_by_the_next(cache: Path) -> None:
    half = "(folder / 'half').write_bytes(b'h'); print(flush=True); time.sleep(600)"
    command = [*COMMAND[:2], PROGRAM.replace("time.sleep(1)", half), *COMMAND[3:]]
    killed = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert killed.stdout is not None
    killed.stdout.readline()
    prepare_artifact(Copier(library="2"), MODEL, WORKLOAD)
    assert list(cache.glob(".building-*/half")), "somebody is building there"
    killed.kill()
    killed.communicate()
    prepare_artifact(Copier(library="3"), MODEL, WORKLOAD)
    assert not list(cache.glob(".building-*"))


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("cache")
def test_two_processes_that_prepare_at_once_make_one() -> None:
    racing = [subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = sorted(process.communicate(timeout=200)[0].strip() for process in racing)
    assert told == ["False", "True"]


ARTIFACT = Artifact("key", "/nowhere", 1, 0.0, cached=True)


@pytest.mark.usefixtures("cache")
def test_an_evaluation_is_read_back_as_it_was_stored() -> None:
    path = evaluation_path(ARTIFACT, MACHINE, WORKLOAD, "texts")
    assert load_evaluation(path) is None
    logits = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    save_evaluation(path, logits)
    stored = load_evaluation(path)
    assert stored is not None
    np.testing.assert_array_equal(stored, logits)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.usefixtures("cache")
def test_a_damaged_evaluation_is_not_read() -> None:
    path = evaluation_path(ARTIFACT, MACHINE, WORKLOAD, "texts")
    save_evaluation(path, np.zeros((50, 2)))
    path.write_bytes(path.read_bytes()[:200])
    assert load_evaluation(path) is None


def test_an_evaluation_belongs_to_its_artifact_texts_workload_and_processor() -> None:
    paths = {
        evaluation_path(artifact, machine, workload, texts)
        for artifact in (ARTIFACT, replace(ARTIFACT, key="other"))
        for machine in (MACHINE, replace(MACHINE, instruction_sets=("avx2",)))
        for workload in (WORKLOAD, replace(WORKLOAD, threads=1))
        for texts in ("texts", "others")
    }
    assert len(paths) == 16


@pytest.mark.parametrize("outputs", [{}, {"logits": np.zeros(2)}, {"scores": np.zeros((1, 2))}])
def test_outputs_without_logits_are_refused(outputs: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="'logits' of shape"):
        check_outputs(outputs)
