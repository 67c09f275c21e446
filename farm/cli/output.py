"""Where commands print: the terminal, a pipe, or a file that the user named."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from farm.addresses import named_place
from farm.errors import RequestError, ResultsError

PIPE_WIDTH = 160

READING_WIDTH = 110
"""What sentences are broken at: longer lines are tiring to read."""


def make_console() -> Console:
    """The terminal; a pipe has no width of its own, and 80 columns would break every table."""
    console = _verbatim()
    return console if console.is_terminal else _verbatim(width=PIPE_WIDTH)


def error_console() -> Console:
    """Where errors and notes go that are not part of an answer."""
    return _verbatim(stderr=True, soft_wrap=True)


def _verbatim(**settings: Any) -> Console:
    """A console that prints names, paths and other libraries' errors as they are, whatever brackets are in them."""
    return Console(markup=False, emoji=False, highlight=False, **settings)


def write(text: str) -> None:
    """Print a text as it is."""
    sys.stdout.write(text + "\n")


def write_to(output: Path | None, content: str | bytes, results: str) -> None:
    """Write an answer to the file that the user named, or print it.

    Raises RequestError for a file among the `results`, which no answer may replace, and for bytes on a terminal.
    """
    if output is None:
        if isinstance(content, str):
            write(content.rstrip("\n"))
            return
        if sys.stdout.isatty():
            raise RequestError("Parquet is not for a terminal: name a file with -o FILE")
        sys.stdout.buffer.write(content)
        return
    require_elsewhere(output, "-o", results)
    try:
        output.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise ResultsError(f"{output} cannot be written ({error.strerror or error}): name another file") from error


def require_elsewhere(output: Path, flag: str, *results: str) -> None:
    """Raise RequestError for a file among results: no answer may replace those."""
    for folder in map(named_place, results):
        if "://" not in folder and output.resolve().is_relative_to(Path(folder).resolve()):
            raise RequestError(
                f"{flag} {output}: is among the results, which are never replaced; name a file elsewhere"
            )
