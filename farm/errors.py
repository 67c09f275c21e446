"""Errors that a user sees as one line, each saying what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class FarmError(Exception):
    """A problem whose message is written for the user; the command line prints it without a traceback."""


class RequestError(FarmError):
    """The request cannot be carried out as written; nothing was measured (exit code 2)."""


class ResultsError(FarmError):
    """Results cannot be read or written where the user asked for them (exit code 2)."""


@contextmanager
def after_measuring() -> Iterator[None]:
    """Raise a ResultsError as a FarmError: something was measured by now, and the exit code must not deny it."""
    try:
        yield
    except ResultsError as error:
        raise FarmError(str(error)) from error


class MethodUnsupportedError(FarmError):
    """A method cannot run here: a library, an instruction set or a device is missing. The message names it."""


class ProofFailedError(FarmError):
    """What ran is not what the method promises; the cell is `invalid` and gets no speedup."""
