"""Load the checkpoint with transformers and run it eagerly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def load(folder: Path, settings: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    """A call from arrays `[batch, length]` to logits `[batch, labels]`."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(settings["threads"])
    device, asked = settings["device"], settings["runtime"]["attention"]
    module: Any = AutoModelForSequenceClassification.from_pretrained(
        folder,
        attn_implementation=None if asked == "sdpa" else asked,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    module = module.eval().to(device, getattr(torch, settings["runtime"]["dtype"]))

    def call(arrays: dict[str, Any]) -> Any:
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
            return module(**tensors).logits.to("cpu", torch.float32).numpy()

    return call
