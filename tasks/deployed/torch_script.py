"""Load a frozen TorchScript program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def load(folder: Path, settings: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    """A call from arrays `[batch, length]` to logits `[batch, labels]`."""
    import torch

    torch.set_num_threads(settings["threads"])
    device = settings["device"]
    program: Any = torch.jit.load(str(folder / "traced.pt"), map_location=device).eval()

    def call(arrays: dict[str, Any]) -> Any:
        with torch.inference_mode():
            tensors = [torch.from_numpy(arrays[name]).to(device) for name in settings["inputs"]]
            return program(*tensors).to("cpu", torch.float32).numpy()

    return call
