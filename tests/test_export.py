"""An exported method answers what the measured one did, without the farm."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measured import RUN, measured_row, run_record
from tiers import mostly_long

from farm import export
from farm.best import best_methods
from farm.errors import RequestError
from farm.export import CHECK_TEXTS, Exported, export_method
from farm.limits import Limits
from farm.machine import describe_machine
from farm.records import ModelInfo, Workload
from farm.results import Results
from farm.store import Store
from tasks.artifacts import Artifact, artifact_key, find_artifact, prepare_artifact
from tasks.deployment import PROGRAMS, deployment_of
from tasks.inputs import encode_sentences
from tasks.method import BUILT_IN, find_method
from tasks.models import resolve_model
from tasks.progress import SilentProgress

LENGTHS = (12, 24)
THREADS = 2
EXPORTED = ("pytorch-fp32", "pytorch-int8-dynamic", "onnxruntime-fp32", "openvino-fp32", "pytorch-fp32-aot")
"""One of each runtime's programs; those of TorchScript and of the kernels for AMX have tests of their own."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small random model in a cache of its own."""
    import torch
    from small_models import save_model

    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FARM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield resolve_model(str(save_model(tmp_path_factory.mktemp("model"))), SilentProgress())
    torch.set_num_threads(threads)


def results_of(
    folder: Path, model: ModelInfo, *method_ids: str, lengths: Sequence[int] = LENGTHS, **changes: Any
) -> Results:
    """Results as if these methods had been measured here, each twice as fast as the one before."""
    store = Store(folder)
    suite = {"name": "small", "model": model.folder, "methods": list(method_ids), "effort": "quick"}
    store.write_run(run_record(suite=suite, model={"name": model.name, "sha256": model.sha256}))
    here = describe_machine().hardware_class
    for length in lengths:
        rows = []
        for place, method_id in enumerate(method_ids):
            workload = Workload("cpu", THREADS, 1, length)
            rows.append(
                measured_row(
                    f"c{length}",
                    0,
                    method_id,
                    100.0 / 2**place,
                    role="candidate" if place else "baseline",
                    cell=f"{method_id}-{length}",
                    method=method_id,
                    length=length,
                    threads=THREADS,
                    hardware_class=here,
                    cores=sorted(os.sched_getaffinity(0)),
                    artifact_key=artifact_key(find_method(method_id), model, workload),
                    accuracy=None,
                )
                | changes
            )
        store.publish_replica(RUN, f"c{length}", 0, rows)
    return Results(folder)


def exported(results: Results, folder: Path, name: str | None = None, block: int | None = None) -> Exported:
    return export_method(results, best_methods(results.speedups_table(), Limits()), folder, name, block)


def run_example(folder: Path, *arguments: str) -> str:
    """Run the example as a stranger would: no path to the farm, in the folder itself."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FARM"))}
    ran = subprocess.run(
        [sys.executable, "-s", "run.py", *arguments],
        check=False,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.real
@pytest.mark.parametrize("method_id", mostly_long(EXPORTED, ["onnxruntime-fp32"]))
def test_the_example_gives_the_logits_that_were_measured(tmp_path: Path, model: ModelInfo, method_id: str) -> None:
    results = results_of(tmp_path / "results", model, "control-null", method_id, lengths=LENGTHS[1:])
    told = exported(results, tmp_path / "served", method_id).told
    prepares = find_method(method_id).depends_on(Workload("cpu", THREADS, 1, LENGTHS[1])) is not None
    assert ("made again under the same key" if prepares else "those that were measured") in told
    assert "the same logits on 4 texts" in run_example(tmp_path / "served", "--check")
    expected = json.loads((tmp_path / "served" / "expected.json").read_text())
    assert [case["text"] for case in expected] == list(CHECK_TEXTS)
    method, length = find_method(method_id), expected[0]["length"]
    workload = Workload("cpu", THREADS, 1, length)
    artifact = find_artifact(method, model, workload)
    assert artifact is not None, "exporting leaves it in the cache"
    loaded = method.load(model, workload, Path(artifact.folder))
    own = [loaded(encode_sentences(model, [case["text"]], case["length"]))["logits"][0] for case in expected]
    assert np.abs(np.array(own) - [case["logits"] for case in expected]).max() < 1e-5
    assert np.ptp(np.array(own), axis=0).max() > 1e-3, "the texts matter"


@pytest.mark.real
def test_a_method_whose_artifact_is_in_the_cache_is_exported_from_there(
    tmp_path: Path, model: ModelInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    for length in LENGTHS:
        prepare_artifact(find_method("torchscript-fp32"), model, Workload("cpu", THREADS, 1, length))
    results = results_of(tmp_path / "results", model, "pytorch-fp32", "torchscript-fp32")
    told = exported(results, tmp_path / "served").told
    assert "its artifacts are those that were measured, from the cache" in told
    assert not list((tmp_path / "scratch").glob("farm-export-*")), "logs are kept only of what failed"
    settings = json.loads((tmp_path / "served" / "settings.json").read_text())
    assert settings["name"] == "torchscript-fp32", "the winner, where none is named"
    assert set(settings["artifacts"]) == {"12", "24"}
    assert len({*settings["artifacts"].values()}) == 2, "an artifact for each shape"
    requirements = (tmp_path / "served" / "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in requirements] == ["torch", "numpy", "tokenizers"]
    assert "the same logits on 4 texts" in run_example(tmp_path / "served", "--check")
    assert run_example(tmp_path / "served", "good camera").startswith("LABEL_")


def test_an_artifact_of_other_library_versions_is_said_to_be_another(model: ModelInfo) -> None:
    method, made = find_method("torchscript-fp32"), Artifact("1" * 24, "", 0, 1.0, cached=True)
    for measured_under, said in [("0" * 24, "is not the one that was measured"), ("1" * 24, "from the cache")]:
        subject = export._Subject("torchscript", method, model, {12: {"artifact_key": measured_under}})
        assert said in export._told(Path("served"), subject, {12: made})


def test_texts_are_checked_at_every_length_with_an_artifact_of_its_own(model: ModelInfo) -> None:
    rows: dict[int, Any] = {length: {} for length in (4, 24, 32)}
    subject = export._Subject("any", find_method("torchscript-fp32"), model, rows)
    own = {length: Artifact(f"{length:024}", "", 0, 1.0, cached=True) for length in rows}
    assert export._by_length(subject, own) == {length: list(CHECK_TEXTS) for length in rows}
    shared = dict.fromkeys(rows, own[4])
    assert export._by_length(subject, shared) == {4: list(CHECK_TEXTS), 24: list(CHECK_TEXTS)}


@pytest.mark.parametrize("content", ["0.5", "nan"])
def test_the_check_runs_the_artifact_of_every_length(tmp_path: Path, model: ModelInfo, content: str) -> None:
    (tmp_path / "run.py").write_text((PROGRAMS / "run.py").read_text())
    (tmp_path / "tokenizer.json").write_text((Path(model.folder) / "tokenizer.json").read_text())
    (tmp_path / "runtime.py").write_text(
        "def load(folder, settings):\n"
        "    logit = float((folder / 'model').read_text())\n"
        "    return lambda arrays: [[logit, 0.0]]\n"
    )
    for place in ("short", "long"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "model").write_text("1.0")
    padding = {"id": 0, "token": "[PAD]", "side": "right", "truncation_side": "right"}
    settings = {"artifacts": {"24": "short", "48": "long"}, "batch_size": 1, "cores": [], "threads": 1}
    settings |= {"inputs": list(model.input_names), "padding": padding, "method": "any", "run": RUN}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    cases = [{"text": "good", "length": length, "logits": [1.0, 0.0]} for length in (24, 48)]
    (tmp_path / "expected.json").write_text(json.dumps(cases))
    assert "the same logits on 1 texts, length 24, 48:" in run_example(tmp_path, "--check")
    (tmp_path / "long" / "model").write_text(content)
    with pytest.raises(AssertionError, match="NOT the same at length 48: logits"):
        run_example(tmp_path, "--check")


def test_only_methods_with_a_result_are_offered_for_export(tmp_path: Path, model: ModelInfo) -> None:
    results = results_of(tmp_path / "results", model, "control-null", "control-work")
    here = describe_machine().hardware_class
    odd = [
        measured_row("c12", 1, "no-result", 1.0, status="unsupported", hardware_class=here, length=12),
        measured_row("c12", 1, "control-null~twin", 1.0, role="twin", hardware_class=here, length=12),
    ]
    Store(tmp_path / "results").publish_replica(RUN, "c12", 1, odd)
    results = Results(tmp_path / "results")
    with pytest.raises(RequestError, match=r"no-result has no result.*that have one: control-null, control-work$"):
        exported(results, tmp_path / "new", "no-result")


def test_what_cannot_be_exported_is_said_in_one_line(tmp_path: Path, model: ModelInfo) -> None:
    results = results_of(tmp_path / "results", model, "control-null", "control-work")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").write_text("mine")
    for name, folder, why in [
        (None, taken, "is there already"),
        (None, tmp_path / "new", "no program yet that runs control-work"),
        ("nothing", tmp_path / "new", "nothing has no result in this run"),
    ]:
        with pytest.raises(RequestError, match=why) as refused:
            exported(results, folder, name)
        assert len(str(refused.value).splitlines()) == 1
    assert (taken / "file").read_text() == "mine"
    assert not (tmp_path / "new").exists()


def test_results_of_other_hardware_are_not_exported_here(tmp_path: Path, model: ModelInfo) -> None:
    results = results_of(tmp_path / "results", model, "control-null", "control-work", hardware_class="elsewhere")
    with pytest.raises(RequestError, match="is not of the hardware that was measured"):
        exported(results, tmp_path / "new")


def test_one_of_several_answers_for_this_machine_is_named(tmp_path: Path, model: ModelInfo) -> None:
    results = results_of(tmp_path / "results", model, "control-null", "control-work")
    here = describe_machine().hardware_class
    rows = [
        measured_row("b8", 0, name, latency_ms, hardware_class=here, batch_size=8, length=16)
        for name, latency_ms in (("pytorch", 5.0), ("control-wrong", 1.0))
    ]
    Store(tmp_path / "results").publish_replica(RUN, "b8", 0, rows)
    results = Results(tmp_path / "results")
    with pytest.raises(RequestError, match=r"name one with --block \(1: .*batch size 1;.*; 2: .*batch size 8"):
        exported(results, tmp_path / "new")
    with pytest.raises(RequestError, match="no program yet that runs control-work"):
        exported(results, tmp_path / "new", block=1)
    with pytest.raises(RequestError, match="no program yet that runs control-wrong"):
        exported(results, tmp_path / "new", block=2)
    with pytest.raises(RequestError, match="--block 3: is no answer for this machine"):
        exported(results, tmp_path / "new", block=3)


def test_a_model_that_changed_is_not_exported(tmp_path: Path, model: ModelInfo) -> None:
    results = results_of(tmp_path / "results", model, "pytorch-fp32", "onnxruntime-fp32")
    record = results.store.run(RUN).model_copy(update={"model": {"name": model.name, "sha256": "0" * 64}})
    (tmp_path / "results" / "runs" / f"{RUN}.json").write_text(record.model_dump_json())
    with pytest.raises(RequestError, match="its files have changed"):
        exported(results, tmp_path / "new")


@pytest.mark.parametrize("program", sorted(path.name for path in PROGRAMS.glob("*.py")))
def test_programs_import_nothing_of_the_farm(program: str) -> None:
    tree = ast.parse((PROGRAMS / program).read_text())
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in names if name.split(".")[0] in ("farm", "tasks")]


def test_nothing_runs_a_gpus_methods_by_themselves() -> None:
    workload = Workload("cuda", THREADS, 1, 64)
    assert not [name for name in BUILT_IN if deployment_of(find_method(name), workload) is not None]


def test_every_method_of_a_cpu_but_controls_and_in_process_compilation_has_a_program() -> None:
    workload = Workload("cpu", THREADS, 1, 64)
    on_cpus = [name for name in BUILT_IN if "cpu" in find_method(name).devices]
    without = {name for name in on_cpus if deployment_of(find_method(name), workload) is None}
    assert {name for name in without if not name.startswith("control-")} == {
        "pytorch-fp32-compile",
        "pytorch-bf16-compile",
    }
