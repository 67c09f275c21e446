"""The commands that show results as they are: `farm table` and `farm query`."""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from farm.cli.commands import ResultsArgument, app
from farm.cli.exit_codes import DONE
from farm.cli.output import error_console, write_to
from farm.errors import RequestError

if TYPE_CHECKING:
    from farm.store import Damaged

RunOption = Annotated[str | None, typer.Option("--run", help="A run's id; the newest if left out.")]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to a file.")]


class TableFormat(StrEnum):
    """How a speedup table is written."""

    text = "text"
    markdown = "markdown"
    csv = "csv"
    latex = "latex"
    html = "html"


class QueryFormat(StrEnum):
    """How a query's answer is written."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"
    markdown = "markdown"


_SUFFIXES = {
    ".txt": ("text", "table"),
    ".csv": ("csv",),
    ".json": ("json",),
    ".parquet": ("parquet",),
    ".md": ("markdown",),
    ".tex": ("latex",),
    ".html": ("html",),
}


@app.command()
def table(
    results: ResultsArgument = "results",
    run: RunOption = None,
    format: Annotated[TableFormat | None, typer.Option("--format", "-f", help="text unless FILE says another.")] = None,
    columns: Annotated[str | None, typer.Option("--columns", help="Which, in which order; `help` lists them.")] = None,
    output: OutputOption = None,
) -> int:
    """Print the speedup table of a run."""
    from farm.columns import chosen, described
    from farm.documents import html_document
    from farm.results import Results

    if columns == "help":
        write_to(None, described(), results)
        return DONE
    found = Results(results, run)
    wanted = str(format or _by_suffix(output, list(TableFormat)) or TableFormat.text)
    text = found.table(wanted, chosen(columns))
    if output is not None and wanted == TableFormat.html:
        text = html_document(text, f"Run {found.run}")
    write_to(output, text, results)
    for warning in found.warnings():
        error_console().print(f"note: {warning}")
    return DONE


class SqlCommand(TyperCommand):
    """A command whose argument may begin with a comment of SQL, which looks like an option."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **settings: Any) -> Any:
        shielded = [f" {each}" if re.match(r"--\s", each) else each for each in args]
        return super().make_context(info_name, shielded, *more, **settings)


SqlArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[SQL]",
        help="One SELECT over cells, replicas, samples, speedups, runs; - reads it from standard input: "
        "farm query - < question.sql",
    ),
]


@app.command(cls=SqlCommand)
def query(
    sql: SqlArgument = None,
    results: ResultsArgument = "results",
    format: Annotated[
        QueryFormat | None, typer.Option("--format", "-f", help="table unless FILE says another.")
    ] = None,
    output: OutputOption = None,
    schema: Annotated[bool, typer.Option("--schema", help="List views and columns with their units.")] = False,
) -> int:
    """Ask the results in SQL (DuckDB). Reads only."""
    from farm import query as queries
    from farm.answers import FORMATS
    from farm.store import Store

    if sql is None and not schema:
        raise RequestError('give one SELECT, such as: farm query "SELECT * FROM speedups"')
    if schema:
        answer = queries.schema_table()
    else:
        asked = _standard_input() if sql == "-" else str(sql)
        answer = queries.query(Store(results, read_only=True), asked, _note)
    wanted = str(format or _by_suffix(output, list(QueryFormat)) or QueryFormat.table)
    write_to(output, FORMATS[wanted](answer), results)
    return DONE


def _standard_input() -> str:
    """The statement that a user pipes in. Raises RequestError for what is no text."""
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise RequestError(f"standard input is not a text in {error.encoding}: give one SELECT") from error


def _note(left_out: Damaged) -> None:
    error_console().print(f"note: left out {left_out.path}: {left_out.why}")


def _by_suffix(output: Path | None, known: list[str]) -> str | None:
    """The format that a file's name asks for; None without a file. Raises RequestError where it is none of `known`."""
    if output is None:
        return None
    formats = [str(each) for each in known]
    named = next((each for each in _SUFFIXES.get(output.suffix.lower(), ()) if each in formats), None)
    if named is None:
        suffixes = [suffix for suffix, names in _SUFFIXES.items() if set(names) & set(formats)]
        raise RequestError(f"-o {output}: its name ends in none of {', '.join(suffixes)}; rename it or add --format")
    return named
