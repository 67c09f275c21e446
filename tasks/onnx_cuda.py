"""ONNX Runtime on a GPU: a session whose inputs and logits are bound to fixed places on the device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from farm.errors import FarmError, MethodUnsupportedError, ProofFailedError
from farm.records import Workload
from tasks.cuda_ends import DeviceEnds
from tasks.method import Arrays
from tasks.onnx_graphs import GRAPH, load_facts
from tasks.onnx_sessions import PROVIDERS, SessionCallable, SessionOptions, profiled_session, session_options
from tasks.options import loading

TENSORRT = "TensorrtExecutionProvider"
CUDA = PROVIDERS["cuda"]

AXES = ("batch", "sequence")
"""Names of the exported graph's free axes. Fixed, they leave no arithmetic on shapes, which would run on the CPU."""

COPIES = ("MemcpyFromHost", "MemcpyToHost")
"""Nodes that ONNX Runtime adds where a tensor changes sides."""


REPLAY_WAITS = (
    "time on the GPU includes the host's way from the end of the graph to the copy back, as ONNX Runtime waits for a "
    "graph that it replays"
)


@dataclass(frozen=True)
class CudaSessionOptions(SessionOptions):
    """Settings of a session that a suite may give, beside those of any session.

    `cuda_graph`: on a GPU, capture the session's kernels in a CUDA graph and replay them.
    """

    cuda_graph: bool = loading(False, device="cuda")


@dataclass(frozen=True)
class Placement:
    """Where a session's nodes must run, and with which settings of the provider."""

    provider: str = CUDA
    settings: Mapping[str, str] = field(default_factory=dict)
    device_type: str = "cuda"

    def providers(self, stream: int, cuda_graph: bool) -> list[Any]:
        """What ONNX Runtime is given, the CPU last, as it must be there; the proof says that nothing ran on it."""
        shared = {"device_id": "0", "user_compute_stream": str(stream)}
        # Unasked, the provider rounds FP32 products to TF32.
        cuda = shared | {"use_tf32": "0", "enable_cuda_graph": str(int(cuda_graph))}
        if self.provider == TENSORRT:
            # TensorRT's switches take these two words and nothing else.
            first = (TENSORRT, shared | {"trt_cuda_graph_enable": str(cuda_graph)} | dict(self.settings))
            return [first, (CUDA, cuda | {"enable_cuda_graph": "0"}), PROVIDERS["cpu"]]
        return [(CUDA, cuda | dict(self.settings)), PROVIDERS["cpu"]]


class BoundSession(SessionCallable):
    """A session at one shape, on one stream, between one copy to the device and one back."""

    def __init__(
        self,
        session: Any,
        workload: Workload,
        folder: Path,
        profile: IO[bytes],
        *,
        weights: str,
        ends: DeviceEnds,
        placement: Placement,
        cuda_graph: bool,
    ) -> None:
        super().__init__(session, workload, load_facts(folder), profile, weights)
        self._ends = ends
        self._placement = placement
        self._cuda_graph = cuda_graph
        self.device_clock = ends.clock
        self._binding = _bind(session, ends, placement.device_type, (workload.batch_size, workload.length))
        self._run_options = _run_options()

    def __call__(self, inputs: Arrays) -> Arrays:
        """Run one batch of the session's shape."""
        self._ends.receive(inputs)
        self._session.run_with_iobinding(self._binding, self._run_options)
        return {"logits": self._ends.send()}

    def proof(self) -> Mapping[str, Any]:
        """As on a CPU, from the profile of the first call, with the nodes that copied between sides."""
        evidence = dict(super().proof())
        copies = Counter(each.operator for each in self._executed if each.operator in COPIES)
        evidence |= {
            "io_binding": True,
            "cuda_graph": self._cuda_graph,
            "copying_nodes": dict(copies),
            "remarks": [*evidence["remarks"], *([REPLAY_WAITS] if self._cuda_graph else [])],
            "provider_options": {
                name: dict(given) for name, given in self._session.get_provider_options().items() if name != "CPU"
            },
        }
        if self._cuda_graph and copies:
            raise ProofFailedError(f"{copies.total()} nodes copy between host and GPU inside the captured graph")
        return evidence

    def _check_provider(self, nodes: Mapping[str, int]) -> None:
        expected = self._placement.provider
        if set(nodes) != {expected}:
            raise ProofFailedError(f"nodes ran on {dict(nodes)}, not all on {expected}")

    def _check_arithmetic(self, executed: Any) -> None:
        """TensorRT runs the whole graph as one node, whose products no profile of ONNX Runtime names."""
        if self._placement.provider != TENSORRT:
            super()._check_arithmetic(executed)

    def _check_fusion(self, fused: Mapping[str, int]) -> None:
        if self._placement.provider != TENSORRT:
            super()._check_fusion(fused)

    def _check_pruning(self, work: Mapping[str, int]) -> None:
        if self._placement.provider != TENSORRT:
            super()._check_pruning(work)


def open_cuda_session(
    folder: Path,
    workload: Workload,
    settings: SessionOptions,
    weights: str,
    *,
    placement: Placement | None = None,
    runtime: Any | None = None,
) -> BoundSession:
    """A session on the graph in `folder` at the workload's shape. Raises ProofFailedError where it fell back to a CPU.

    `runtime` is CUDA's, or something that behaves like it.
    """
    placement = placement or Placement()
    facts = load_facts(folder)
    cuda_graph = bool(getattr(settings, "cuda_graph", False))
    options = session_options(workload.threads, settings, {})
    for axis, size in zip(AXES, (workload.batch_size, workload.length), strict=True):
        options.add_free_dimension_override_by_name(axis, size)
    if placement.device_type == "cuda":
        load_cuda_libraries()
    shape = (workload.batch_size, workload.length)
    ends = DeviceEnds(facts.inputs, shape, facts.labels, runtime)
    providers = placement.providers(ends.stream_address, cuda_graph)
    if placement.device_type == "cpu":
        providers = [PROVIDERS["cpu"]]
    try:
        session, profile = profiled_session(folder / GRAPH, options, providers)
    except (RuntimeError, ValueError) as error:
        told = " ".join(str(error).split())
        raise FarmError(f"ONNX Runtime cannot make a session on its {placement.provider}: {told}") from error
    # A provider that cannot be loaded is left out with a warning; the session would then run on the CPU.
    if placement.provider not in session.get_providers():
        raise ProofFailedError(
            f"ONNX Runtime could not start its {placement.provider} and would have run on "
            f"{', '.join(session.get_providers())}: the end of the cell's own output says which library is missing"
        )
    return BoundSession(
        *(session, workload, folder, profile), weights=weights, ends=ends, placement=placement, cuda_graph=cuda_graph
    )


def load_cuda_libraries() -> None:
    """Load CUDA's and cuDNN's libraries from the packages that hold them, so that the provider finds them."""
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls(directory="")


def needs_bindings(method: str) -> None:
    """Raise MethodUnsupportedError where CUDA's Python bindings are not installed."""
    from importlib.util import find_spec

    try:
        found = find_spec("cuda.bindings") is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise MethodUnsupportedError(
            f"{method} needs the package 'cuda-bindings', for pinned copies and events without PyTorch: "
            "pip install 'inference-farm[gpu]'"
        )


def _bind(session: Any, ends: DeviceEnds, device: str, shape: tuple[int, int]) -> Any:
    binding = session.io_binding()
    for name, address in ends.addresses.items():
        binding.bind_input(name, device, 0, np.int64, list(shape), address)
    binding.bind_output("logits", device, 0, np.float32, list(ends.logits_shape), ends.logits_address)
    return binding


def _run_options() -> Any:
    """The call waits for its own last copy: ONNX Runtime need not wait as well."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return options
