"""Rebuild PyTorch's dynamically quantized module and fill it with the exported weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def load(folder: Path, settings: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    """A call from arrays `[batch, length]` to logits `[batch, labels]`."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.set_num_threads(settings["threads"])
    engines = torch.backends.quantized.supported_engines
    torch.backends.quantized.engine = next(name for name in ("x86", "fbgemm", "qnnpack") if name in engines)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    module: Any = AutoModelForSequenceClassification.from_config(config).eval()
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is torch.nn.Linear:
                bias = child.bias is not None
                empty = torch.ao.nn.quantized.dynamic.Linear(child.in_features, child.out_features, bias_=bias)
                setattr(parent, name, empty)
    module.load_state_dict(torch.load(folder / "quantized.pt", weights_only=True, mmap=True))

    def call(arrays: dict[str, Any]) -> Any:
        with torch.inference_mode():
            return module(**{name: torch.from_numpy(array) for name, array in arrays.items()}).logits.numpy()

    return call
