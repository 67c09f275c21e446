"""Each founding method computes what the baseline computes, proves how, and its proof can fail."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import MACHINE

from farm.errors import MethodUnsupportedError, ProofFailedError, RequestError
from farm.records import ModelInfo, Workload
from farm.suite import parse_suite
from tasks import method as registry
from tasks.artifacts import Artifact, prepare_artifact
from tasks.controls import FixedWork
from tasks.method import ENTRY_POINT_GROUP, Arrays, Loaded, Method, find_method, known_methods
from tasks.models import resolve_model
from tasks.progress import SilentProgress

FOUNDING = ("pytorch-fp32", "torchscript-fp32", "onnxruntime-fp32", "pytorch-int8-dynamic")


@dataclass(frozen=True)
class Bench:
    """A small random model, its workload, inputs and a cache of its own."""

    model: ModelInfo
    workload: Workload
    inputs: Arrays

    def prepare(self, method_id: str, workload: Workload | None = None) -> Artifact:
        """Find or make the artifact of a method."""
        method, workload = find_method(method_id), workload or self.workload
        if method.depends_on(workload) is None:
            return Artifact("none", self.model.folder, 0, 0.0, cached=True)
        return prepare_artifact(method, self.model, workload)

    def load(self, method_id: str, workload: Workload | None = None) -> Loaded:
        """A method, loaded."""
        folder = Path(self.prepare(method_id).folder)
        return find_method(method_id).load(self.model, workload or self.workload, folder)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Any:
    import torch
    from small_models import VOCABULARY, save_model

    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FARM_CACHE", str(tmp_path_factory.mktemp("cache")))
        model = resolve_model(str(save_model(tmp_path_factory.mktemp("model"))), SilentProgress())
        ids = np.random.default_rng(0).integers(5, len(VOCABULARY), (2, 12))
        mask = np.ones_like(ids)
        mask[1, 7:] = 0
        yield Bench(model, Workload("cpu", 2, 2, 12), {"input_ids": ids, "attention_mask": mask})
    torch.set_num_threads(threads)


@pytest.mark.real
@pytest.mark.parametrize("method_id", FOUNDING)
def test_a_method_answers_what_the_baseline_answers(bench: Bench, method_id: str) -> None:
    baseline = bench.load("pytorch-fp32")(bench.inputs)["logits"]
    answered = bench.load(method_id)(bench.inputs)["logits"]
    assert answered.shape == (2, 2)
    assert answered.dtype == np.float32
    limit = 1e-4 if find_method(method_id).exact else 0.25
    assert np.abs(answered - baseline).max() <= limit
    assert np.abs(baseline[0] - baseline[1]).max() > 0.01  # the inputs matter


@pytest.mark.real
@pytest.mark.parametrize("method_id", FOUNDING)
def test_padding_does_not_change_the_answer(bench: Bench, method_id: str) -> None:
    call = bench.load(method_id)
    before = call(bench.inputs)["logits"].copy()
    ids = bench.inputs["input_ids"].copy()
    ids[1, 7:] = 5
    after = call(bench.inputs | {"input_ids": ids})["logits"]
    tolerance = 1e-4 if find_method(method_id).exact else 0.25
    np.testing.assert_allclose(after, before, atol=tolerance)


@pytest.mark.real
def test_eager_pytorch_proves_fp32_products_its_attention_and_threads(bench: Bench) -> None:
    proof = bench.load("pytorch-fp32").proof()
    assert set(proof["parameter_dtypes"]) == {"float32"}
    assert proof["attention"] == "sdpa"
    assert proof["torch_threads"] == 2
    assert all(name.endswith(":float32") for name in proof["matrix_products"])
    attention = {name: count for name, count in proof["matrix_products"].items() if "scaled_dot_product" in name}
    assert sum(attention.values()) == 2  # one a layer


@pytest.mark.real
def test_torchscript_proves_that_it_is_frozen(bench: Bench) -> None:
    proof = bench.load("torchscript-fp32").proof()
    assert proof["unfrozen_parameters"] == 0
    assert sum(proof["graph_matrix_products"].values()) >= 2


@pytest.mark.real
def test_onnx_runtime_proves_fused_attention_in_every_layer_and_its_provider(bench: Bench) -> None:
    proof = bench.load("onnxruntime-fp32").proof()
    assert proof["fused_nodes"]["Attention"] + proof["fused_nodes"].get("MultiHeadAttention", 0) == 2
    assert proof["layers"] == 2
    assert set(proof["nodes_per_provider"]) == {"CPUExecutionProvider"}
    assert proof["intra_op_threads"] == 2


@pytest.mark.real
def test_onnx_runtimes_proof_speaks_of_the_session_that_is_timed(bench: Bench) -> None:
    call = bench.load("onnxruntime-fp32")
    call(bench.inputs)
    assert call.proof() == bench.load("onnxruntime-fp32").proof()


@pytest.mark.real
def test_int8_proves_that_every_linear_layer_ran_quantized(bench: Bench) -> None:
    proof = bench.load("pytorch-int8-dynamic").proof()
    quantized = {name: count for name, count in proof["matrix_products"].items() if name.startswith("linear_dyn")}
    assert sum(quantized.values()) == 2 * 6 + 2  # six a layer, and the classifier's two
    assert proof["engine"] != "none"


@pytest.mark.real
def test_one_int8_artifact_serves_every_shape_and_a_trace_only_its_own(bench: Bench) -> None:
    other = replace(bench.workload, length=20)
    assert bench.prepare("pytorch-int8-dynamic").key == bench.prepare("pytorch-int8-dynamic", other).key
    assert bench.prepare("onnxruntime-fp32").key == bench.prepare("onnxruntime-fp32", other).key
    assert bench.prepare("torchscript-fp32").key != bench.prepare("torchscript-fp32", other).key


@pytest.mark.real
@pytest.mark.parametrize("method_id", ["pytorch-fp32", "torchscript-fp32", "pytorch-int8-dynamic"])
def test_another_number_of_threads_fails_the_proof(bench: Bench, method_id: str) -> None:
    import torch

    call = bench.load(method_id)
    torch.set_num_threads(1)
    with pytest.raises(ProofFailedError, match="PyTorch uses 1 threads, not 2"):
        call.proof()


@pytest.mark.real
def test_products_in_another_precision_fail_the_proof(bench: Bench) -> None:
    import torch

    call: Any = bench.load("pytorch-fp32")
    call.module.to(torch.float64)
    with pytest.raises(ProofFailedError, match="not in float32"):
        call.proof()


@pytest.mark.real
def test_a_linear_layer_that_stayed_float_fails_the_proof(bench: Bench) -> None:
    import torch

    call: Any = bench.load("pytorch-int8-dynamic")
    call.module.classifier = torch.nn.Linear(24, 2)
    with pytest.raises(ProofFailedError, match="13 of 14 linear layers ran quantized"):
        call.proof()


@pytest.mark.real
@pytest.mark.filterwarnings("ignore")
def test_a_program_that_is_not_frozen_fails_the_proof(bench: Bench) -> None:
    import torch

    call: Any = bench.load("torchscript-fp32")
    call.module = torch.jit.script(torch.nn.Linear(3, 3))
    with pytest.raises(ProofFailedError, match="the program is not frozen: 2 parameters"):
        call.proof()


@pytest.mark.real
@pytest.mark.filterwarnings("ignore")
def test_a_program_without_matrix_products_fails_the_proof(bench: Bench) -> None:
    import torch

    call: Any = bench.load("torchscript-fp32")
    call.module = torch.jit.freeze(torch.jit.script(torch.nn.ReLU().eval()))
    with pytest.raises(ProofFailedError, match="the graph holds no matrix product"):
        call.proof()


@pytest.mark.real
def test_an_exported_graph_without_fusion_fails_the_proof(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    from tasks import onnx_runtime

    class Unfused:
        def __init__(self, exported: Path) -> None:
            self._graph = onnx.load(str(exported))

        def save_model_to_file(self, path: str) -> None:
            onnx.save(self._graph, path)

        def get_fused_operator_statistics(self) -> dict[str, int]:
            return {}

    monkeypatch.setattr(onnx_runtime, "fuse_graph", lambda _model, exported, *_: Unfused(exported))
    method = find_method("onnxruntime-fp32")
    method.prepare(bench.model, bench.workload, tmp_path)
    call = method.load(bench.model, bench.workload, tmp_path)
    assert call(bench.inputs)["logits"].shape == (2, 2)
    with pytest.raises(ProofFailedError, match="attention is fused in 0 of 2 layers"):
        call.proof()


@pytest.mark.real
def test_options_of_a_session_reach_it(bench: Bench) -> None:
    quiet = replace(bench.workload, options={"spinning": False, "arena": False})
    call: Any = bench.load("onnxruntime-fp32", quiet)
    options = call._session.get_session_options()
    assert options.enable_cpu_mem_arena is False
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize("method_id", FOUNDING)
def test_a_founding_method_is_supported_here(method_id: str) -> None:
    find_method(method_id).check_supported(replace(MACHINE, instruction_sets=("avx2",)), "cpu")


def test_a_device_that_a_method_does_not_know_is_named() -> None:
    with pytest.raises(MethodUnsupportedError, match="pytorch-int8-dynamic runs on cpu only, not on cuda"):
        find_method("pytorch-int8-dynamic").check_supported(MACHINE, "cuda")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda _module: None)
    with pytest.raises(MethodUnsupportedError, match="pytorch-fp32 needs the package 'torch', which is not installed"):
        find_method("pytorch-fp32").check_supported(MACHINE, "cpu")


def test_instruction_sets_that_are_missing_are_named() -> None:
    class Picky(FixedWork):
        def instruction_sets(self) -> set[str]:
            return {"avx2", "amx_bf16"}

    with pytest.raises(MethodUnsupportedError, match="needs the instruction sets amx_bf16; this CPU lacks them"):
        Picky().check_supported(replace(MACHINE, instruction_sets=("avx2",)), "cpu")


class Foreign(FixedWork):
    """A method of somebody else's."""


@pytest.fixture
def third_parties(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Entry points as other distributions would declare them."""
    declared = {
        "foreign-fp32": "test_methods:Foreign",
        "broken-fp32": "no_such_module:Method",
        "stranger-fp32": "pathlib:PurePath",
    }
    points = [EntryPoint(name, value, ENTRY_POINT_GROUP) for name, value in declared.items()]

    def clear() -> None:
        registry._third_party.cache_clear()
        find_method.cache_clear()

    clear()
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == ENTRY_POINT_GROUP else [])
    yield
    clear()


@pytest.mark.usefixtures("third_parties")
def test_a_third_partys_method_is_found_by_its_entry_point() -> None:
    assert type(find_method("foreign-fp32")).__name__ == "Foreign"
    assert isinstance(find_method("foreign-fp32"), Method)
    assert "foreign-fp32" in known_methods()
    suite = parse_suite({"methods": ["control-null", {"method": "foreign-fp32", "options": {"units": 3}}]})
    assert suite.methods[1].options == {"units": 3}


@pytest.mark.usefixtures("third_parties")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken-fp32", r"method 'broken-fp32' \(no_such_module:Method\) cannot be imported: No module named"),
        ("stranger-fp32", r"method 'stranger-fp32' \(pathlib:PurePath\) is not a subclass of tasks.method.Method"),
    ],
)
def test_a_broken_method_of_a_third_party_is_explained(name: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        find_method(name)


@pytest.mark.usefixtures("third_parties")
def test_a_broken_method_does_not_hide_the_others_from_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    from farm.cli.commands import run_app

    assert run_app(["methods"]) == 0
    listed = capsys.readouterr().out
    assert "pytorch-fp32" in listed
    assert "foreign-fp32" in listed
    assert "broken-fp32" in listed


def test_an_unknown_method_is_explained() -> None:
    with pytest.raises(RequestError, match=r"unknown method 'pytorch-fp31'. Did you mean 'pytorch-fp32'"):
        find_method("pytorch-fp31")


def test_every_built_in_method_describes_itself() -> None:
    for name in registry.BUILT_IN:
        method = find_method(name)
        assert method.id == name
        assert method.about
        assert set(method.devices) <= {"cpu", "cuda"}
