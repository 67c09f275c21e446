"""ONNX Runtime: the model exported, fused by its transformer optimizer, and run by a session alone."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, ClassVar

import numpy as np

from farm.errors import MethodUnsupportedError, ProofFailedError
from farm.records import Device, Machine, ModelInfo, Workload
from tasks.method import Arrays, Loaded, Method, library_versions
from tasks.steps import step

GRAPH = "model.onnx"
FACTS = "graph.json"
OPSET = 17

FUSED = ("Attention", "MultiHeadAttention", "SkipLayerNormalization", "BiasGelu", "FastGelu", "EmbedLayerNormalization")

BERT_LIKE = ("bert", "distilbert", "roberta", "xlm-roberta", "electra", "camembert")
"""Families whose exported graphs the optimizer's `bert` patterns match."""

PROVIDERS: Mapping[Device, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class SessionCallable:
    """An inference session called with named NumPy arrays.

    The session is profiled over its very first call only, so that the proof speaks of the session that is timed.
    """

    def __init__(self, session: Any, workload: Workload, facts: Mapping[str, Any], profile: Path) -> None:
        self._session = session
        self._workload = workload
        self._facts = facts
        self._profile = profile
        self._executed: list[tuple[str, str]] | None = None

    def __call__(self, inputs: Arrays) -> Arrays:
        """Run one batch; the session copies to and from the device itself."""
        logits = self._session.run(["logits"], inputs)[0]
        if self._executed is None:
            self._executed = self._end_profile()
        return {"logits": logits}

    def proof(self) -> Mapping[str, Any]:
        """Executed nodes per provider, and fused operators, from the session's own profile of its first call."""
        if self._executed is None:
            self({name: self._ones() for name in self._facts["inputs"]})
        executed = self._executed or []
        providers = Counter(provider for _, provider in executed)
        fused = {kind: n for kind in FUSED if (n := sum(1 for op, _ in executed if op == kind))}
        options = self._session.get_session_options()
        evidence = {
            "providers": self._session.get_providers(),
            "nodes_per_provider": dict(providers),
            "fused_nodes": fused,
            "intra_op_threads": options.intra_op_num_threads,
            "layers": self._facts["layers"],
        }
        expected = PROVIDERS[self._workload.device]
        if set(providers) != {expected}:
            raise ProofFailedError(f"nodes ran on {dict(providers)}, not all on {expected}")
        attention = fused.get("Attention", 0) + fused.get("MultiHeadAttention", 0)
        if attention == self._facts["layers"]:
            return evidence
        missing = f"attention is fused in {attention} of {self._facts['layers']} layers"
        if self._facts["fusion_expected"]:
            raise ProofFailedError(missing)
        family = self._facts["family"]
        return evidence | {"remarks": [f"{missing}, as ONNX Runtime's optimizer knows no more of {family} models"]}

    def _ones(self) -> np.ndarray:
        return np.ones((self._workload.batch_size, self._workload.length), np.int64)

    def _end_profile(self) -> list[tuple[str, str]]:
        """Stop profiling and read which operator ran on which provider."""
        written = Path(self._session.end_profiling())
        events = json.loads(written.read_text())
        written.unlink()
        self._profile.rmdir()
        return [
            (event["args"]["op_name"], event["args"]["provider"])
            for event in events
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
        ]


@dataclass(frozen=True)
class SessionOptions:
    """Settings of an ONNX Runtime session that a suite may give.

    `spinning`: worker threads spin between operators (the default), or sleep. `arena`: use the memory arena.
    """

    spinning: bool = True
    arena: bool = True


class OnnxRuntimeFp32(Method):
    """FP32 graph with the transformer fusions applied ahead of time."""

    id: ClassVar[str] = "onnxruntime-fp32"
    about: ClassVar[str] = "ONNX Runtime, FP32, transformer fusions applied"
    devices: ClassVar[tuple[Device, ...]] = ("cpu", "cuda")
    requires: ClassVar[tuple[str, ...]] = ("onnxruntime",)
    any_shape: ClassVar[bool] = True
    Options: ClassVar[type] = SessionOptions

    def check_supported(self, machine: Machine, device: Device) -> None:
        """On a GPU the installed build must hold the CUDA provider: a silent fallback to the CPU is never accepted."""
        super().check_supported(machine, device)
        import onnxruntime

        provider = PROVIDERS[device]
        if provider not in onnxruntime.get_available_providers():
            raise MethodUnsupportedError(
                f"{self.id} needs ONNX Runtime's {provider}; the installed build offers "
                f"{', '.join(onnxruntime.get_available_providers())}. Install onnxruntime-gpu."
            )

    def depends_on(self, workload: Workload) -> Mapping[str, Any]:
        """The graph has free batch and sequence axes, so one artifact serves all shapes."""
        return {
            **library_versions("onnx", "onnxruntime", "torch", "transformers"),
            "opset": OPSET,
            "device": workload.device,
        }

    def prepare(self, model: ModelInfo, workload: Workload, folder: Path) -> None:
        """Export through TorchScript with eager attention, the only pattern the optimizer fuses, then fuse."""
        with TemporaryDirectory(dir=folder.parent) as scratch:
            exported = Path(scratch) / "exported.onnx"
            with step("export"):
                layers = _export(model, exported)
            with step("fuse"):
                optimizer = _fuse(model, exported, workload.device)
            with step("convert"):
                self.convert(optimizer)
                optimizer.save_model_to_file(str(folder / GRAPH))
        facts = {
            "inputs": list(model.input_names),
            "layers": layers,
            "fusion_expected": model.family in BERT_LIKE,
            "fused": optimizer.get_fused_operator_statistics(),
        }
        (folder / FACTS).write_text(json.dumps(facts, indent=1))

    def convert(self, optimizer: Any) -> None:
        """Change the fused graph's precision in place; FP32 needs none."""

    def load(self, model: ModelInfo, workload: Workload, folder: Path) -> Loaded:
        """Make the session with the cell's threads; graph optimization beyond the artifact's is ONNX Runtime's own."""
        import onnxruntime

        settings = SessionOptions(**workload.options)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = workload.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.enable_cpu_mem_arena = settings.arena
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if settings.spinning else "0")
        profile = Path(mkdtemp(prefix="farm-ort-profile-"))
        options.enable_profiling = True
        options.profile_file_prefix = str(profile / "first-call")
        session = onnxruntime.InferenceSession(
            str(folder / GRAPH), options, providers=list({PROVIDERS[workload.device]: None, PROVIDERS["cpu"]: None})
        )
        facts = json.loads((folder / FACTS).read_text()) | {"family": model.family}
        return SessionCallable(session, workload, facts, profile)


class OnnxRuntimeFp16(OnnxRuntimeFp32):
    """The fused graph converted to FP16, as the founding experiment ran it on a GPU."""

    id: ClassVar[str] = "onnxruntime-fp16"
    about: ClassVar[str] = "ONNX Runtime on CUDA, FP16, transformer fusions applied"
    precision: ClassVar[str] = "fp16"
    devices: ClassVar[tuple[Device, ...]] = ("cuda",)
    exact: ClassVar[bool] = False

    def convert(self, optimizer: Any) -> None:
        """Convert weights and arithmetic to FP16; inputs stay integers and logits come back as FP32."""
        optimizer.convert_float_to_float16(keep_io_types=True)


def _export(model: ModelInfo, target: Path) -> int:
    """Write the model as an ONNX graph with free batch and sequence axes; return its number of layers."""
    import torch

    from tasks.pytorch import load_module

    module = load_module(model, attention="eager")
    names = list(model.input_names)
    example = {name: torch.ones((2, 16), dtype=torch.long) for name in names}
    axes = {name: {0: "batch", 1: "sequence"} for name in names}
    with torch.inference_mode(), warnings.catch_warnings():
        # The exporter by tracing is deprecated, yet the only one whose attention ONNX Runtime's optimizer fuses.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (),
            str(target),
            kwargs=example,
            input_names=names,
            output_names=["logits"],
            dynamic_axes={**axes, "logits": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
    return int(module.config.num_hidden_layers)


def _fuse(model: ModelInfo, exported: Path, device: Device) -> Any:
    """Apply ONNX Runtime's transformer optimizer. Heads and width come from the model, not from guesses."""
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    config = json.loads((Path(model.folder) / "config.json").read_text())
    heads = config.get("num_attention_heads", config.get("n_heads", 0))
    width = config.get("hidden_size", config.get("dim", 0))
    return optimizer.optimize_model(
        str(exported),
        model_type="bert",
        num_heads=heads,
        hidden_size=width,
        optimization_options=FusionOptions("bert"),
        opt_level=0,
        use_gpu=device == "cuda",
    )
