"""Every way of ONNX Runtime on a CPU answers what the baseline answers, proves how, and its proof can fail."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import MACHINE

from farm.errors import MethodUnsupportedError, ProofFailedError
from farm.records import ModelInfo, Workload
from tasks import first_token, instruction_sets
from tasks.artifacts import artifact_key, prepare_artifact
from tasks.method import Arrays, find_method
from tasks.models import resolve_model
from tasks.onnx_int8_static import OnnxInt8Static
from tasks.progress import SilentProgress

DYNAMIC, PRUNED, STATIC = (f"onnxruntime-int8-{name}" for name in ("dynamic", "dynamic-pruned", "static"))
INT8 = (DYNAMIC, PRUNED, STATIC)
METHODS = ("onnxruntime-fp32-plain", "onnxruntime-fp32", *INT8)

SHAPE = (2, 12)
WIDTH, INNER, LAYERS = 24, 40, 2
LAYER_WEIGHTS = 4 * WIDTH * WIDTH + 2 * WIDTH * INNER
HEAD_WEIGHTS = WIDTH * WIDTH + WIDTH * 2

ARM = replace(MACHINE, system="Linux 6.1", instruction_sets=("asimd", "asimddp", "bf16"))
X86 = replace(MACHINE, system="Linux 6.1", instruction_sets=("avx2", "avx512_bf16", "amx_bf16"))


@dataclass(frozen=True)
class Bench:
    """A small random model, its inputs, a cache and calibration texts of its own."""

    model: ModelInfo
    inputs: Arrays
    texts: Path

    def workload(self, method_id: str, **options: Any) -> Workload:
        """The workload of a method; statically quantized ones calibrate with the bench's texts."""
        own = {"calibration": str(self.texts), "samples": 16} if method_id == STATIC else {}
        return Workload("cpu", 2, *SHAPE, own | options)

    def folder(self, method_id: str, **options: Any) -> Path:
        """Where a method's artifact is."""
        workload = self.workload(method_id, **options)
        return Path(prepare_artifact(find_method(method_id), self.model, workload).folder)

    def load(self, method_id: str, folder: Path | None = None, **options: Any) -> Any:
        """A method, loaded from its own artifact or from that in `folder`."""
        workload = self.workload(method_id, **options)
        return find_method(method_id).load(self.model, workload, folder or self.folder(method_id, **options))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A DistilBERT; the second of its inputs is padded."""
    import torch
    from small_models import VOCABULARY, WORDS, save_model

    threads = torch.get_num_threads()
    random = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FARM_CACHE", str(tmp_path_factory.mktemp("cache")))
        model = resolve_model(str(save_model(tmp_path_factory.mktemp("model"))), SilentProgress())
        texts = tmp_path_factory.mktemp("texts") / "calibration.csv"
        lines = (" ".join(random.choice(WORDS[:10], 9)) for _ in range(40))
        texts.write_text("text\n" + "\n".join(lines) + "\n")
        ids = random.integers(5, len(VOCABULARY), SHAPE)
        mask = np.ones_like(ids)
        mask[1, 7:] = 0
        yield Bench(model, {"input_ids": ids, "attention_mask": mask}, texts)
    torch.set_num_threads(threads)


@pytest.mark.real
@pytest.mark.parametrize("method_id", METHODS)
def test_a_method_answers_what_the_baseline_answers(bench: Bench, method_id: str) -> None:
    baseline = find_method("pytorch-fp32").load(bench.model, bench.workload("pytorch-fp32"), Path(bench.model.folder))
    expected = baseline(bench.inputs)["logits"]
    answered = bench.load(method_id)(bench.inputs)["logits"]
    assert answered.dtype == np.float32
    assert np.abs(answered - expected).max() <= (1e-4 if find_method(method_id).exact else 0.25)
    assert np.abs(expected[0] - expected[1]).max() > 0.01  # the inputs matter


@pytest.mark.real
def test_no_profile_stays_behind_and_the_first_call_alone_is_proven(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    unproven, call = bench.load("onnxruntime-fp32"), bench.load("onnxruntime-fp32")
    unproven(bench.inputs)
    for _ in range(3):
        call(bench.inputs)
    assert call.proof()["fused_nodes"]["Attention"] == LAYERS
    assert call.proof() == call.proof()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real
@pytest.mark.parametrize("method_id", INT8)
def test_int8_predicts_what_fp32_predicts(bench: Bench, method_id: str) -> None:
    exact, quantized = bench.load("onnxruntime-fp32"), bench.load(method_id)
    random = np.random.default_rng(1)
    batches = [bench.inputs | {"input_ids": random.integers(5, 17, SHAPE)} for _ in range(50)]
    logits = [np.concatenate([call(batch)["logits"] for batch in batches]) for call in (exact, quantized)]
    agreement = np.mean(logits[0].argmax(axis=1) == logits[1].argmax(axis=1))
    assert agreement >= 0.95
    assert 1e-6 < np.abs(logits[0] - logits[1]).mean() < 0.1  # quantized it is, and little is lost


@pytest.mark.real
@pytest.mark.parametrize("method_id", METHODS)
def test_padding_does_not_change_the_answer(bench: Bench, method_id: str) -> None:
    call = bench.load(method_id)
    before = call(bench.inputs)["logits"].copy()
    ids = bench.inputs["input_ids"].copy()
    ids[1, 7:] = 5
    after = call(bench.inputs | {"input_ids": ids})["logits"]
    np.testing.assert_allclose(after, before, atol=1e-4 if find_method(method_id).exact else 0.25)


@pytest.mark.real
@pytest.mark.parametrize("method_id", [method_id for method_id in METHODS if method_id != PRUNED])
def test_one_graph_takes_batches_of_every_size_and_length(bench: Bench, method_id: str) -> None:
    call, other = bench.load(method_id), {name: array[:1, :5] for name, array in bench.inputs.items()}
    assert find_method(method_id).any_shape
    assert call(other)["logits"].shape == (1, 2)


@pytest.mark.real
@pytest.mark.parametrize(("method_id", "kind"), [("onnxruntime-fp32", "float32"), (DYNAMIC, "int8")])
def test_the_proof_counts_all_multiply_adds_by_their_arithmetic(bench: Bench, method_id: str, kind: str) -> None:
    tokens = SHAPE[0] * SHAPE[1]
    work = bench.load(method_id).proof()["multiply_adds"]
    assert work == {
        f"weights:{kind}": LAYERS * tokens * LAYER_WEIGHTS + SHAPE[0] * HEAD_WEIGHTS,
        "activations:float32": LAYERS * 2 * tokens * SHAPE[1] * WIDTH,
    }


@pytest.mark.real
@pytest.mark.parametrize("method_id", INT8)
def test_int8_proves_its_share_and_what_is_known_of_its_kernels(bench: Bench, method_id: str) -> None:
    proof = bench.load(method_id).proof()
    assert proof["int8_share_with_weights"] >= 0.999 if method_id == STATIC else proof["int8_share_with_weights"] == 1.0
    assert 0.8 < proof["int8_share_of_multiply_adds"] < 1.0  # attention's inner products stay in FP32
    assert set(proof["nodes_per_provider"]) == {"CPUExecutionProvider"}
    assert proof["int8_kernels"].startswith("unknown")
    assert proof["int8_sums_saturate"] is False
    assert proof["weight_bits"] == (7 if instruction_sets.byte_sums_may_overflow() else 8)


@pytest.mark.real
def test_the_plain_graph_has_no_attention_fused_ahead_and_the_fused_one_has_all(bench: Bench) -> None:
    plain = bench.load("onnxruntime-fp32-plain").proof()["fused_nodes"]
    assert plain.get("Attention", 0) + plain.get("MultiHeadAttention", 0) == 0
    assert bench.load("onnxruntime-fp32").proof()["fused_nodes"]["Attention"] == LAYERS


@pytest.mark.real
def test_pruning_leaves_out_most_of_the_last_layer(bench: Bench) -> None:
    proof = bench.load(PRUNED).proof()
    tokens = SHAPE[0] * SHAPE[1]
    last = tokens * 2 * WIDTH * WIDTH + SHAPE[0] * (LAYER_WEIGHTS - 2 * WIDTH * WIDTH)  # keys and values for all
    assert proof["multiply_adds"]["weights:int8"] == tokens * LAYER_WEIGHTS + last + SHAPE[0] * HEAD_WEIGHTS
    assert proof["pruned_operators"] > 0
    # The last layer's attention has one query, which no fused operator of this graph stands for.
    assert sum(proof["fused_nodes"].get(kind, 0) for kind in ("QAttention", "MultiHeadAttention")) == LAYERS - 1


@pytest.mark.real
@pytest.mark.parametrize("method_id", INT8)
def test_a_float_graph_under_an_int8_method_fails_the_proof(bench: Bench, method_id: str, tmp_path: Path) -> None:
    folder = _with_graph_of(bench.folder("onnxruntime-fp32"), bench.folder(method_id), tmp_path)
    call = bench.load(method_id, folder)
    assert call(bench.inputs)["logits"].shape == (2, 2)
    with pytest.raises(ProofFailedError, match=r"\(100.0% of their multiply-adds\) did not run in int8: .* in float32"):
        call.proof()


@pytest.mark.real
@pytest.mark.parametrize("method_id", ["onnxruntime-fp32-plain", "onnxruntime-fp32"])
def test_an_int8_graph_under_a_float_method_fails_the_proof(bench: Bench, method_id: str, tmp_path: Path) -> None:
    folder = _with_graph_of(bench.folder(DYNAMIC), bench.folder(method_id), tmp_path)
    with pytest.raises(ProofFailedError, match=r"did not run in float32: .* in int8"):
        bench.load(method_id, folder).proof()


@pytest.mark.real
def test_quantized_pairs_that_the_session_does_not_fold_fail_the_proof(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnnxInt8Static, "entries", lambda _self: {"session.disable_quant_qdq": "1"})
    with pytest.raises(ProofFailedError, match="did not run in int8"):
        bench.load(STATIC).proof()


@pytest.mark.real
def test_a_graph_that_is_not_pruned_fails_the_proof_of_pruning(bench: Bench, tmp_path: Path) -> None:
    folder = _with_graph_of(bench.folder(DYNAMIC), bench.folder(PRUNED), tmp_path)
    with pytest.raises(ProofFailedError, match="pruned to the first token they need"):
        bench.load(PRUNED, folder).proof()


@pytest.mark.real
def test_a_model_that_reads_every_token_is_not_pruned(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(first_token, "keep_first_token", lambda _module: 0)
    with pytest.raises(MethodUnsupportedError, match="reads more than the first token of its last layer"):
        find_method(PRUNED).prepare(bench.model, bench.workload(PRUNED), tmp_path)


@pytest.mark.real
def test_weights_are_quantized_as_the_suite_asks(bench: Bench) -> None:
    from onnx import TensorProto

    assert _weights(bench.folder(DYNAMIC)) == {(TensorProto.INT8, 1)}
    assert _weights(bench.folder(DYNAMIC, weight_type="uint8", per_channel=False)) == {(TensorProto.UINT8, 0)}
    assert _largest_weight(bench.folder(DYNAMIC, reduce_range=False)) == 127
    assert _largest_weight(bench.folder(DYNAMIC, reduce_range=True)) == 64


@pytest.mark.real
def test_the_residual_connection_of_a_statically_quantized_graph_keeps_fp32(bench: Bench) -> None:
    operators = [each.operator for each in _executed(bench.load(STATIC))]
    assert operators.count("MatMulIntegerToFloat") == LAYERS * 6
    assert operators.count("DequantizeLinear") <= 2  # of the product that gives the labels


def test_static_quantization_depends_on_its_texts_and_serves_every_length(bench: Bench, tmp_path: Path) -> None:
    method, workload = find_method(STATIC), bench.workload(STATIC)
    copied = Path(shutil.copy(bench.texts, tmp_path / "other.csv"))
    key = artifact_key(method, bench.model, workload)
    assert method.depends_on(workload) == method.depends_on(bench.workload(STATIC, calibration=str(copied)))
    copied.write_text("text\nother texts\n")
    assert method.depends_on(workload) != method.depends_on(bench.workload(STATIC, calibration=str(copied)))
    assert key == artifact_key(method, bench.model, replace(workload, length=20))
    assert key == artifact_key(method, bench.model, replace(workload, threads=1))


def _with_graph_of(graph: Path, facts: Path, target: Path) -> Path:
    """An artifact with one method's graph and everything else of another's."""
    folder = Path(shutil.copytree(facts, target / "mixed"))
    shutil.copy(graph / "model.onnx", folder / "model.onnx")
    return folder


def _weights(folder: Path) -> set[tuple[int, int]]:
    """Element type of each quantized weight, and the rank of its scale."""
    import onnx

    tensors = {each.name: each for each in onnx.load(str(folder / "model.onnx")).graph.initializer}
    names = [name.removesuffix("_quantized") for name in tensors if name.endswith("_quantized")]
    return {(tensors[f"{name}_quantized"].data_type, len(tensors[f"{name}_scale"].dims)) for name in names}


def _largest_weight(folder: Path) -> int:
    import onnx
    from onnx import numpy_helper

    tensors = onnx.load(str(folder / "model.onnx")).graph.initializer
    arrays = [numpy_helper.to_array(each) for each in tensors if each.name.endswith("_quantized")]
    return max(int(np.abs(array.astype(int)).max()) for array in arrays)


def _executed(call: Any) -> Any:
    call.proof()
    return call._call._executed
