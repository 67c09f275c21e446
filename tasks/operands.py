"""Operands of the products that time a machine's units: fixed, dense, and quickly made."""

from __future__ import annotations

from typing import Any

import numpy as np

PATTERN = 65_537
"""Operands repeat this many random numbers: a dense product takes the same time for any values but zeros (which switch
fewer transistors), and drawing each number of a large operand would take longer than multiplying it. A prime, so that
no two rows of an operand are alike."""


def numbers(*shape: int) -> np.ndarray:
    """FP32 numbers of about unit size."""
    return np.resize(np.random.default_rng(0).standard_normal(PATTERN, np.float32), shape)


def bf16_numbers(*shape: int) -> np.ndarray:
    """The same in BF16, which is an FP32 number's upper half, as uint16."""
    return (numbers(*shape).view(np.uint32) >> 16).astype(np.uint16)


def integers(dtype: Any, *shape: int) -> np.ndarray:
    """Integers of at most 100 in size, so that no sum of products leaves 32 bits."""
    low = -100 if np.issubdtype(dtype, np.signedinteger) else 0
    return np.resize(np.random.default_rng(0).integers(low, 101, PATTERN, dtype), shape)
