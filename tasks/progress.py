"""How long-running steps tell whoever draws the screen how far they are."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the state of a step; implementations must return quickly and never raise."""

    def step(self, stage: str, done: float, total: float, note: str = "") -> None:
        """Report that `done` of `total` units of `stage` are finished.

        `total` is 0 while it is unknown. A stage is finished when `done` equals `total`.
        """


class SilentProgress:
    """Ignores every report: for tests, and for steps whose caller shows nothing."""

    def step(self, stage: str, done: float, total: float, note: str = "") -> None:
        """Do nothing."""
