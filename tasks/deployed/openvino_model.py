"""Compile the exported model with OpenVINO, once for each shape, with the settings it was measured with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def load(folder: Path, settings: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    """A call from arrays `[batch, length]` to logits `[batch, labels]`."""
    import openvino

    core, requests = openvino.Core(), {}

    def call(arrays: dict[str, Any]) -> Any:
        shape = arrays["input_ids"].shape
        if shape not in requests:
            model = core.read_model(folder / "model.xml")
            model.reshape({name: list(shape) for name in arrays})
            compiled = core.compile_model(model, "CPU", settings["runtime"]["properties"])
            requests[shape] = compiled.create_infer_request()
        return requests[shape].infer(arrays, share_inputs=True)[0].copy()

    return call
