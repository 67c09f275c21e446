"""Every method for a GPU on a real one: it answers what FP32 answers on a CPU, and its proof holds."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_cells import LENGTH, Measured, inputs_of, measure, needs_gpu, save_medium_model, sentinel

from farm.gpu_guards import GpuWatch
from farm.gpus import GpuMeter
from farm.machine import describe_machine
from farm.records import ModelInfo, Workload
from tasks.cuda_kernels import CUDA_RATES
from tasks.method import BUILT_IN, find_method
from tasks.models import resolve_model
from tasks.progress import SilentProgress

pytestmark = [pytest.mark.gpu, needs_gpu]

METHODS = [name for name in BUILT_IN if "cuda" in find_method(name).devices and not name.startswith("control-")]
CAPTURED = [name for name in METHODS if "cudagraph" in name or "reduce-overhead" in name or "max-autotune" in name]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelInfo:
    return resolve_model(str(save_medium_model(tmp_path_factory.mktemp("model"))), SilentProgress())


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FARM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def expected(model: ModelInfo) -> np.ndarray:
    baseline = find_method("pytorch-fp32").load(model, Workload("cpu", 2, 1, LENGTH), Path(model.folder))
    return np.concatenate([baseline(batch)["logits"] for batch in inputs_of(model)])


@pytest.fixture(scope="module")
def cells(model: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Measured]:
    """Measures a cell, each at most once: starting and compiling one takes seconds to a minute."""
    folder = tmp_path_factory.mktemp("logs")

    @cache
    def measured(method: str, **options: Any) -> Measured:
        return measure(method, model, folder, **options)

    return measured


@pytest.mark.parametrize("method", METHODS)
def test_a_method_answers_what_fp32_answers_and_proves_what_ran(
    method: str, cells: Callable[..., Measured], expected: np.ndarray
) -> None:
    found = cells(method)
    # On random weights FP8 errs by about a twentieth; the two inputs are far enough apart for a wrong answer to show.
    share = 0.15 if "fp8" in method else 0.05
    exact = find_method(method).exact
    assert np.abs(found.logits - expected).max() <= (1e-3 if exact else share * max(1.0, np.abs(expected).max()))
    assert np.abs(expected[0] - expected[1]).max() > 0.01  # the inputs matter
    assert len(found.turn.device_ns) == len(found.turn.latency_ns)
    assert all(on_device > 0 for on_device in found.turn.device_ns)
    if method.startswith(("pytorch", "torchscript")):
        assert found.proof["kernels_per_call"] > 0
        assert found.peaks["allocated_vram_bytes"]


@pytest.mark.parametrize("method", [name for name in CAPTURED if name.startswith("pytorch")])
def test_a_captured_method_launches_a_graph_and_few_kernels_beside_it(
    method: str, cells: Callable[..., Measured]
) -> None:
    proof = cells(method).proof
    assert proof["graph_launches"] >= 1
    assert proof["kernel_launches"] < proof["kernels_per_call"] / 2


@pytest.mark.parametrize("method", ["onnxruntime-fp32", "onnxruntime-fp16", "onnxruntime-fp16-pruned"])
def test_onnx_runtime_replays_a_graph_where_it_is_asked_to(
    method: str, cells: Callable[..., Measured], expected: np.ndarray
) -> None:
    found = cells(method, cuda_graph=True)
    assert np.abs(found.logits - expected).max() <= 0.05 * max(1.0, np.abs(expected).max())
    assert set(found.proof["nodes_per_provider"]) == {"CUDAExecutionProvider"}
    assert found.proof["cuda_graph"] is True


@pytest.mark.parametrize("backend", ["efficient", "math"])
def test_attention_takes_the_kernels_it_is_left(backend: str, cells: Callable[..., Measured]) -> None:
    proof = cells("pytorch-fp16", sdpa_backend=backend).proof
    assert [name for name, may in proof["sdpa_may_use"].items() if may] == [backend]
    assert any("fmha_cutlass" in kernel for kernel in proof["kernels"]) == (backend == "efficient")
    assert backend == "efficient" or not any("flash" in kernel or "sdpa" in kernel for kernel in proof["kernels"])


def test_a_tf32_product_is_told_from_an_fp32_one(cells: Callable[..., Measured]) -> None:
    methods = ("pytorch-fp32", "pytorch-tf32")
    rounded = {name: cells(name).proof["rounds_fp32_to_tf32"] for name in methods}
    assert rounded == {"pytorch-fp32": False, "pytorch-tf32": True}


def test_the_sentinel_finds_the_gpus_ceilings_and_reads_them_again(tmp_path: Path) -> None:
    with sentinel(tmp_path) as resident:
        ceilings = resident.call("prepare", None, "cuda", timeout_s=120.0)
        rates = resident.call("measure", timeout_s=30.0)
    assert {"fp32", "fp16", "memory"} <= set(rates) <= set(CUDA_RATES)
    assert set(rates) == set(ceilings)
    assert all(ceilings[rate]["searched"] > 1 for rate in rates if rate != "memory")
    assert all(rate > 0 for rate in rates.values())
    assert rates["fp16"] > rates["fp32"]


def test_the_driver_tells_what_the_guards_ask() -> None:
    gpu = describe_machine().gpu_devices[0]
    meter = GpuMeter(gpu.uuid)
    read = meter.read()
    assert gpu.memory_bytes > (meter.memory_used_bytes() or 0) > 0
    assert read.sm_mhz
    assert meter.default_mhz
    seen = GpuWatch(meter).disturbance(read, None, meter.read())
    assert seen.gpu_sm_mhz
