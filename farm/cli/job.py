"""What a cluster job runs on the head node: measure the suite that was sent, or write results to the job's log."""

from __future__ import annotations

import os
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from farm.cli import RAY_NOISE

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run(
    suite: str,
    results: Annotated[str, typer.Option()],
    command: Annotated[str, typer.Option()],
    fresh: Annotated[bool, typer.Option()] = False,
) -> None:
    """Measure the suite on this cluster; every event is a line of the log, and so is how it ended."""
    from farm.cli.exit_codes import DONE, INTERRUPTED, SOME_FAILED, code_of
    from farm.cli.output import make_console
    from farm.cli.screen import PlainScreen
    from farm.cli.watching import watched
    from farm.driver import run_suite
    from farm.errors import FarmError
    from farm.job_log import JobEnded, LineWriter, Together, as_line
    from farm.suite import load_suite

    try:
        with closing(PlainScreen(make_console())) as screen, watched(screen, _home(results), metrics=True) as seen:
            told = Together((seen, LineWriter(_say, time.time)))
            wanted = load_suite(suite)
            outcome = run_suite(wanted, _home(results), "auto", fresh=fresh, command=command, listener=told)
        ended = JobEnded(SOME_FAILED if outcome.failed_cells else DONE, outcome.run, outcome.failed_cells)
    except FarmError as error:
        ended = JobEnded(code_of(error), message=str(error))
    except KeyboardInterrupt:
        ended = JobEnded(INTERRUPTED, message="the job was stopped; everything published is kept")
    _say(as_line(ended, time.time()))
    # To Ray a job that measured has succeeded, whatever came out.
    raise typer.Exit(ended.code if ended.message else DONE)


@app.command()
def deliver(results: str, run: str, at_home: Path) -> None:
    """Write the files of a run that are not at home to the log."""
    from farm.delivery import lines_of

    for line in lines_of(_home(results), run, frozenset(at_home.read_text().splitlines())):
        _say(line)


def _home(results: str) -> str:
    from farm.addresses import named_place

    place = named_place(results)
    return place if "://" in place else str(Path(place).expanduser())


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", RAY_NOISE)
    app()
