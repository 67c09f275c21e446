"""ONNX Runtime's way on a GPU, on a CPU: the same graphs, bindings and proofs, with memory that is the host's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fake_cuda import FakeCuda
from onnx import TensorProto

from farm.errors import FarmError, ProofFailedError
from farm.records import ModelInfo, Workload
from tasks.artifacts import prepare_artifact
from tasks.method import Arrays, find_method
from tasks.models import resolve_model
from tasks.onnx_cuda import REPLAY_WAITS, TENSORRT, CudaSessionOptions, Placement, open_cuda_session
from tasks.onnx_fp16 import OnnxRuntimeTensorRt
from tasks.onnx_graphs import GRAPH, load_facts
from tasks.progress import SilentProgress

pytestmark = pytest.mark.real

ON_CPU = Placement("CPUExecutionProvider", device_type="cpu")
SHAPE = (2, 12)
ENGINE = "TensorrtExecutionProvider_TRTKernel_graph_0_sm90.engine"
FP16 = ("onnxruntime-fp16", "onnxruntime-fp16-pruned", "onnxruntime-fp16-tensorrt")


@dataclass(frozen=True)
class Bench:
    """A small random model and its inputs, the second of them padded."""

    model: ModelInfo
    inputs: Arrays
    workload: Workload

    def folder(self, method: str) -> Path:
        """The artifact that the method prepares for a GPU."""
        return Path(prepare_artifact(find_method(method), self.model, self.workload).folder)

    def open(self, folder: Path, weights: str = "float32", runtime: FakeCuda | None = None) -> Any:
        """A session on it that is bound to the host's memory."""
        return open_cuda_session(
            *(folder, self.workload, CudaSessionOptions(), weights), placement=ON_CPU, runtime=runtime or FakeCuda()
        )


def build_engine(_method: OnnxRuntimeTensorRt, workload: Workload, folder: Path) -> Any:
    """What TensorRT does: the engine of the graph, unless it is there."""
    assert workload.options == {} or (folder / ENGINE).exists()
    if not (folder / ENGINE).exists():
        (folder / ENGINE).write_bytes(b"plan")
    return lambda inputs: {"logits": np.zeros((len(inputs["input_ids"]), 2))}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    from small_models import VOCABULARY, save_model

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FARM_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(OnnxRuntimeTensorRt, "_session", build_engine)
        model = resolve_model(str(save_model(tmp_path_factory.mktemp("model"))), SilentProgress())
        ids = np.random.default_rng(0).integers(5, len(VOCABULARY), SHAPE)
        mask = np.ones_like(ids)
        mask[1, 7:] = 0
        yield Bench(model, {"input_ids": ids, "attention_mask": mask}, Workload("cuda", 2, *SHAPE))


@pytest.fixture(scope="module")
def expected(bench: Bench) -> np.ndarray:
    on_cpu = Workload("cpu", 2, *SHAPE)
    baseline = find_method("pytorch-fp32").load(bench.model, on_cpu, Path(bench.model.folder))
    return baseline(bench.inputs)["logits"]


def weight_types(folder: Path) -> set[int]:
    """Element types of a graph's matrices; tables of positions are whole numbers."""
    graph = onnx.load(str(folder / GRAPH)).graph
    return {each.data_type for each in graph.initializer if len(each.dims) == 2} - {TensorProto.INT64}


@pytest.mark.parametrize("method", FP16)
def test_a_graph_for_a_gpu_is_in_fp16_and_answers_what_fp32_answers(
    bench: Bench, expected: np.ndarray, method: str
) -> None:
    folder = bench.folder(method)
    assert weight_types(folder) == {TensorProto.FLOAT16}
    answered = bench.open(folder, "float16")(bench.inputs)["logits"]
    assert answered.dtype == np.float32
    assert np.abs(answered - expected).max() < 0.02
    assert np.abs(expected[0] - expected[1]).max() > 0.05  # the inputs matter


def test_the_engine_of_onnx_runtimes_tensorrt_is_prepared_with_the_graph_and_never_built_in_a_cell(
    bench: Bench, tmp_path: Path
) -> None:
    method = find_method("onnxruntime-fp16-tensorrt")
    prepared = shutil.copytree(bench.folder(method.id), tmp_path / "artifact")
    assert method.prepares_alone
    assert {ENGINE, GRAPH} <= {path.name for path in prepared.iterdir()}
    method.load(bench.model, bench.workload, prepared)
    (prepared / ENGINE).unlink()
    with pytest.raises(ProofFailedError, match="built an engine anew while the cell loaded"):
        method.load(bench.model, bench.workload, prepared)


def test_an_engine_serves_one_kind_of_gpu(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    method = find_method("onnxruntime-fp16-tensorrt")
    monkeypatch.setattr("tasks.onnx_fp16.gpu_names", lambda: ("Made Up H200",))
    first = method.depends_on(bench.workload)
    monkeypatch.setattr("tasks.onnx_fp16.gpu_names", lambda: ("Another",))
    assert method.depends_on(bench.workload) != first


def test_pruning_is_noted_with_what_it_left(bench: Bench) -> None:
    facts = load_facts(bench.folder("onnxruntime-fp16-pruned"))
    assert facts.pruning is not None
    assert facts.pruning.operators > 0
    assert facts.labels == 2


def test_a_bound_session_answers_call_after_call_and_proves_it(bench: Bench, expected: np.ndarray) -> None:
    runtime = FakeCuda()
    call = bench.open(bench.folder("onnxruntime-fp32"), runtime=runtime)
    first = call(bench.inputs)["logits"]
    other = call(bench.inputs | {"input_ids": bench.inputs["input_ids"][::-1].copy()})["logits"]
    assert np.abs(first - expected).max() < 1e-4
    assert np.abs(first - other).max() > 0.01
    assert runtime.log[-5:] == ["event", "to-device", "to-host", "event", "synchronize"]
    proof = call.proof()
    assert proof["io_binding"] is True
    assert proof["copying_nodes"] == {}
    assert proof["fused_nodes"]["Attention"] == 2
    assert call.device_clock.collect() > 0
    assert REPLAY_WAITS not in proof["remarks"]


def test_the_time_on_the_gpu_of_a_replayed_session_comes_with_a_remark(bench: Bench) -> None:
    call = bench.open(bench.folder("onnxruntime-fp32"))
    call._cuda_graph = True
    assert REPLAY_WAITS in call.proof()["remarks"]


def test_at_a_fixed_shape_no_arithmetic_on_shapes_is_left_that_would_run_on_the_cpu(bench: Bench) -> None:
    call = bench.open(bench.folder("onnxruntime-fp32"))
    operators = {each.operator for each in call._first_call()}
    assert "Attention" in operators
    assert not operators & {"Shape", "ConstantOfShape", "Size"}


def test_products_in_another_arithmetic_than_fp16_fail_the_proof(bench: Bench) -> None:
    """A CPU has no FP16 products here, so that ONNX Runtime widens them: just what must not pass unseen."""
    call = bench.open(bench.folder("onnxruntime-fp16"), "float16")
    call(bench.inputs)
    with pytest.raises(ProofFailedError, match="did not run in float16"):
        call.proof()


def test_a_provider_that_does_not_start_is_no_reason_to_run_elsewhere(bench: Bench) -> None:
    elsewhere = Placement("CUDAExecutionProvider", device_type="cpu")
    with pytest.raises(ProofFailedError, match="could not start its CUDAExecutionProvider and would have run on CPU"):
        open_cuda_session(
            *(bench.folder("onnxruntime-fp32"), bench.workload, CudaSessionOptions(), "float32"),
            placement=elsewhere,
            runtime=FakeCuda(),
        )


def test_settings_that_a_provider_refuses_are_an_error_and_not_a_session_elsewhere(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    create, tried = onnxruntime.InferenceSession._create_inference_session, []

    def refuse_first(session: Any, *given: Any) -> None:
        tried.append(given)
        if len(tried) == 1:
            raise RuntimeError("the value for the key 'trt_engine_cache_enable' should be 'True' or 'False'")
        create(session, *given)

    monkeypatch.setattr(onnxruntime.InferenceSession, "_create_inference_session", refuse_first)
    with pytest.raises(FarmError, match=r"cannot make a session on its .*: the value .* should be 'True' or 'False'"):
        bench.open(bench.folder("onnxruntime-fp32"))
    assert len(tried) == 1


def test_fp32_is_never_rounded_to_tf32_unasked_and_graphs_are_captured_only_when_asked() -> None:
    (name, settings), cpu = Placement().providers(stream=7, cuda_graph=True)
    assert (name, cpu) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert settings["use_tf32"] == "0"
    assert (settings["enable_cuda_graph"], settings["user_compute_stream"]) == ("1", "7")
    (_, settings), _ = Placement().providers(stream=7, cuda_graph=False)
    assert settings["enable_cuda_graph"] == "0"


def test_tensorrt_takes_the_graph_before_cuda_does() -> None:
    (first, asked), (second, _), _ = Placement(TENSORRT, {"any": "setting"}).providers(3, cuda_graph=True)
    assert (first, second) == (TENSORRT, "CUDAExecutionProvider")
    assert asked["any"] == "setting"


@pytest.mark.parametrize(("asked", "word"), [(True, "True"), (False, "False")])
def test_tensorrts_switches_are_words(asked: bool, word: str) -> None:
    (_, settings), _, _ = Placement(TENSORRT).providers(3, cuda_graph=asked)
    assert settings["trt_cuda_graph_enable"] == word
