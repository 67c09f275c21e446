"""Ctrl-C: what is left of a command's work is for that command to say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class CommandInterruptedError(Exception):
    """A command was interrupted at its work; the message says what is kept and what the same command would do."""


@contextmanager
def if_interrupted(left: str) -> Iterator[None]:
    """Raise CommandInterruptedError with the sentence `left` for an interruption inside."""
    try:
        yield
    except KeyboardInterrupt:
        raise CommandInterruptedError(left) from None
