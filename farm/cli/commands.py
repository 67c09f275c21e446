"""The commands. Only this package prints, and only it decides exit codes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from contextlib import closing
from enum import StrEnum
from importlib import import_module
from typing import Annotated

import typer
from rich.table import Table

from farm import __version__
from farm.addresses import without_credentials
from farm.cli.exit_codes import DONE, INTERRUPTED, SOME_FAILED, WRONG_REQUEST, code_of
from farm.cli.interruption import CommandInterruptedError, if_interrupted
from farm.cli.output import error_console, make_console, write
from farm.cli.screen import make_screen
from farm.errors import FarmError, RequestError, after_measuring

COMMAND_MODULES = (
    "farm.cli.reading",
    "farm.cli.deciding",
    "farm.cli.checking",
    "farm.cli.cluster",
    "farm.cli.report",
)
"""Further commands: each of these adds its own to `app` when it is imported."""

app = typer.Typer(
    name="farm",
    help="Which way of running a transformer encoder is fastest here, by how much, and at what price?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ResultsArgument = Annotated[str, typer.Argument(metavar="[RESULTS]", help="Results: a folder, or s3://, gs://.")]
SuiteArgument = Annotated[
    str | None,
    typer.Argument(metavar="[SUITE]", help="A YAML file or a built-in suite; the founding experiment if left out."),
]
ModelOption = Annotated[str | None, typer.Option("--model", help="demo, a local folder, or a hub id.")]
MethodsOption = Annotated[str | None, typer.Option("--methods", help="Comma-separated; the baseline is added.")]
LengthsOption = Annotated[str | None, typer.Option("--lengths", help="Comma-separated, in tokens.")]
ThreadsOption = Annotated[str | None, typer.Option("--threads", help="Comma-separated numbers, or auto.")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda or auto.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other key of the suite, as in YAML.")
]
ResultsOption = Annotated[str, typer.Option("--results", help="Where results go: a folder, or s3://, gs://.")]
AddressOption = Annotated[
    str | None, typer.Option("--address", help="A running Ray cluster; without it, a private one on this machine.")
]


class Effort(StrEnum):
    """How much certainty to ask for."""

    quick = "quick"
    standard = "standard"
    rigorous = "rigorous"


EffortOption = Annotated[Effort | None, typer.Option("--effort", help="How much certainty to ask for.")]


def own_command() -> str:
    """The command that was given, as it is stored with results: without the credentials in its addresses."""
    return shlex.join(["farm", *map(without_credentials, sys.argv[1:])])


@app.command()
def run(
    suite: SuiteArgument = None,
    model: ModelOption = None,
    methods: MethodsOption = None,
    lengths: LengthsOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    effort: EffortOption = None,
    settings: SetOption = None,
    results: ResultsOption = "results",
    address: AddressOption = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ignore unfinished runs of the same request.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; the table at the end.")] = False,
) -> int:
    """Measure a suite. The same command continues an unfinished run."""
    from farm.cli.flags import suite_from_flags
    from farm.cli.watching import watched
    from farm.driver import run_suite
    from farm.results import Results

    wanted = suite_from_flags(suite, model, methods, lengths, threads, device, effort, settings)
    console = make_console()
    command = own_command()
    left = "everything published is kept. The same command continues the run"
    with (
        if_interrupted(left),
        closing(make_screen(console, quiet)) as screen,
        watched(screen, results, metrics=address is not None) as listener,
    ):
        outcome = run_suite(wanted, results, address, fresh=fresh, command=command, listener=listener)
    with after_measuring():
        write(Results(outcome.root, outcome.run).table("text"))
    console.print(f"results: {outcome.root} (run {outcome.run})", soft_wrap=True)
    return SOME_FAILED if outcome.failed_cells else DONE


@app.command()
def plan(
    suite: SuiteArgument = None,
    model: ModelOption = None,
    methods: MethodsOption = None,
    lengths: LengthsOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    effort: EffortOption = None,
    settings: SetOption = None,
    address: AddressOption = None,
) -> int:
    """Show what would be measured, where, and for how long. Runs nothing."""
    from farm.cli.flags import suite_from_flags
    from farm.preview import preview

    shown = preview(suite_from_flags(suite, model, methods, lengths, threads, device, effort, settings), address)
    console = make_console()
    console.print(shown.heading, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for column in shown.columns:
        table.add_column(column)
    for row in shown.rows:
        table.add_row(*row)
    console.print(table)
    for line in shown.footer:
        console.print(line, soft_wrap=True)
    return DONE


@app.command()
def methods() -> int:
    """List the methods, and which of them this machine can run."""
    from farm.errors import MethodUnsupportedError
    from farm.machine import describe_machine
    from tasks.method import ALIASES, find_method, known_methods

    machine = describe_machine()
    table = Table(box=None, pad_edge=False)
    for column in ("method", "also", "devices", "here", "what it is"):
        table.add_column(column)
    for name in known_methods():
        try:
            method = find_method(name)
        except RequestError as error:  # somebody else's, and broken: it must not hide the others
            table.add_row(name, "", "", "no", str(error))
            continue
        aliases = sorted({alias for alias, ids in ALIASES.items() if name in ids.values()})
        runnable = []
        reasons = []
        for device in method.devices:
            if device == "cuda" and not machine.gpus:
                reasons.append(f"no CUDA GPU here: {machine.no_gpu}")
                continue
            try:
                method.check_supported(machine, device)
                runnable.append(device)
            except MethodUnsupportedError as error:
                reasons.append(str(error))
        here = ", ".join(runnable) or "no"
        told = reasons if machine.gpus or not runnable else []
        about = f"{method.about} ({told[0]})" if told else method.about
        table.add_row(name, ", ".join(aliases), ", ".join(method.devices), here, about)
    make_console().print(table)
    return DONE


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Which way of running a transformer encoder is fastest here, by how much, and at what price?"""
    if version:
        write(f"farm {__version__}")
        raise typer.Exit(DONE)


def run_app(arguments: list[str]) -> int:
    """Run one command; return its exit code. Errors that are the user's to mend are one line, without a traceback."""
    for module in COMMAND_MODULES:
        import_module(module)
    try:
        code = app(arguments, standalone_mode=False)
    except FarmError as error:
        return _report(str(error), code_of(error))
    except CommandInterruptedError as interrupted:
        return _report(f"interrupted; {interrupted}", INTERRUPTED)
    except (KeyboardInterrupt, typer.Abort):
        return _report("interrupted", INTERRUPTED)
    except Exception as error:
        return _usage_error(error)
    # The parser turns a Ctrl-C into this code by itself, and says nothing.
    return _report("interrupted", INTERRUPTED) if code == INTERRUPTED else int(code or DONE)


def _usage_error(error: Exception) -> int:
    """Mistakes on the command line are worded by the parser; anything else is a bug and keeps its traceback."""
    show: Callable[[], None] | None = getattr(error, "show", None)
    if show is None:
        raise error
    show()
    return WRONG_REQUEST


def _report(message: str, code: int) -> int:
    error_console().print(f"farm: {message}")
    return code
