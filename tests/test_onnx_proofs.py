"""ONNX Runtime's proof fails where a session ran elsewhere, or with other threads, than its cell was promised."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from farm.errors import ProofFailedError
from farm.records import Workload
from tasks.method import Arrays
from tasks.onnx_graphs import GraphFacts
from tasks.onnx_sessions import SessionCallable

CPU = "CPUExecutionProvider"


class Session:
    """A session of one product whose profile names the given provider."""

    def __init__(self, profile: Path, provider: str, threads: int) -> None:
        self._profile = profile
        self._provider = provider
        self._threads = threads
        self.calls = 0

    def run(self, names: list[str], inputs: Arrays) -> list[np.ndarray]:
        """Logits that look at nothing."""
        del names, inputs
        self.calls += 1
        assert not self._profile.read_text()  # no call waits for a profile
        return [np.zeros((1, 2), np.float32)]

    def end_profiling(self) -> str:
        """Write what every call ran."""
        node = {"op_name": "MatMul", "provider": self._provider}
        node |= {"input_type_shape": [{"float": [1, 7, 24]}], "output_type_shape": [{"float": [1, 7, 48]}]}
        events: list[dict[str, Any]] = []
        for at in range(self.calls):
            events.append({"cat": "Node", "name": "a_kernel_time", "args": node, "ts": 10 * at + 1, "dur": 1})
            events.append({"cat": "Session", "name": "model_run", "args": {}, "ts": 10 * at, "dur": 5})
        self._profile.write_text(json.dumps(events))
        return str(self._profile)

    def get_providers(self) -> list[str]:
        """What could have been used."""
        return [self._provider, CPU]

    def get_session_options(self) -> SimpleNamespace:
        """The options as the session holds them."""
        return SimpleNamespace(intra_op_num_threads=self._threads)


def opened(folder: Path, provider: str = CPU, threads: int = 2) -> SessionCallable:
    profile = folder / "profile.json"
    profile.touch()
    facts = GraphFacts(("input_ids",), 0, labels=2)
    session = Session(profile, provider, threads)
    return SessionCallable(session, Workload("cpu", 2, 1, 7), facts, profile.open("rb"), "float32")


def test_the_multiply_adds_are_those_of_one_call_however_many_there_were(tmp_path: Path) -> None:
    call = opened(tmp_path)
    for _ in range(4):
        call({"input_ids": np.ones((1, 7), np.int64)})
    assert call.proof()["multiply_adds"] == {"weights:float32": 7 * 24 * 48}


def test_a_node_that_ran_on_another_provider_fails_the_proof(tmp_path: Path) -> None:
    with pytest.raises(ProofFailedError, match=r"nodes ran on \{'XnnpackExecutionProvider': 1\}, not all on CPU"):
        opened(tmp_path, provider="XnnpackExecutionProvider").proof()


def test_another_number_of_threads_fails_the_proof(tmp_path: Path) -> None:
    with pytest.raises(ProofFailedError, match="ONNX Runtime uses 0 threads, not 2"):
        opened(tmp_path, threads=0).proof()
