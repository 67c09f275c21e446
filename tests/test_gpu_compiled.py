"""Compiled methods for a GPU, on a CPU with a compiler that compiles nothing, and TensorRT with a made-up engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fake_cuda import Code, FakeCuda

from farm.errors import FarmError, ProofFailedError
from farm.records import ModelInfo, Workload
from tasks import inductor_cuda
from tasks.cuda_ends import DeviceEnds
from tasks.inductor_cuda import COMPILING_CALLS, GpuCompiled, GpuPackage, mode_settings
from tasks.method import find_method
from tasks.models import resolve_model
from tasks.progress import SilentProgress
from tasks.tensorrt import EngineCallable, layer_facts, product_types

SHAPE = (1, 24)
WORKLOAD = Workload("cpu", 1, *SHAPE)
COMPILED = ("pytorch-fp16-compile", "pytorch-bf16-compile-max-autotune")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelInfo:
    from small_models import save_model

    return resolve_model(str(save_model(tmp_path_factory.mktemp("model"))), SilentProgress())


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What the compiler was asked for; it then runs the module as it is."""
    seen: list[dict[str, Any]] = []
    original = torch.compile

    def instead(module: Any, **settings: Any) -> Any:
        seen.append(settings)
        return original(module, backend="eager", dynamic=settings["dynamic"])

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(torch, "compile", instead)
    yield seen
    torch._dynamo.config.error_on_recompile = False  # a cell never lets it be again; the next test must


def inputs() -> dict[str, np.ndarray]:
    mask = np.ones(SHAPE, np.int64)
    return {"input_ids": np.random.default_rng(0).integers(5, 17, SHAPE), "attention_mask": mask}


@pytest.mark.parametrize("method_id", COMPILED)
def test_a_mode_is_what_the_compiler_is_asked_for_at_a_static_shape(
    method_id: str, model: ModelInfo, asked: list[dict[str, Any]]
) -> None:
    method: Any = find_method(method_id)
    loaded = method._compiled(model, WORKLOAD)
    assert asked == [{"dynamic": False, "options": mode_settings(method.mode)}]
    assert isinstance(loaded, GpuCompiled)
    assert loaded(inputs())["logits"].dtype == np.float32
    assert {str(each.dtype) for each in loaded.module.parameters()} == {f"torch.{method.dtype}"}
    proof = loaded.proof()
    assert proof["compiled_graphs"] >= 1
    assert proof["recompiles"] == 0


def test_modes_that_capture_say_so_to_the_compiler() -> None:
    assert mode_settings("default") == {}
    assert mode_settings("reduce-overhead") == {"triton.cudagraphs": True}
    assert mode_settings("max-autotune")["max_autotune"] is mode_settings("max-autotune")["triton.cudagraphs"] is True
    assert COMPILING_CALLS == 3


def test_a_module_that_was_not_compiled_is_no_compiled_method(model: ModelInfo) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    module = torch.nn.Linear(2, 2)
    loaded = GpuCompiled(module, model, WORKLOAD, "float32", captured=False, products=("fp32",))
    loaded.run = lambda tensors: module(tensors["input_ids"].float()[:, :2])  # type: ignore[method-assign]
    with pytest.raises(ProofFailedError, match="nothing was compiled"):
        loaded.proof()


@pytest.mark.parametrize("method_id", ["pytorch-fp16-aot", "pytorch-fp16-aot-pruned"])
def test_what_is_compiled_ahead_of_time_is_the_model_in_fp16(
    method_id: str, model: ModelInfo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch._inductor

    programs: list[Any] = []
    monkeypatch.setattr(
        torch._inductor,
        "aoti_compile_and_package",
        lambda program, package_path, inductor_configs: programs.append((program, package_path, inductor_configs)),
    )
    find_method(method_id).prepare(model, WORKLOAD, tmp_path)
    ((program, path, settings),) = programs
    assert (Path(path).parent, Path(path).suffix, settings) == (tmp_path, ".pt2", {})
    assert {each.dtype for each in program.state_dict.values() if each.is_floating_point()} == {torch.float16}
    package = GpuPackage(program.module(), model, WORKLOAD, "float16")
    assert np.isfinite(package(inputs())["logits"]).all()


def test_autotuning_is_asked_for_by_option(model: ModelInfo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch._inductor

    settings: list[Any] = []
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", lambda *_, **given: settings.append(given))
    told: list[bool] = []
    monkeypatch.setattr(inductor_cuda, "use_cuda_headers", lambda: told.append(True))
    tuned = Workload("cpu", 1, *SHAPE, {"max_autotune": True})
    find_method("pytorch-fp16-aot").prepare(model, tuned, tmp_path)
    assert settings[0]["inductor_configs"] == inductor_cuda.autotune_settings()
    assert told  # where CUDA's headers are


# TensorRT


class FakeEngine:
    """An engine that adds up the tokens that count, on the host's memory."""

    def __init__(self, runtime: FakeGraphs) -> None:
        self.addresses: dict[str, int] = {}
        self.sized: set[str] = set()
        self.runs = 0
        runtime.replay = self.compute

    def create_execution_context(self) -> FakeEngine:
        """It is its own."""
        return self

    def set_input_shape(self, name: str, shape: tuple[int, int]) -> bool:
        """How large an input is; an engine is built for one size."""
        self.sized.add(name)
        return shape == SHAPE

    def set_tensor_address(self, name: str, address: int) -> bool:
        """Where a tensor lies; its size must be known."""
        self.addresses[name] = address
        return self.sized == set(inputs())

    def execute_async_v3(self, stream: int) -> bool:
        """Run once."""
        assert stream == 1
        self.runs += 1
        self.compute()
        return True

    def compute(self) -> None:
        """Logits: the sum of what counts, and its negative."""
        from tasks.cuda_ends import _array_at

        ids, mask = (_array_at(self.addresses[name], np.dtype(np.int64), SHAPE) for name in inputs())
        total = float((ids * mask).sum())
        _array_at(self.addresses["logits"], np.dtype(np.float32), (1, 2))[:] = [[total, -total]]


class FakeGraphs(FakeCuda):
    """CUDA's graphs: launching one computes again."""

    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeRelaxed=2)  # noqa: N815
    replay: Any = None

    def cudaStreamBeginCapture(self, _stream: Any, _mode: Any) -> tuple[Any, ...]:  # noqa: N802
        """From here on nothing runs, it is noted."""
        self.log.append("begin")
        return (Code.cudaSuccess,)

    def cudaStreamEndCapture(self, _stream: Any) -> tuple[Any, ...]:  # noqa: N802
        """The graph."""
        self.log.append("end")
        return (Code.cudaSuccess, "graph")

    def cudaGraphGetNodes(self, _graph: str, _most: int) -> tuple[Any, ...]:  # noqa: N802
        """No node, as none is asked for, and how many there are."""
        return (Code.cudaSuccess, [], 42)

    def cudaGraphInstantiate(self, graph: str, _flags: int) -> tuple[Any, ...]:  # noqa: N802
        """What can be launched."""
        return (Code.cudaSuccess, f"{graph} to launch")

    def cudaGraphLaunch(self, graph: str, _stream: Any) -> tuple[Any, ...]:  # noqa: N802
        """Compute again."""
        assert graph == "graph to launch"
        self.log.append("launch")
        self.replay()
        return (Code.cudaSuccess,)


def test_an_engine_is_captured_after_its_first_run_and_replayed_from_then_on() -> None:
    runtime = FakeGraphs()
    engine = FakeEngine(runtime)
    facts = {"layers": ["a"], "layer_types": ["Row major linear FP32"], "product_types": {"HALF": 8}}
    call = EngineCallable(engine, DeviceEnds(tuple(inputs()), SHAPE, 2, runtime), runtime, facts)
    call.capture({name: np.ones(SHAPE, np.int64) for name in inputs()})
    assert runtime.log[-2:] == ["begin", "end"]
    logits = call(inputs())["logits"]
    assert engine.runs == 2
    assert runtime.log[-6:] == ["event", "to-device", "launch", "to-host", "event", "synchronize"]
    assert logits[0, 0] == inputs()["input_ids"].sum()
    proof = call.proof()
    assert (proof["captured_graphs"], proof["graph_nodes"]) == (1, 42)


def test_an_engine_with_a_product_that_is_not_in_fp16_fails_the_proof() -> None:
    runtime = FakeGraphs()
    facts = {"layers": ["a"], "layer_types": ["Half"], "product_types": {"HALF": 7, "FLOAT": 1}}
    call = EngineCallable(FakeEngine(runtime), DeviceEnds(tuple(inputs()), SHAPE, 2, runtime), runtime, facts)
    with pytest.raises(ProofFailedError, match="products are not all in FP16"):
        call.proof()


def test_an_engine_that_refuses_a_size_is_no_engine_to_run() -> None:
    runtime = FakeGraphs()
    with pytest.raises(FarmError, match="TensorRT refuses inputs of"):
        EngineCallable(FakeEngine(runtime), DeviceEnds(tuple(inputs()), (1, 8), 2, runtime), runtime, {})


def test_the_types_of_products_are_read_from_the_network_that_is_built() -> None:
    def layer(kind: str, dtype: str) -> Any:
        return SimpleNamespace(type=kind, get_input=lambda _: SimpleNamespace(dtype=SimpleNamespace(name=dtype)))

    layers = [layer("product", "HALF"), layer("norm", "FLOAT"), layer("product", "HALF")]
    network = SimpleNamespace(num_layers=3, get_layer=layers.__getitem__)
    assert product_types(network, "product") == {"HALF": 2}


@pytest.mark.parametrize(
    ("told", "names", "types"),
    [
        ({"Layers": [{"Name": "mm", "Outputs": [{"Format/Datatype": "Half"}]}]}, ["mm"], ["Half"]),
        ({"Layers": ["mm", "norm"]}, ["mm", "norm"], []),
    ],
)
def test_layers_are_read_from_what_the_inspector_tells(told: Any, names: list[str], types: list[str]) -> None:
    inspector = SimpleNamespace(get_engine_information=lambda _: json.dumps(told))
    assert layer_facts(inspector, None) == {"layers": names, "layer_types": types}
