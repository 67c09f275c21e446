"""FP16 ends at 65504: where a method's numbers went beyond it, and what to take instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from farm.errors import ProofFailedError
from tasks.method import Arrays, Loaded, Method

LARGEST = 65504
"""The largest number of FP16 (IEEE 754 binary16)."""


def explain_overflow(method: Method, loaded: Loaded, inputs: Arrays) -> None:
    """Raise ProofFailedError for logits that are not finite, naming FP16's overflow where FP16 it is.

    `inputs` is the batch that gave them. A loaded model may tell where it happened: `find_overflow(inputs)` returns
    that in words.
    """
    if method.precision != "fp16":
        raise ProofFailedError("logits are not finite")
    find = getattr(loaded, "find_overflow", None)
    where = None
    if find is not None:
        with suppress(Exception):  # the explanation must not hide what it explains
            where = find(inputs)
    raise ProofFailedError(
        f"FP16 overflows: numbers beyond {LARGEST} became infinite{f', first in {where}' if where else ''}, and the "
        "logits are not finite. BF16 has FP32's range: take the method's bf16 counterpart"
    )


@contextmanager
def watching(module: Any) -> Iterator[Mapping[str, float]]:
    """While the block runs the PyTorch module, note each submodule whose result is not finite, in the order it ended.

    Yields names with the largest finite number in that result.
    """
    import torch

    seen: dict[str, float] = {}

    def look(name: str) -> Any:
        def hook(_module: Any, _given: Any, result: Any) -> None:
            first = result[0] if isinstance(result, tuple) else result
            if isinstance(first, torch.Tensor) and first.is_floating_point() and not bool(first.isfinite().all()):
                finite = first[first.isfinite()]
                seen.setdefault(name, float(finite.abs().max()) if finite.numel() else float("nan"))

        return hook

    handles = [each.register_forward_hook(look(name)) for name, each in module.named_modules() if name]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
