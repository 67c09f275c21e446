"""Sparing the work on padding: only columns in which some text has a token reach the model. Exact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tasks.method import Arrays, Loaded, allocated_bytes, device_clock, late_proof


def without_padding(inputs: Arrays, multiple: int) -> Arrays:
    """The arrays `[batch, length]` cut to the columns in use, rounded up to a multiple of so many columns.

    Padding may stand on either side. Servers do this with length buckets; the multiple is the buckets' width.
    """
    (used,) = np.nonzero(inputs["attention_mask"].any(axis=0))
    if not len(used):
        return inputs
    length = inputs["attention_mask"].shape[1]
    wanted = min(length, -(-(int(used[-1]) + 1 - int(used[0])) // multiple) * multiple)
    start = min(int(used[0]), length - wanted)
    return {name: np.ascontiguousarray(array[:, start : start + wanted]) for name, array in inputs.items()}


class Trimmed:
    """A loaded model that is given its inputs without their padding; cutting is part of the call."""

    def __init__(self, inner: Loaded, multiple: int) -> None:
        self._inner = inner
        self._multiple = multiple
        self.device_clock = device_clock(inner)

    def prove_kernels(self) -> Mapping[str, Any]:
        """The model's own."""
        return late_proof(self._inner)

    def allocated_bytes(self) -> int | None:
        """The model's own."""
        return allocated_bytes(self._inner)

    def __call__(self, inputs: Arrays) -> Arrays:
        """Run one batch."""
        return self._inner(without_padding(inputs, self._multiple))

    def proof(self) -> Mapping[str, Any]:
        """The model's own, and the width of the buckets."""
        return {**self._inner.proof(), "length_bucket": self._multiple}


def trimmed(inner: Loaded, bucket: int | None) -> Loaded:
    """The loaded model itself, or (where a suite asked for buckets of that width) one that is spared the padding."""
    return inner if bucket is None else Trimmed(inner, bucket)
