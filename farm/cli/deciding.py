"""The commands that draw a conclusion from results: `farm compare`, `farm history` and `farm best`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farm.addresses import named_place
from farm.cli.commands import ResultsArgument, app
from farm.cli.exit_codes import DONE
from farm.cli.output import READING_WIDTH, error_console, make_console, require_elsewhere, write
from farm.cli.reading import RunOption
from farm.errors import RequestError

if TYPE_CHECKING:
    from farm.results import Results
    from farm.sides import Side

GATE_SAYS_SLOWER = 3
"""The exit code of a comparison that found something slower, or without a result."""

THRESHOLD_HELP = (
    "Stop only at what is shown to take longer by more than this share of its old time: 0.05 or 5%. The table's change "
    "is of speed: 25% longer is 0.80x."
)


class Measure(StrEnum):
    """What is judged between runs."""

    speedup = "speedup"
    latency = "latency"


MeasureOption = Annotated[
    Measure,
    typer.Option(help="speedup over each run's own baseline, in which the machine cancels; or latency itself."),
]


@app.command()
def compare(
    old: Annotated[str | None, typer.Argument(metavar="[OLD]", help="A run's id, or a folder: its newest run.")] = None,
    new: Annotated[str | None, typer.Argument(metavar="[NEW]", help="The same; the newest run if left out.")] = None,
    results: Annotated[str, typer.Option("--results", help="Where runs named by their ids are.")] = "results",
    baseline: Annotated[
        Path | None, typer.Option("--baseline", metavar="FILE", help="A pinned baseline in place of OLD.")
    ] = None,
    pin: Annotated[
        Path | None, typer.Option("--pin", metavar="FILE", help="Pin one run as a baseline; compares nothing.")
    ] = None,
    threshold: Annotated[str, typer.Option("--threshold", metavar="SHARE", help=THRESHOLD_HELP)] = "0",
    measure: MeasureOption = Measure.speedup,
) -> int:
    """What changed between two runs. Exit code 3 when something got slower, or has no result any more."""
    from farm.cli.compare_text import to_rich
    from farm.compare import compare as compare_sides
    from farm.limits import parse_share
    from farm.sides import pin as pin_side
    from farm.sides import read_pinned

    if pin is not None:
        if new is not None or baseline is not None:
            raise RequestError("--pin FILE pins one run and compares nothing: name that run alone")
        require_elsewhere(pin, "--pin", results, *filter(None, [_place(old)]))
        side = _side(old, results)
        pin_side(side, pin)
        write(f"pinned run {side.run} as {pin}: commit it, and compare with `farm compare --baseline {pin}`")
        return DONE
    if baseline is not None and new is not None:
        raise RequestError("--baseline FILE is the old side: name one run, the new one, or none for the newest")
    if baseline is None and old is None:
        raise RequestError("name the old run (an id or a folder) and the new one, or --baseline FILE")
    before = read_pinned(baseline) if baseline is not None else _side(old, results)
    after = _side(old if baseline is not None else new, results)
    if before.run == after.run and new is None and (baseline is None or old is None):
        raise RequestError(
            f"run {after.run} is the newest, so it would be compared with itself: nothing was measured since; name "
            "both runs if you mean that"
        )
    allowed = parse_share(threshold, "--threshold")
    found = compare_sides(before, after, measure=measure.value, threshold=allowed)
    make_console().print(to_rich(found), width=READING_WIDTH)
    return GATE_SAYS_SLOWER if found.slower or found.broken else DONE


def _side(named: str | None, results: str) -> Side:
    """The side a user named: a run's id in `results`, a folder or bucket of results (its newest run), or nothing: the
    newest run of `results`."""
    from farm.results import Results
    from farm.sides import side_of_run

    place = _place(named)
    found = Results(results, named) if place is None else Results(place)
    _tell_damage(found)
    return side_of_run(found.store, found.run)


def _place(named: str | None) -> str | None:
    """The folder or bucket that a side names; None for a run's id, or for nothing."""
    if not named:
        return None
    place = named_place(named)
    return place if "://" in named or Path(place).is_dir() else None


def _tell_damage(found: Results) -> None:
    """Say which damaged files the conclusion leaves out, on the error console, as `farm table` does."""
    for warning in found.warnings():
        error_console().print(f"note: {warning}")


@app.command()
def history(
    method: Annotated[str, typer.Argument(help="The method's name in its suite.")],
    results: ResultsArgument = "results",
    length: Annotated[int | None, typer.Option(help="Tokens; needed where runs have several lengths.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Needed where runs have several.")] = None,
    threads: Annotated[int | None, typer.Option(help="Needed where runs have several.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; needed where runs have both.")] = None,
    hardware: Annotated[str | None, typer.Option(help="A hardware class; needed where runs have several.")] = None,
    inputs: Annotated[str | None, typer.Option(help="full or padded; needed where runs have both.")] = None,
    model: Annotated[str | None, typer.Option(help="The model's name; needed where runs have several.")] = None,
    baseline: Annotated[
        str | None, typer.Option(help="The method that speedups are over; needed where runs have several.")
    ] = None,
    measure: MeasureOption = Measure.speedup,
) -> int:
    """One cell over all runs, with the steps in it."""
    from farm.cli.history_text import to_rich
    from farm.history import Selection, history_of
    from farm.store import Store

    selection = Selection(method, length, batch_size, threads, device, hardware, inputs, model, baseline)
    found = history_of(Store(results, read_only=True), selection, measure.value)
    make_console().print(to_rich(found), width=READING_WIDTH)
    return DONE


@app.command()
def best(
    results: ResultsArgument = "results",
    run: RunOption = None,
    lengths: Annotated[
        str | None,
        typer.Option(help="Shares of calls by length, such as 64:0.7,256:0.3; their geometric mean if left out."),
    ] = None,
    max_accuracy_drop: Annotated[float | None, typer.Option(help="Points below the baseline's accuracy.")] = None,
    max_size: Annotated[str | None, typer.Option(help="Of the artifacts of all lengths, such as 150MB.")] = None,
    max_memory: Annotated[str | None, typer.Option(help="Peak of the process, such as 1.5GB.")] = None,
    p50: Annotated[str | None, typer.Option(help="Median latency at every length, such as 20ms.")] = None,
    p90: Annotated[str | None, typer.Option(help="90th percentile at every length.")] = None,
    p95: Annotated[str | None, typer.Option(help="95th percentile at every length.")] = None,
    p99: Annotated[str | None, typer.Option(help="99th percentile at every length.")] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the winner with a runnable example there.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Export this method instead of the winner.")] = None,
    block: Annotated[
        int | None, typer.Option("--block", help="Of several answers, the one to export: 1 is the first printed.")
    ] = None,
) -> int:
    """The method to deploy, under limits."""
    from farm.best import best_methods
    from farm.cli.best_text import to_rich
    from farm.export import export_method
    from farm.limits import Limits, parse_bytes, parse_mix, parse_ns, parse_points
    from farm.results import Results

    if export is None and (method is not None or block is not None):
        raise RequestError("--method and --block say what --export DIR writes: add --export, or leave them out")
    percentiles = {
        name: text for name, text in (("p50", p50), ("p90", p90), ("p95", p95), ("p99", p99)) if text is not None
    }
    limits = Limits(
        accuracy_drop_points=(
            None if max_accuracy_drop is None else parse_points(max_accuracy_drop, "--max-accuracy-drop")
        ),
        artifact_bytes=parse_bytes(max_size, "--max-size") if max_size is not None else None,
        peak_rss_bytes=parse_bytes(max_memory, "--max-memory") if max_memory is not None else None,
        percentiles_ns={int(name[1:]): parse_ns(text, f"--{name}") for name, text in percentiles.items()},
    )
    found = Results(results, run)
    verdicts = best_methods(found.speedups_table(), limits, parse_mix(lengths) if lengths is not None else None)
    make_console().print(to_rich(verdicts, found.run), width=READING_WIDTH)
    _tell_damage(found)
    if export is not None:
        write(export_method(found, verdicts, export, method, block).told)
    return DONE
