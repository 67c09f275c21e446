"""The farm's kernels for AMX compute what the baseline computes, prove it, and refuse what they cannot run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from amx_here import needs_amx
from made_up import MACHINE
from small_families import SETTINGS, prepared, small_classifier, some_inputs
from test_export import exported, results_of, run_example

from farm.errors import MethodUnsupportedError, ProofFailedError
from farm.records import ModelInfo, Workload
from tasks import amx
from tasks.deployed.native_encoder import NativeEncoder
from tasks.method import find_method
from tasks.native.building import compile_library, tile_products
from tasks.native.weights import FAMILIES

METHODS = ("amx-int8", "amx-int8-pruned")
WIDE = {"hidden_size": 128, "intermediate_size": 192, "num_attention_heads": 2}
WIDE_DISTILBERT = {"dim": 128, "hidden_dim": 192, "n_heads": 2}

LARGEST_ERROR = 0.1
"""Of the norm of the logits: these random models lose up to 5 % to int8."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernels, compiled once."""
    target = tmp_path_factory.mktemp("kernels") / "encoder.so"
    compile_library(amx.SOURCE, target)
    return target


@pytest.fixture
def compiled(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Preparing copies what was compiled once, which takes seconds."""
    monkeypatch.setattr(amx, "compile_library", lambda _source, target: target.write_bytes(library.read_bytes()))


def _classifier(folder: Path, family: str, **changes: Any) -> ModelInfo:
    wide = WIDE_DISTILBERT if family == "distilbert" else WIDE
    return small_classifier(folder / "model", family, positions=130, noise=0.1, **{**wide, **changes})


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@needs_amx
@pytest.mark.real
@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("method_id", METHODS)
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_family_gets_the_baselines_logits_at_every_shape(family: str, method_id: str, tmp_path: Path) -> None:
    model = _classifier(tmp_path, family)
    baseline, call = (prepared(each, model, 130, tmp_path) for each in ("pytorch-fp32", method_id))
    for batch, length in ((2, 7), (18, 130), (1, 32), (3, 45)):  # growing and shrinking: memory is used again
        inputs = some_inputs(model, length, batch)
        expected = baseline(inputs)["logits"].copy()
        assert _error(call(inputs)["logits"], expected) < LARGEST_ERROR
        if batch > 1:
            assert _error(expected[::-1], expected) > 2 * LARGEST_ERROR


@needs_amx
@pytest.mark.real
@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 192, "num_attention_heads": 6, "labels": 1},
        {"hidden_size": 192, "num_attention_heads": 2, "labels": 5},
        {"hidden_size": 128, "num_attention_heads": 1, "type_vocab_size": 1},
    ],
    ids=["heads of 32", "heads of 96", "heads of 128, no types"],
)
def test_other_sizes_get_the_baselines_logits(changes: Mapping[str, Any], tmp_path: Path) -> None:
    model = _classifier(tmp_path, "bert", **changes)
    inputs = some_inputs(model, 50)
    expected, found = (prepared(each, model, 50, tmp_path)(inputs)["logits"] for each in ("pytorch-fp32", METHODS[1]))
    assert _error(found, expected) < LARGEST_ERROR


@needs_amx
@pytest.mark.real
@pytest.mark.usefixtures("compiled")
def test_inputs_that_the_model_has_no_tables_for_are_refused(tmp_path: Path) -> None:
    model = _classifier(tmp_path, "bert")
    call = prepared("amx-int8", model, 32, tmp_path)
    good = some_inputs(model, 20)
    with pytest.raises(ValueError, match="1 to 130"):
        call({name: np.pad(array, ((0, 0), (0, 120))) for name, array in good.items()})
    with pytest.raises(ValueError, match="one shape"):
        call(good | {"attention_mask": good["attention_mask"][:1]})
    with pytest.raises(ValueError, match="input_ids must be from 0 to"):
        call(good | {"input_ids": good["input_ids"] + 1000})
    with pytest.raises(ValueError, match="token_type_ids must be from 0 to 1"):
        call(good | {"token_type_ids": good["token_type_ids"] - 1})


@needs_amx
@pytest.mark.real
@pytest.mark.usefixtures("compiled")
def test_fewer_threads_than_asked_for_do_all_the_work(tmp_path: Path) -> None:
    model = _classifier(tmp_path, "distilbert")
    prepared("amx-int8", model, 32, tmp_path)
    program = (
        "import sys; from pathlib import Path; import numpy as np; "
        "from tasks.deployed.native_encoder import NativeEncoder; "
        "ids = np.full((1, 20), 6); call = NativeEncoder(Path(sys.argv[1]), 4, pruned=False); "
        "print(call({'input_ids': ids, 'attention_mask': ids}).tolist(), call.account()[2])"
    )
    told = []
    for limit in ("4", "2"):
        command = [sys.executable, "-c", program, str(tmp_path / "amx-int8")]
        environment = os.environ | {"OMP_THREAD_LIMIT": limit, "PYTHONPATH": str(Path(__file__).parents[1])}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        told.append(ran.stdout.rsplit(maxsplit=1))
    assert told[0][0] == told[1][0]
    assert [int(threads) for _, threads in told] == [4, 2]


@needs_amx
@pytest.mark.real
@pytest.mark.usefixtures("compiled")
def test_padding_changes_no_logits(tmp_path: Path) -> None:
    model = _classifier(tmp_path, "roberta")
    call = prepared("amx-int8", model, 100, tmp_path)
    inputs = some_inputs(model, 40, batch_size=1)
    bare = {name: array[:, :20] for name, array in inputs.items()} | {"attention_mask": np.ones((1, 20), np.int64)}
    padded = {name: np.pad(array, ((0, 0), (0, 80))) for name, array in bare.items()}
    padded["input_ids"][:, 20:] = 1
    np.testing.assert_allclose(call(padded)["logits"], call(bare)["logits"], atol=0.02)


@needs_amx
@pytest.mark.real
@pytest.mark.usefixtures("compiled")
def test_logits_depend_neither_on_threads_nor_on_the_rest_of_the_batch(tmp_path: Path) -> None:
    model = _classifier(tmp_path, "bert")
    prepared("amx-int8", model, 32, tmp_path)
    inputs = some_inputs(model, 100, batch_size=5)
    answers = [NativeEncoder(tmp_path / "amx-int8", threads, pruned=False)(inputs) for threads in (1, 2, 3)]
    assert all(np.array_equal(each, answers[0]) for each in answers)
    alone = NativeEncoder(tmp_path / "amx-int8", 2, pruned=False)({name: array[:1] for name, array in inputs.items()})
    assert np.array_equal(alone, answers[0][:1])


# Proof


@needs_amx
@pytest.mark.real
@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("method_id", METHODS)
@pytest.mark.parametrize("length", [64, 45])
def test_the_proof_counts_what_each_instruction_multiplied(method_id: str, length: int, tmp_path: Path) -> None:
    model = _classifier(tmp_path, "distilbert")
    proof = prepared(method_id, model, length, tmp_path).proof()
    assert proof["openmp_threads"] == 2
    layers, pruned, rows, hidden = 2, method_id.endswith("pruned"), 2 * 64, 128
    # Scores and sums, of 16 rows a sequence in a last layer that is pruned: a tile has no fewer.
    queries = rows * (layers - pruned) + 2 * 16 * pruned
    assert proof["multiply_adds"]["tdpbf16ps"] == 2 * queries * 64 * hidden


@needs_amx
@pytest.mark.real
@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    ("threads", "pruned", "said"),
    [(2, False, "with the last layer for the first token alone"), (1, True, "ran on 1 threads, not 2")],
    ids=["not pruned", "fewer threads"],
)
def test_an_encoder_that_was_not_asked_for_fails_the_proof(
    threads: int, pruned: bool, said: str, tmp_path: Path
) -> None:
    call: Any = prepared("amx-int8-pruned", _classifier(tmp_path, "distilbert"), 64, tmp_path)
    call._encoder = NativeEncoder(tmp_path / "amx-int8-pruned", threads, pruned=pruned)
    with pytest.raises(ProofFailedError, match=said):
        call.proof()


@needs_amx
@pytest.mark.real
@pytest.mark.usefixtures("compiled")
def test_a_library_without_the_instruction_fails_the_proof(tmp_path: Path) -> None:
    call = prepared("amx-int8", _classifier(tmp_path, "distilbert"), 64, tmp_path)
    path = tmp_path / "amx-int8" / "encoder.so"
    without = path.read_bytes().replace(b"\x5e", b"\x5f")  # the byte that makes the instruction what it is
    path.unlink()  # what is loaded stays as it was
    path.write_bytes(without)
    assert tile_products(path)["tdpbssd"] == 0
    with pytest.raises(ProofFailedError, match="does not hold the instruction tdpbssd"):
        call.proof()


# What is refused


@pytest.mark.parametrize("method_id", METHODS)
def test_a_cpu_without_amx_is_unsupported(method_id: str) -> None:
    with pytest.raises(MethodUnsupportedError, match="instruction sets amx_bf16, amx_int8"):
        find_method(method_id).check_supported(replace(MACHINE, instruction_sets=("avx2", "avx512f")), "cpu")


@pytest.mark.parametrize("family", sorted(set(SETTINGS) - set(FAMILIES)))
def test_another_kind_of_layer_is_unsupported(family: str, tmp_path: Path) -> None:
    with pytest.raises(MethodUnsupportedError, match=f"computes .*distilbert.*, not {family}"):
        find_method("amx-int8").check_model(small_classifier(tmp_path, family))


@pytest.mark.real
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dim": 96, "hidden_dim": 192, "n_heads": 3}, "multiples of 64 and heads of multiples of 32"),
        ({"dim": 64, "hidden_dim": 128, "n_heads": 4}, "are 64, 128 and 16 wide"),
        ({**WIDE_DISTILBERT, "activation": "relu"}, "compute GELU; .* has relu"),
    ],
)
def test_sizes_and_activations_that_the_kernels_lack_are_unsupported(
    changes: Mapping[str, Any], said: str, tmp_path: Path
) -> None:
    model = small_classifier(tmp_path / "model", "distilbert", **changes)
    with pytest.raises(MethodUnsupportedError, match=said):
        find_method("amx-int8").prepare(model, Workload("cpu", 2, 1, 32), tmp_path)


def test_a_compiler_that_cannot_is_named_with_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "old-g++"
    old.write_text("#!/bin/sh\necho \"g++: error: unrecognized option '-mamx-tile'\" >&2\nexit 1\n")
    old.chmod(0o755)
    monkeypatch.setenv("CXX", str(old))
    with pytest.raises(MethodUnsupportedError, match=r"old-g\+\+ cannot compile .*unrecognized option '-mamx-tile'"):
        compile_library(amx.SOURCE, tmp_path / "encoder.so")


# Export


@needs_amx
@pytest.mark.real
@pytest.mark.usefixtures("compiled", "empty_cache")
def test_an_exported_encoder_gives_the_same_logits_without_a_framework(tmp_path: Path) -> None:
    model = _classifier(tmp_path, "distilbert")
    results = results_of(tmp_path / "results", model, "control-null", METHODS[1])
    exported(results, tmp_path / "served", METHODS[1])
    assert "the same logits on 4 texts" in run_example(tmp_path / "served", "--check")
    wanted = (tmp_path / "served" / "requirements.txt").read_text()
    assert {line.partition("==")[0] for line in wanted.split()} == {"numpy", "tokenizers"}
