"""`farm report`: one page of a run, or one of its plots as a picture."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from farm.cli.commands import ResultsArgument, app
from farm.cli.exit_codes import DONE
from farm.cli.output import require_elsewhere
from farm.errors import RequestError, ResultsError


class Theme(StrEnum):
    """What a picture stands on."""

    light = "light"
    dark = "dark"


@app.command()
def report(
    results: ResultsArgument = "results",
    run: Annotated[str | None, typer.Option("--run", help="A run's id; the newest if left out.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write: report.html, or PLOT.png (or .svg) of a plot."),
    ] = None,
    plot: Annotated[
        str | None, typer.Option("--plot", help="One plot as a picture instead of the page: speedup, latency, ...")
    ] = None,
    block: Annotated[int, typer.Option("--block", help="Of a run under several conditions, the plot's block.")] = 1,
    length: Annotated[
        int | None, typer.Option("--length", help="Of distribution and rounds, in tokens; the shortest if left out.")
    ] = None,
    theme: Annotated[
        Theme | None, typer.Option("--theme", help="Of a picture, light if left out; the page follows its reader.")
    ] = None,
) -> int:
    """Write a run's report: one HTML file that needs no network, or a plot of it as PNG or SVG."""
    from farm.report.reporting import plot_named, report_html, report_picture
    from farm.results import Results

    if plot is None:
        _require_none_of_pictures(theme=theme, length=length)
        path = _checked(output or Path("report.html"), "html")
        require_elsewhere(path, "-o", results)
        content = report_html(Results(results, run)).encode()
    else:
        path = _checked(output or Path(f"{plot_named(plot)}.png"), "png", "svg")
        require_elsewhere(path, "-o", results)
        format = path.suffix.lower().removeprefix(".")
        content = report_picture(
            Results(results, run), plot, format, block, (theme or Theme.light).value, length=length
        )
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror or error}; name another file with -o") from error
    sys.stdout.write(f"{path}\n")
    return DONE


def _require_none_of_pictures(**flags: object) -> None:
    """Raises RequestError for a flag of pictures where the page is asked for."""
    for name, value in flags.items():
        if value is not None:
            why = "the page follows its reader's light or dark" if name == "theme" else "the page shows every length"
            raise RequestError(f"--{name} is for pictures (--plot); {why}: leave it out")


def _checked(path: Path, *endings: str) -> Path:
    """The path, if it ends as what is written to it should. Raises RequestError otherwise."""
    if path.suffix.lower().removeprefix(".") in endings:
        return path
    listed = " or ".join(f".{ending}" for ending in endings)
    hint = "; pictures are made with --plot" if endings == ("html",) else ""
    raise RequestError(f"-o {path}: the file's name must end in {listed}{hint}")
