"""Compile the exported model with OpenVINO, with the settings it was measured with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def load(folder: Path, settings: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    """A call from arrays `[batch, length]` to logits `[batch, labels]`."""
    import openvino

    compiled = openvino.Core().compile_model(folder / "model.xml", "CPU", settings["runtime"]["properties"])
    request = compiled.create_infer_request()
    return lambda arrays: request.infer(arrays, share_inputs=True)[0].copy()
