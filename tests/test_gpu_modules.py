"""What a GPU is given to run, on a CPU: buffers, the order of a capture, pruned FP16 graphs, quantized encoders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from farm.errors import MethodUnsupportedError
from farm.records import ModelInfo, Workload
from tasks import cuda_kernels, pytorch
from tasks.cuda_graphs import WARM_UPS, Captured
from tasks.cuda_kernels import CUDA_KERNELS, CUDA_RATES, prepare_any
from tasks.kernels import RATES, Case
from tasks.method import find_method
from tasks.models import resolve_model
from tasks.progress import SilentProgress
from tasks.pytorch import load_module
from tasks.sentinels import ORDER, REPETITION_S, sized
from tasks.torch_ends import CudaEnds

SHAPE = (2, 12)
ON_CPU = Workload("cpu", 1, *SHAPE)
ON_ANY_DEVICE = [key for key in CUDA_KERNELS if key[0] not in {"fp8", "memory"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelInfo:
    from small_models import save_model

    return resolve_model(str(save_model(tmp_path_factory.mktemp("model"))), SilentProgress())


@pytest.fixture
def inputs() -> dict[str, np.ndarray]:
    mask = np.ones(SHAPE, np.int64)
    mask[1, 7:] = 0
    return {"input_ids": np.random.default_rng(0).integers(5, 17, SHAPE), "attention_mask": mask}


def test_tensors_of_every_call_lie_at_the_same_addresses(inputs: dict[str, np.ndarray]) -> None:
    ends = CudaEnds(tuple(inputs), "cpu")
    first = {name: tensor.data_ptr() for name, tensor in ends.receive(inputs).items()}
    again = ends.receive({name: array[::-1].copy() for name, array in inputs.items()})
    assert {name: tensor.data_ptr() for name, tensor in again.items()} == first
    np.testing.assert_array_equal(again["input_ids"].numpy(), inputs["input_ids"][::-1])
    other = ends.receive({name: array[:1] for name, array in inputs.items()})
    assert other["input_ids"].shape == (1, 12)


def test_logits_come_back_in_fp32_and_stay_as_they_were() -> None:
    ends = CudaEnds(("input_ids",), "cpu")
    first = ends.send(torch.tensor([[1.5, 2.5]], dtype=torch.float16))
    ends.send(torch.tensor([[9.0, 9.0]], dtype=torch.float16))
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, [[1.5, 2.5]])


class Recorder(torch.nn.Module):
    """Adds up the tokens that count; notes when it ran, and on what masks."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[int] = []
        self.place: dict[str, Any] = {}

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        self.masks.append(int(attention_mask.sum()))
        self.place = {"inputs": (input_ids, attention_mask)}
        return (input_ids * attention_mask).sum(1, keepdim=True).float()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A device that captures: what the module computes while a graph is recorded is what replaying computes again."""
    log: list[str] = []

    class Graph:
        def replay(self) -> None:
            log.append("replay")
            ids, mask = captured[0].module.place["inputs"]
            captured[0]._logits.copy_((ids * mask).sum(1, keepdim=True).float())

    class Stream:
        def wait_stream(self, other: Any) -> None:
            del other
            log.append("wait")

    @contextmanager
    def noted(what: str) -> Iterator[None]:
        log.append(what)
        yield
        log.append(f"{what} ended")

    captured: list[Any] = []
    original = Captured._capture
    monkeypatch.setattr(Captured, "_capture", lambda self, tensors: (captured.append(self), original(self, tensors)))
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: noted("side stream"))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda _: noted("capture"))
    monkeypatch.setattr(pytorch, "ends_of", lambda names, _: CudaEnds(names, "cpu"))
    yield log


def test_a_graph_is_captured_once_after_warm_ups_with_a_mask_and_then_replayed(
    device: list[str], model: ModelInfo, inputs: dict[str, np.ndarray]
) -> None:
    module = Recorder()
    call = Captured(module, model, Workload("cuda", 1, *SHAPE), "float16")
    assert device == ["wait", "side stream", "side stream ended", "wait", "capture", "capture ended", "replay"]
    assert module.masks == [SHAPE[0] * (SHAPE[1] - 1)] * (WARM_UPS + 1)
    for _ in range(2):
        logits = call(inputs)["logits"]
    assert device[-2:] == ["replay", "replay"]
    assert len(module.masks) == WARM_UPS + 1
    np.testing.assert_allclose(logits[:, 0], (inputs["input_ids"] * inputs["attention_mask"]).sum(1))


@pytest.mark.parametrize("method", ["pytorch-fp16-cudagraph", "pytorch-fp16-cudagraph-pruned"])
def test_what_is_captured_is_in_fp16_and_answers_what_fp32_answers(
    method: str, model: ModelInfo, inputs: dict[str, np.ndarray]
) -> None:
    module = find_method(method).module(model, ON_CPU)  # type: ignore[attr-defined]
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.inference_mode():
        answered = module(**tensors)
        expected = load_module(model)(**tensors).logits
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float16}
    assert answered.dtype == torch.float32
    assert 0 < float((answered - expected).abs().max()) < 0.02
    assert float((expected[0] - expected[1]).abs().max()) > 0.05


def test_the_captured_module_of_the_pruned_method_multiplies_less(model: ModelInfo) -> None:
    sizes = []
    for method in ("pytorch-fp16-cudagraph", "pytorch-fp16-cudagraph-pruned"):
        module = find_method(method).module(model, ON_CPU)  # type: ignore[attr-defined]
        with torch.utils.flop_counter.FlopCounterMode(display=False) as counter, torch.inference_mode():
            module(**{name: torch.ones(SHAPE, dtype=torch.long) for name in model.input_names})
        sizes.append(counter.get_total_flops())
    assert sizes[1] < 0.8 * sizes[0]


def test_quantizing_takes_the_encoders_products_and_leaves_the_head() -> None:
    from torchao.quantization.quantize_.workflows.int8.int8_tensor import Int8Tensor
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(vocab_size=40, dim=64, hidden_dim=128, n_layers=1, n_heads=4, max_position_embeddings=32)
    module = DistilBertForSequenceClassification(config).eval().to(torch.bfloat16)
    plain = {name for name, each in module.named_modules() if isinstance(each, torch.nn.Linear)}
    find_method("pytorch-int8-dynamic-compile").converted(module)  # type: ignore[attr-defined]
    quantized = {name for name in plain if isinstance(module.get_submodule(name).weight, Int8Tensor)}
    assert plain - quantized == {"pre_classifier", "classifier"}
    assert len(quantized) == 6


@pytest.mark.parametrize("dim", [64, 312])
def test_an_encoder_that_fp8_kernels_do_not_take_is_refused_rather_than_left_as_it_is(
    dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It asks for the chip before it looks at sizes.
    monkeypatch.setattr("torchao.quantization.quant_api._check_hardware_support", lambda _: None)
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(vocab_size=40, dim=dim, hidden_dim=128, n_layers=1, n_heads=4, max_position_embeddings=32)
    module = DistilBertForSequenceClassification(config).eval().to(torch.bfloat16)
    method: Any = find_method("pytorch-fp8-dynamic-compile")
    if dim % 16:
        with pytest.raises(MethodUnsupportedError, match="no fp8 kernel for 6 of the encoder's layers"):
            method.converted(module)
    else:
        assert method.converted(module) is module


# Sentinels


@pytest.mark.parametrize(
    ("rate", "library", "layout"), [key for key in CUDA_KERNELS if key[0] not in ("fp8", "memory")]
)
def test_a_product_of_the_sentinel_is_the_product_of_its_operands(rate: str, library: str, layout: str) -> None:
    case = Case(rate, library, 32, 64, 48, layout)
    found = CUDA_KERNELS[rate, library, layout](case, "cpu")()
    kind = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(rate, torch.float32)
    activations, weights = cuda_kernels._operands(case, kind, "cpu")
    if rate == "int8":
        activations, weights = ((each * 30).to(torch.int8).float() for each in (activations, weights))
    expected = activations.float() @ weights.float()
    assert found.shape == (32, 48)
    assert torch.allclose(found.float(), expected, atol=0.3 if rate in ("bf16", "fp16") else 1e-3)


def test_a_copy_moves_the_bytes_it_counts() -> None:
    case = Case("memory", "cuda.copy", 1, 4, 32_768, "flat")
    assert 2 * CUDA_KERNELS["memory", "cuda.copy", "flat"](case, "cpu")().numel() == case.work


def test_a_gpus_case_is_cut_to_a_repetition_and_stays_a_gpus() -> None:
    case = sized(Case("memory", "cuda.copy", 1, 65_536, 32_768, "flat"), 4_000.0)
    assert case.work == pytest.approx(REPETITION_S * 4_000e9, rel=0.01)
    assert sized(Case("fp16", "cuda.mm", 8192, 8192, 8192, "nt"), 8e5).work <= REPETITION_S * 8e14


def test_rates_of_a_gpu_and_of_a_cpu_are_named_in_one_order() -> None:
    assert [rate for rate in ORDER if rate in RATES] == list(RATES)
    assert set(ORDER) == {*RATES, *CUDA_RATES}


def test_a_gpus_kernel_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"no fp8 kernel is called 'cuda\.nn'"):
        prepare_any(Case("fp8", "cuda.nn", 8, 8, 8, "nn"), 1)
