"""What a command's exit code says to whoever called it."""

from __future__ import annotations

from farm.errors import FarmError, RequestError, ResultsError

DONE, SOME_FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130
"""Done; done, but some cells failed or are invalid; nothing was run; interrupted, results kept."""


def code_of(error: FarmError) -> int:
    """Whether nothing was run, or something was and it failed."""
    return WRONG_REQUEST if isinstance(error, (RequestError, ResultsError)) else SOME_FAILED
