"""Compiled and quantized methods compute what the baseline computes, prove it, and their proofs can fail."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from made_up import MACHINE
from tiers import mostly_long

from farm.errors import MethodUnsupportedError, ProofFailedError
from farm.records import Machine, ModelInfo, Workload
from tasks import calibration
from tasks.artifacts import prepare_artifact
from tasks.calibration import calibration_source
from tasks.method import Arrays, Loaded, find_method
from tasks.models import resolve_model
from tasks.progress import SilentProgress

EXACT = ("pytorch-fp32-compile", "pytorch-fp32-aot-pruned", "openvino-fp32", "openvino-fp32-pruned")
INT8 = ("pytorch-int8-pt2e", "pytorch-int8-pt2e-dynamic", "openvino-int8")
USUAL = (
    *("pytorch-fp32-compile", "pytorch-fp32-aot-pruned", "pytorch-int8-pt2e"),
    *("openvino-fp32-pruned", "openvino-int8"),
)
TEXTS = ("the camera is good .", "not the battery , very bad", "sound is good , picture very bad .")
QUICK = {"samples": 4}

pytestmark = pytest.mark.real


@dataclass
class Bench:
    """A small random model at one shape, with a cache of its own; methods are prepared once."""

    model: ModelInfo
    workload: Workload
    inputs: Arrays

    def folder(self, method_id: str) -> Path:
        """The method's artifact."""
        method, workload = find_method(method_id), self.asked(method_id)
        if method.depends_on(workload) is None:
            return Path(self.model.folder)
        return Path(prepare_artifact(method, self.model, workload).folder)

    def asked(self, method_id: str) -> Workload:
        """The workload, with few calibration samples where the method has any."""
        return replace(self.workload, options=QUICK if calibration_source(find_method(method_id).Options, {}) else {})

    def load(self, method_id: str, artifact_of: str | None = None) -> Any:
        """The method, loaded; perhaps from another one's artifact."""
        folder = self.folder(artifact_of or method_id)
        return find_method(method_id).load(self.model, self.asked(method_id), folder)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Any:
    import torch
    from small_models import VOCABULARY, save_model

    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FARM_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(calibration, "calibration_texts", lambda _source: TEXTS)
        model = resolve_model(str(save_model(tmp_path_factory.mktemp("model"))), SilentProgress())
        ids = np.random.default_rng(0).integers(5, len(VOCABULARY), (1, 12))
        mask = np.ones_like(ids)
        mask[0, 9:] = 0
        yield Bench(model, Workload("cpu", 2, 1, 12), {"input_ids": ids, "attention_mask": mask})
    torch._dynamo.config.error_on_recompile = False
    torch.set_num_threads(threads)


@pytest.mark.parametrize("method_id", mostly_long([*EXACT, *INT8], USUAL))
def test_a_compiled_method_answers_what_the_baseline_answers(bench: Bench, method_id: str) -> None:
    baseline = bench.load("pytorch-fp32")(bench.inputs)["logits"]
    call: Loaded = bench.load(method_id)
    answered = call(bench.inputs)["logits"]
    assert (answered.shape, answered.dtype) == ((1, 2), np.float32)
    assert np.abs(answered - baseline).max() <= (1e-4 if method_id in EXACT else 0.3)
    assert call.proof()


def test_bf16_eager_proves_its_products(bench: Bench) -> None:
    call = bench.load("pytorch-bf16")
    assert call(bench.inputs)["logits"].dtype == np.float32
    assert all(name.endswith(":bfloat16") for name in call.proof()["matrix_products"])


def test_fp32_under_the_name_of_bf16_fails_the_proof(bench: Bench) -> None:
    call = bench.load("pytorch-bf16")
    call.module.float()
    with pytest.raises(ProofFailedError, match="not in bfloat16"):
        call.proof()


def test_buckets_cut_the_padding_off_and_change_no_answer(bench: Bench) -> None:
    asked = replace(bench.workload, options={"length_bucket": 3})
    call = find_method("pytorch-fp32").load(bench.model, asked, Path(bench.model.folder))
    whole = bench.load("pytorch-fp32")(bench.inputs)["logits"]
    np.testing.assert_allclose(call(bench.inputs)["logits"], whole, atol=1e-5)


def test_torch_compile_proves_that_it_compiled_one_graph_without_breaks(bench: Bench) -> None:
    call = bench.load("pytorch-fp32-compile")
    assert (call.proof()["compiled_graphs"], call.proof()["graph_breaks"]) == (1, 0)
    assert call.prove_kernels()["matrix_operators"]


LOADED = """
import os, sys
from pathlib import Path
from farm.records import Workload
from tasks.method import find_method
from tasks.models import resolve_model
from tasks.progress import SilentProgress

method, model = find_method("pytorch-fp32-compile"), resolve_model(sys.argv[1], SilentProgress())
method.import_runtime(model)
loaded = method.load(model, Workload("cpu", 2, 1, int(sys.argv[3])), Path(sys.argv[2]))
print(*(path.name for path in Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).rglob("*.so")))
"""


def test_a_cell_of_torch_compile_compiles_nothing_and_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    bench.folder("pytorch-fp32-compile")
    second = replace(bench.workload, length=9)  # what is prepared later in a process must hold all that it needs
    made = prepare_artifact(find_method("pytorch-fp32-compile"), bench.model, second)
    with ZipFile(Path(made.folder) / "inductor-cache.zip") as archive:
        libraries = {Path(name).name for name in archive.namelist() if name.endswith(".so")}
    command = [sys.executable, "-c", LOADED, bench.model.folder, made.folder, str(second.length)]
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
    ran = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert set(ran.stdout.split()) == libraries
    assert libraries
    assert list(tmp_path.iterdir()) == []
    assert list(made.steps) == ["load model", "compile", "save", "other"]


def test_a_module_that_was_not_compiled_fails_the_proof(bench: Bench) -> None:
    import torch

    call = bench.load("pytorch-fp32-compile")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    call._graphs_before = 0
    call.module = call.module._orig_mod
    with pytest.raises(ProofFailedError, match="nothing was compiled"):
        call.proof()


def test_after_its_proof_another_shape_is_an_error_and_no_recompilation(bench: Bench) -> None:
    call = bench.load("pytorch-fp32-compile")
    call.proof()
    with pytest.raises(Exception, match=r"[Rr]ecompil"):
        call({name: array[:, :7] for name, array in bench.inputs.items()})


def test_an_unpruned_package_under_the_name_of_a_pruned_one_fails_the_proof(bench: Bench) -> None:
    pruned = bench.load("pytorch-fp32-aot-pruned")
    assert pruned.proof()["multiply_adds_with_weights"]
    call = bench.load("pytorch-int8-pt2e")
    call._pruned = True
    with pytest.raises(ProofFailedError, match="the last layer is not pruned"):
        call.proof()


def test_an_int8_package_under_the_name_of_fp32_fails_the_proof(bench: Bench) -> None:
    call = bench.load("pytorch-fp32-aot-pruned", artifact_of="pytorch-int8-pt2e")
    with pytest.raises(ProofFailedError, match="reduced precision"):
        call.proof()


def test_a_float_package_under_the_name_of_int8_fails_the_proof(bench: Bench) -> None:
    call = bench.load("pytorch-fp32-aot-pruned")
    quantized = bench.load("pytorch-int8-pt2e")
    quantized.module, quantized._facts = call.module, call._facts | {"linear_layers": 14, "quantized_layers": 14}
    with pytest.raises(ProofFailedError, match="of 14 linear layers 0 call oneDNN's int8 products"):
        quantized.proof()


def test_a_layer_that_was_not_quantized_fails_the_proof(bench: Bench) -> None:
    call = bench.load("pytorch-int8-pt2e")
    call._facts = call._facts | {"quantized_layers": call._facts["linear_layers"] - 1}
    with pytest.raises(ProofFailedError, match="linear layers were quantized"):
        call.proof()


def test_openvino_proves_int8_products_with_weights(bench: Bench) -> None:
    proof = bench.load("openvino-int8").proof()
    assert proof["product_shares"]["int8"] > 0.95
    assert sum(proof["precision_shares"]["attention"].values()) == pytest.approx(1.0)
    assert proof["inference_threads"] == 2


def test_a_float_model_under_the_name_of_openvino_int8_fails_the_proof(bench: Bench) -> None:
    call = bench.load("openvino-int8", artifact_of="openvino-fp32")
    with pytest.raises(ProofFailedError, match="0% of the multiplications by weights ran in int8"):
        call.proof()


def test_another_number_of_threads_fails_openvinos_proof(bench: Bench) -> None:
    call = bench.load("openvino-fp32")
    call._workload = replace(call._workload, threads=1)
    with pytest.raises(ProofFailedError, match="OpenVINO uses 2 threads, not 1"):
        call.proof()


def test_a_pruned_model_has_fewer_rows_in_its_last_layer(bench: Bench) -> None:
    from tasks.exported import export_module

    whole, pruned = (export_module(bench.model, bench.workload, pruned=each) for each in (False, True))
    sizes = [sum(_rows(module)) for module in (whole, pruned)]
    assert sizes[1] < sizes[0]


def _rows(module: Any) -> list[int]:
    linear = [node for node in module.graph.nodes if "aten.linear" in str(node.target)]
    return [node.meta["val"].numel() for node in linear]


BF16 = ("pytorch-bf16", "pytorch-bf16-compile", "openvino-bf16", "openvino-bf16-pruned")


@pytest.mark.parametrize("method_id", BF16)
def test_bf16_is_unsupported_where_it_would_be_emulated(method_id: str) -> None:
    with pytest.raises(MethodUnsupportedError, match="needs BF16 instructions"):
        find_method(method_id).check_supported(MACHINE, "cpu")
    able: Machine = replace(MACHINE, instruction_sets=("avx2", "avx512_bf16"))
    find_method(method_id).check_supported(able, "cpu")
