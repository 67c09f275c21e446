"""Load the exported graph into an ONNX Runtime session, with the settings it was measured with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def load(folder: Path, settings: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    """A call from arrays `[batch, length]` to logits `[batch, labels]`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings["threads"]
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_cpu_mem_arena = settings["runtime"]["arena"]
    for name, value in settings["runtime"]["entries"].items():
        options.add_session_config_entry(name, value)
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), options, providers=settings["runtime"]["providers"]
    )
    return lambda arrays: session.run(["logits"], arrays)[0]
