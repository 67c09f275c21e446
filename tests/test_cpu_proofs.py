"""Each proof of a CPU cell fails where it should: evidence made up, processes as they are."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from made_up import MACHINE, MODEL, SLOT

from farm import actor
from farm.actor import CellProcess, put_temporary_files_in
from farm.errors import MethodUnsupportedError, ProofFailedError
from farm.records import Workload
from farm.residents import Residents
from tasks import pytorch_int8
from tasks.cpu_products import Product
from tasks.inductor import PackageCallable
from tasks.inductor_int8 import QuantizedPackage
from tasks.method import find_method
from tasks.torch_compile import CompiledCallable

WORKLOAD = Workload("cpu", 2, 1, 8)
SGEMM = "SGEMM"
FLOAT = Product(SGEMM, ("f32", "f32"), 8, 24, 24)
INT8 = Product("brg_matmul:avx512_core_vnni u8-s8-f32", ("u8", "s8"), 8, 24, 24)
COMPILED = {
    "torch_threads": 2,
    "parameter_dtypes": {"float32": 40},
    "compiled_graphs": 1,
    "graph_breaks": 0,
}
PACKAGE = {"library_calls": {"addmm_out": 14}, "constant_dtypes": {"float32": 40, "int64": 1}}
QUANTIZED = {"linear_layers": 2, "quantized_layers": 2, "library_calls": {"_qlinear_pointwise_tensor": 2}}


# torch.compile


def _compiled() -> CompiledCallable:
    import torch

    return CompiledCallable(torch.nn.Linear(2, 2), MODEL, WORKLOAD, "float32")


@pytest.mark.parametrize(
    ("evidence", "message"),
    [
        ({"torch_threads": 1}, "PyTorch uses 1 threads, not 2"),
        ({"compiled_graphs": 0}, "nothing was compiled"),
        ({"compiled_graphs": 2}, "2 graphs were compiled instead of one, by 0 graph breaks or recompilations"),
        ({"compiled_graphs": 3, "graph_breaks": 2}, "3 graphs were compiled instead of one, by 2 graph breaks"),
        ({"parameter_dtypes": {"float32": 3, "bfloat16": 1}}, "not all float32"),
    ],
)
def test_evidence_against_a_compiled_module_fails_its_proof(evidence: Mapping[str, Any], message: str) -> None:
    _compiled().check(COMPILED)
    with pytest.raises(ProofFailedError, match=message):
        _compiled().check({**COMPILED, **evidence})


def test_a_recompilation_between_loading_and_the_proof_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from torch._dynamo.utils import counters

    call = _compiled()
    monkeypatch.setattr(CompiledCallable, "run", lambda *_: torch.zeros(1, 2))
    monkeypatch.setitem(counters["stats"], "unique_graphs", counters["stats"]["unique_graphs"] + 2)
    monkeypatch.setattr(call, "_workload", replace(WORKLOAD, threads=torch.get_num_threads()))
    with pytest.raises(ProofFailedError, match="2 graphs were compiled"):
        call.proof()


def test_a_compiled_module_without_products_fails_its_late_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    call = _compiled()
    monkeypatch.setattr(CompiledCallable, "run", lambda *_: torch.zeros(1, 2) + 1)
    with pytest.raises(ProofFailedError, match="runs no matrix product"):
        call.prove_kernels()
    weights = torch.ones(2, 2)
    monkeypatch.setattr(CompiledCallable, "run", lambda *_: weights @ weights)
    assert call.prove_kernels()["matrix_operators"]


# AOTInductor


def _package(threads: int = 2, facts: Mapping[str, Any] = PACKAGE) -> PackageCallable:
    import torch

    workload = replace(WORKLOAD, threads=threads)
    return PackageCallable(lambda **_: torch.zeros(1, 2), MODEL, workload, facts, pruned=False)


@pytest.mark.parametrize(
    ("evidence", "ran", "message"),
    [
        ({"library_calls": {}}, [FLOAT], "calls no matrix product"),
        ({"library_calls": {"_qlinear_pointwise_tensor": 2}}, [], "reduced precision: _qlinear_pointwise_tensor"),
        ({"constant_dtypes": {"float32": 3, "bfloat16": 9}}, [FLOAT], "reduced precision: bfloat16"),
        ({"constant_dtypes": {"float16": 9}}, [FLOAT], "reduced precision: float16"),
        ({}, [FLOAT, INT8], "not in float32"),
    ],
)
def test_evidence_against_a_package_in_fp32_fails_its_proof(
    evidence: Mapping[str, Any], ran: list[Product], message: str
) -> None:
    _package().check(PACKAGE, [FLOAT])
    with pytest.raises(ProofFailedError, match=message):
        _package().check({**PACKAGE, **evidence}, ran)


@pytest.mark.parametrize(
    ("evidence", "ran", "message"),
    [
        ({"quantized_layers": 1}, [INT8, INT8], "1 of 2 linear layers were quantized"),
        ({"library_calls": {"addmm_out": 2}}, [INT8, INT8], "of 2 linear layers 0 call"),
        ({}, [INT8, FLOAT], "of which 1 ran"),
    ],
)
def test_evidence_against_a_quantized_package_fails_its_proof(
    evidence: Mapping[str, Any], ran: list[Product], message: str
) -> None:
    call = QuantizedPackage(None, MODEL, WORKLOAD, {}, pruned=False)
    call.check(QUANTIZED, [INT8, INT8])
    with pytest.raises(ProofFailedError, match=message):
        call.check({**QUANTIZED, **evidence}, ran)


def test_a_package_on_another_number_of_threads_fails_its_proof() -> None:
    import torch

    threads = torch.get_num_threads()
    assert _package(threads).proof()["torch_threads"] == threads
    with pytest.raises(ProofFailedError, match=f"uses {threads} threads, not {threads + 1}"):
        _package(threads + 1).proof()


# TorchScript


def test_weights_of_another_type_in_a_nested_block_fail_torchscripts_proof() -> None:
    import torch

    from tasks.torchscript import ScriptCallable

    class Nested(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, dtype: torch.dtype) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3, 3, dtype=dtype))

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            found = tokens
            if bool(tokens.sum() > 0):
                found = torch.matmul(tokens.to(self.weight.dtype), self.weight)
            return found

    workload = replace(WORKLOAD, threads=torch.get_num_threads())
    programs = [torch.jit.freeze(torch.jit.script(Nested(each).eval())) for each in (torch.float32, torch.bfloat16)]
    right, wrong = (ScriptCallable(each, MODEL, workload, "fp32") for each in programs)
    assert right.proof()["weight_dtypes"] == {"float32": 1}
    with pytest.raises(ProofFailedError, match=r"weights are \{'bfloat16': 1\}, not all float32"):
        wrong.proof()


# Any cell


@pytest.fixture
def cell() -> Iterator[Any]:
    process: Any = CellProcess(sorted(os.sched_getaffinity(0)))
    gc.enable()  # a cell disables it for good
    process._method = find_method("control-null")
    process._call = SimpleNamespace(proof=dict)
    yield process


@pytest.fixture
def no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has imported runtimes for other tests."""
    monkeypatch.setattr(actor, "RUNTIMES", ("jax",))


@pytest.mark.usefixtures("no_runtime")
def test_threads_outside_the_cores_fail_a_cells_proof(cell: Any) -> None:
    assert cell._prove()["os_threads"] >= 1
    cell._cores = {10_000}
    with pytest.raises(ProofFailedError, match=r"threads may run outside cores \[10000\]"):
        cell._prove()


@pytest.mark.usefixtures("no_runtime")
def test_a_runtime_that_the_method_does_not_need_fails_a_cells_proof(
    cell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jax", ModuleType("jax"))
    with pytest.raises(ProofFailedError, match="the cell imported jax, which control-null does not need"):
        cell._prove()


@pytest.mark.usefixtures("no_runtime")
def test_cores_that_calls_kept_busy_are_counted_and_too_many_fail_a_cells_proof(cell: Any) -> None:
    cell._cell = SimpleNamespace(workload=replace(WORKLOAD, threads=1))
    assert cell._busy_cores(used_ns=140_000_000, wall_ns=100_000_000) == 1.4
    assert cell._busy_cores(used_ns=20_000_000, wall_ns=10_000_000) == 2.0  # too short to tell
    with pytest.raises(ProofFailedError, match=r"its calls kept 2\.0 cores busy, with 1 threads to run on"):
        cell._busy_cores(used_ns=200_000_000, wall_ns=100_000_000)
    cell._cell = SimpleNamespace(workload=replace(WORKLOAD, threads=1, device="cuda"))
    assert cell._busy_cores(used_ns=200_000_000, wall_ns=100_000_000) == 2.0


def test_python_and_native_code_are_told_the_cells_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/elsewhere")
    monkeypatch.setattr(tempfile, "tempdir", "/elsewhere")
    put_temporary_files_in(tmp_path / "cell")
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(tmp_path / "cell")


# What is missing


@pytest.mark.parametrize("method_id", ["pytorch-fp32-compile", "pytorch-fp32-aot-pruned", "pytorch-int8-pt2e"])
def test_a_method_that_compiles_is_unsupported_without_a_compiler(
    method_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    able = replace(MACHINE, instruction_sets=("avx2",))
    find_method(method_id).check_supported(able, "cpu")
    monkeypatch.setenv("CXX", "a-compiler-that-is-not-there")
    with pytest.raises(MethodUnsupportedError, match="C\\+\\+ compiler 'a-compiler-that-is-not-there'"):
        find_method(method_id).check_supported(able, "cpu")


def test_dynamic_int8_is_unsupported_on_x86_without_avx2(monkeypatch: pytest.MonkeyPatch) -> None:
    old = replace(MACHINE, instruction_sets=("sse2",))
    monkeypatch.setattr(pytorch_int8, "is_x86", lambda: True)
    with pytest.raises(MethodUnsupportedError, match="instruction sets avx2"):
        find_method("pytorch-int8-dynamic").check_supported(old, "cpu")
    monkeypatch.setattr(pytorch_int8, "is_x86", lambda: False)
    find_method("pytorch-int8-dynamic").check_supported(old, "cpu")


def test_a_package_that_is_there_but_broken_makes_its_method_unsupported() -> None:
    residents = Residents(SLOT)
    try:
        failure = residents.explain("cell", ImportError("libtorch.so: undefined symbol"), "too late")
    finally:
        residents.close()
    assert failure.status == "unsupported"
    assert "cannot be imported: ImportError: libtorch.so: undefined symbol" in failure.reason
