"""What people do: a fresh process loads a model with transformers, calls it a number of times, and prints the median.

`aa_spread.py` runs this twice in a row and divides, as a comparison of two methods would. It uses nothing of the farm.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from transformers import AutoModelForSequenceClassification, logging

WARM_UP_CALLS = 5
"""As in most scripts; enough here, where no call compiles anything."""


def main(
    model: Annotated[Path, typer.Argument(help="The model's folder.")],
    inputs: Annotated[Path, typer.Argument(help="An .npz file of int64 arrays named <input name>.<batch number>.")],
    calls: Annotated[int, typer.Option(min=1, help="Timed calls.")],
    threads: Annotated[int, typer.Option(min=1, help="PyTorch threads.")],
) -> None:
    """Print the median latency of one call in milliseconds: token ids on the host to logits on the host."""
    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    module = AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32, local_files_only=True)
    module.eval()
    batches = read_batches(inputs)
    latencies_ns = []
    with torch.inference_mode():
        for number in range(WARM_UP_CALLS + calls):
            arrays = batches[number % len(batches)]
            started = time.perf_counter_ns()
            module(**{name: torch.from_numpy(array) for name, array in arrays.items()}).logits.numpy()
            latencies_ns.append(time.perf_counter_ns() - started)
    print(statistics.median(latencies_ns[WARM_UP_CALLS:]) / 1e6)


def read_batches(path: Path) -> list[dict[str, np.ndarray]]:
    """Batches as `aa_spread.py` saves them: one dict of input name to array `[1, length]` each."""
    batches: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as saved:
        for key in saved.files:
            name, _, number = key.partition(".")
            batches.setdefault(number, {})[name] = saved[key]
    return list(batches.values())


if __name__ == "__main__":
    typer.run(main)
