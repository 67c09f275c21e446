"""Which of many like cases every change is tested with; the others are of the long tier (`pytest -m long`)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest

FAMILIES = ("distilbert", "bert", "deberta-v2", "modernbert")
"""One of each kind: the demo's, the one most others are variants of, and two with an attention of their own."""


def mostly_long(cases: Iterable[str], kept: Collection[str] = FAMILIES) -> list[Any]:
    """The cases as parameters of a test: those not `kept` are marked long."""
    return [case if case in kept else pytest.param(case, marks=pytest.mark.long) for case in cases]
