"""Cells on a real GPU for the tests that need one: the reason to skip them, a model its units can take, one cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from farm.errors import MethodUnsupportedError
from farm.machine import describe_machine
from farm.nursery import Nursery
from farm.records import Cell, ModelInfo, Turn, WarmUp, Workload
from tasks.method import find_method

LENGTH = 32
LIMIT_S = 300.0


def why_no_gpu() -> str:
    """Why tests that need a GPU cannot run here; empty where they can."""
    machine = describe_machine()
    if not machine.gpus:
        return f"no CUDA device: {machine.no_gpu}"
    try:
        find_method("pytorch-fp32").check_supported(machine, "cuda")
    except MethodUnsupportedError as error:
        return str(error)
    return ""


needs_gpu = pytest.mark.skipif(bool(why_no_gpu()), reason=why_no_gpu() or "a GPU is here")


def save_medium_model(folder: Path) -> Path:
    """A random DistilBERT whose widths are multiples of what a GPU's matrix units take: 3 layers of 256, 4 heads."""
    import torch
    from small_models import VOCABULARY, save_model
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    save_model(folder)  # its tokenizer
    config = DistilBertConfig(
        vocab_size=len(VOCABULARY), dim=256, hidden_dim=512, n_layers=3, n_heads=4, max_position_embeddings=64
    )
    model = DistilBertForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # fresh biases are zeros, which would hide a mistake in handling them
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Measured:
    """What one cell on a GPU said."""

    ready: WarmUp
    turn: Turn
    late: Mapping[str, Any]
    peaks: Mapping[str, int | None]

    @property
    def logits(self) -> np.ndarray:
        """On the timed inputs, in their order."""
        return np.concatenate([np.asarray(one) for one in self.ready.logits])

    @property
    def proof(self) -> Mapping[str, Any]:
        """The method's own evidence, before and after timing."""
        return {**self.ready.proof["method"], **self.late}


@contextmanager
def _resident(kind: Any, folder: Path, name: str) -> Iterator[Any]:
    machine = describe_machine()
    uuid = machine.gpu_devices[0].uuid
    nursery = Nursery(machine.usable_cpus[:4], min(4, len(machine.usable_cpus)), uuid, folder / f"nursery-{name}.log")
    try:
        yield nursery.fork(kind, folder / f"{name}.log")
    finally:
        nursery.close()


def inputs_of(model: ModelInfo) -> list[dict[str, np.ndarray]]:
    """Two batches of one text, the second of them padded."""
    random = np.random.default_rng(0)
    batches = []
    for tokens in (LENGTH, LENGTH // 2):
        mask = np.zeros((1, LENGTH), np.int64)
        mask[:, :tokens] = 1
        batches.append({"input_ids": random.integers(5, 17, (1, LENGTH)), "attention_mask": mask})
    return [{name: batch[name] for name in model.input_names} for batch in batches]


def measure(method_id: str, model: ModelInfo, folder: Path, **options: Any) -> Measured:
    """Prepare, load, warm up and take one turn, each in processes of its own as in a run. Skips what cannot run."""
    method = find_method(method_id)
    threads = min(4, len(describe_machine().usable_cpus))
    workload = Workload("cuda", threads, 1, LENGTH, options)
    try:
        method.check_supported(describe_machine(), "cuda")
        method.check_model(model)
    except MethodUnsupportedError as error:
        pytest.skip(str(error))
    if method.depends_on(workload) is None:
        artifact = model.folder
    else:
        with _resident("workshop", folder, f"prepare-{method_id}") as workshop:
            artifact = workshop.call("prepare", method_id, model, workload, timeout_s=LIMIT_S).folder
    cell = Cell(method_id, "candidate", method_id, method_id, method.precision, workload)
    with _resident("cell", folder, method_id) as resident:
        resident.call("import_runtime", method_id, model, timeout_s=LIMIT_S)
        resident.call("load", cell, model, artifact, inputs_of(model), timeout_s=LIMIT_S)
        ready = resident.call("warm_up", timeout_s=LIMIT_S)
        turn = resident.call("turn", timeout_s=LIMIT_S)
        peaks = resident.call("peaks", timeout_s=LIMIT_S)
        return Measured(ready, turn, resident.call("prove_late", timeout_s=LIMIT_S), peaks)


@contextmanager
def sentinel(folder: Path) -> Iterator[Any]:
    """A sentinel's process on the GPU."""
    with _resident("sentinel", folder, "sentinel") as resident:
        yield resident
