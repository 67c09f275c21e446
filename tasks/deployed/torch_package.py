"""Load a package of AOTInductor: a compiled library with its weights, for the processor it was compiled on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def load(folder: Path, settings: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    """A call from arrays `[batch, length]` to logits `[batch, labels]`."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    import torch
    from torch._inductor import aoti_load_package

    torch.set_num_threads(settings["threads"])
    package = aoti_load_package(str(folder / "model.pt2"), run_single_threaded=True)

    def call(arrays: dict[str, Any]) -> Any:
        with torch.inference_mode():
            return package(**{name: torch.from_numpy(array) for name, array in arrays.items()}).float().numpy()

    return call
