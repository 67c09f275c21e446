"""An ONNX Runtime session as a cell calls it, and the proof that its own profile of the first call gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Annotated, Any

import numpy as np
from annotated_types import Ge

from farm.errors import ProofFailedError
from farm.records import Device, Workload
from tasks.method import Arrays
from tasks.onnx_graphs import GRAPH, GraphFacts, load_facts
from tasks.onnx_profile import Execution, int8_share, multiply_adds, read_profile
from tasks.options import loading

FUSED = (
    *("Attention", "QAttention", "MultiHeadAttention", "SkipLayerNormalization", "LayerNormalization"),
    *("BiasGelu", "FastGelu", "Gelu", "EmbedLayerNormalization"),
)

MOST_FLOAT = 0.01
"""Share of the multiply-adds with weights that int8 methods may leave in FP32: ONNX Runtime's static quantizer leaves
out the product that gives the labels, which no latency shows."""

PROVIDERS: Mapping[Device, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True)
class SessionOptions:
    """Settings of an ONNX Runtime session that a suite may give.

    `spinning`: worker threads spin between operators (the default), or sleep. `arena`: use the memory arena.
    `dynamic_block_base`: 0 splits an operator evenly over the threads; n > 0 splits it into ever smaller blocks,
    the last ones of 1/n of a thread's share, so that a thread which others disturb holds up the call less.
    """

    spinning: bool = loading(True)
    arena: bool = loading(True)
    dynamic_block_base: Annotated[int, Ge(0)] = loading(0)


class SessionCallable:
    """An inference session called with named NumPy arrays.

    The session writes a profile until it is asked for its proof, which reads what the first call ran: so it speaks of
    the session that is timed, and no call waits for it. `weights` names the arithmetic that every product with weights
    must run in.
    """

    def __init__(self, session: Any, workload: Workload, facts: GraphFacts, profile: IO[bytes], weights: str) -> None:
        self._session = session
        self._workload = workload
        self._facts = facts
        self._profile = profile
        self._weights = weights
        self._executed: list[Execution] = []

    def __call__(self, inputs: Arrays) -> Arrays:
        """Run one batch; the session copies to and from the device itself."""
        return {"logits": self._session.run(["logits"], inputs)[0]}

    def proof(self) -> Mapping[str, Any]:
        """Operators per provider, fused ones, and multiply-adds by arithmetic, from the profile of the first call.

        Raises ProofFailedError where an operator ran elsewhere, a product with weights ran in another arithmetic,
        attention is not fused in a family whose attention can be, a pruned graph computes what is never read, or the
        session has other threads than the cell.
        """
        executed = self._first_call()
        work = multiply_adds(executed)
        evidence = {
            "providers": self._session.get_providers(),
            "nodes_per_provider": dict(Counter(execution.provider for execution in executed)),
            "fused_nodes": dict(Counter(each.operator for each in executed if each.operator in FUSED)),
            "layers": self._facts.layers,
            "multiply_adds": work,
            "int8_share_of_multiply_adds": int8_share(work),
            "int8_share_with_weights": int8_share(work, "weights"),
            "intra_op_threads": self._session.get_session_options().intra_op_num_threads,
            "pruned_operators": self._facts.pruning.operators if self._facts.pruning else 0,
            "remarks": list(self._facts.notes),
        }
        if evidence["intra_op_threads"] != self._workload.threads:
            raise ProofFailedError(
                f"ONNX Runtime uses {evidence['intra_op_threads']} threads, not {self._workload.threads}"
            )
        self._check_provider(evidence["nodes_per_provider"])
        self._check_arithmetic(executed)
        self._check_fusion(evidence["fused_nodes"])
        self._check_pruning(work)
        return evidence

    def _check_provider(self, nodes: Mapping[str, int]) -> None:
        expected = PROVIDERS[self._workload.device]
        if set(nodes) != {expected}:
            raise ProofFailedError(f"nodes ran on {dict(nodes)}, not all on {expected}")

    def _check_arithmetic(self, executed: Sequence[Execution]) -> None:
        """Every product with weights in the promised arithmetic; a graph without any is no model."""
        products = [each for execution in executed for each in execution.products if each.operand == "weights"]
        wrong = [each for each in products if each.precision != self._weights]
        total = sum(each.multiply_adds for each in products)
        part = sum(each.multiply_adds for each in wrong) / total if total else 1.0
        if part > (MOST_FLOAT if self._weights == "int8" else 0.0):
            ran = Counter(f"{each.operator} in {each.precision}" for each in wrong)
            which = ", ".join(f"{count} {name}" for name, count in ran.items()) or "there are none"
            raise ProofFailedError(
                f"{len(wrong)} of {len(products)} products with weights ({part:.1%} of their multiply-adds) did not "
                f"run in {self._weights}: {which}"
            )

    def _check_fusion(self, fused: Mapping[str, int]) -> None:
        attention = sum(fused.get(kind, 0) for kind in ("Attention", "QAttention", "MultiHeadAttention"))
        if attention < self._facts.expected_attention:
            raise ProofFailedError(f"attention is fused in {attention} of {self._facts.layers} layers")

    def _check_pruning(self, work: Mapping[str, int]) -> None:
        """A pruned graph does no more work than pruning left; less, where the session has folded constants."""
        done = sum(count for name, count in work.items() if name.startswith("weights:"))
        if self._facts.pruning and done > self._facts.pruning.multiply_adds:
            raise ProofFailedError(
                f"products with weights took {done} multiply-adds; pruned to the first token they need "
                f"{self._facts.pruning.multiply_adds}"
            )

    def _first_call(self) -> list[Execution]:
        """What the first call ran; profiling ends here, after one call at least."""
        if not self._profile.closed:
            ones = np.ones((self._workload.batch_size, self._workload.length), np.int64)
            # Every model has a token 1, but some have a single type of tokens.
            self({name: ones * (name != "token_type_ids") for name in self._facts.inputs})
            self._session.end_profiling()
            with self._profile:
                self._executed = read_profile(self._profile)
        return self._executed


def open_session(
    folder: Path, workload: Workload, settings: SessionOptions, weights: str, entries: Mapping[str, str]
) -> SessionCallable:
    """A session on the graph in `folder` with the cell's threads and further configuration `entries`."""
    options = session_options(workload.threads, settings, entries)
    providers = list({PROVIDERS[workload.device]: None, PROVIDERS["cpu"]: None})
    session, profile = profiled_session(folder / GRAPH, options, providers)
    return SessionCallable(session, workload, load_facts(folder), profile, weights)


def profiled_session(graph: Path, options: Any, providers: Sequence[Any]) -> tuple[Any, IO[bytes]]:
    """A session that profiles its calls, and the file that the profile will be in when profiling ends.

    The file has no name any more: however the process ends, nothing stays behind.
    """
    import onnxruntime

    with TemporaryDirectory(prefix="farm-ort-profile-") as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "calls")
        # Otherwise what a provider refuses makes the session start again without it, and the reason a mere print.
        given = {"providers": list(providers), "enable_fallback": False}
        session = onnxruntime.InferenceSession(str(graph), options, **given)
        return session, next(Path(folder).iterdir()).open("rb")


def session_options(threads: int, settings: SessionOptions, entries: Mapping[str, str]) -> Any:
    """ONNX Runtime's options for a session; optimization beyond what the graph brings is its own, all of it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_cpu_mem_arena = settings.arena
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if settings.spinning else "0")
    if settings.dynamic_block_base:
        options.add_session_config_entry("session.dynamic_block_base", str(settings.dynamic_block_base))
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    return options
