"""The farm against optimum-benchmark in one session: how much of the wall time goes into timed calls?

Both measure the same model: a BERT of six layers in distilbert-base's size with random weights, batch size 1. (The
peer cannot measure DistilBERT: it hands it position ids, which that model does not take.) The farm runs the founding
methods. The peer runs PyTorch on the CPU with its process launcher and inference scenario: one sweep of one run for
each length, its fixed costs included as its user has them; the sweep is made twice, to see by how much the same cell
differs between two runs. Its threads are set through OMP_NUM_THREADS to what the farm used, as its own two options
for threads each set the other's value. Release 0.5 is the peer at its best: from 0.6 on, its launcher waits for the
process that is timed in a loop that never sleeps, on one of the cores (--peer-release 0.6.* measures that).

Both sides run once before they are timed, so that artifacts are prepared and files in memory; what that took the farm
is counted in a row of its own. Which number of calls is fair has no one answer, so there is a choice (--calls-as): as
many at each length as the farm timed there in all its processes, in which case the peer spreads the start of one
process over all of them; or as many as the farm timed in one process, in which case both pay one start for the same
number of calls.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from peer_model import ensure_model
from peer_tool import describe_peer, make_environment, read_latency, run_sweep, run_timed, write_configuration
from provenance import print_figures, where_and_when

import farm

MEASURED_ROLES = ("baseline", "twin", "candidate")
"""Rows whose calls count as timed: what else the farm may run in a round is its own cost."""

PREPARING_BUDGET_S = 1
"""The preparing run measures as little as a run can: it is there for the artifacts."""


class CallsAs(StrEnum):
    """What the peer's number of timed calls at a length equals."""

    length = "length"
    process = "process"


@dataclass(frozen=True, slots=True)
class Side:
    """What one side spent: wall time of its command, and the timed calls within. `rewarm_s` is None for the peer."""

    wall_s: float
    timed_s: float
    calls: int
    rewarm_s: float | None = None
    prepare_s: float | None = None

    @property
    def timed_share(self) -> float:
        """The fraction of the wall time that is spent in timed calls."""
        return self.timed_s / self.wall_s

    @property
    def turns_share(self) -> float | None:
        """The fraction that is spent in turns, their discarded re-warm included."""
        return None if self.rewarm_s is None else (self.timed_s + self.rewarm_s) / self.wall_s

    @property
    def everything_share(self) -> float | None:
        """The fraction in timed calls where preparing counts too."""
        return None if self.prepare_s is None else self.timed_s / (self.wall_s + self.prepare_s)

    @property
    def wall_per_call_ms(self) -> float:
        """Milliseconds of wall time for each timed call."""
        return self.wall_s / self.calls * 1e3


def parse_lengths(text: str) -> list[int]:
    """Comma-separated lengths, ascending. Raises typer.BadParameter."""
    try:
        return sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise typer.BadParameter(f"--lengths {text}: give whole numbers with commas between them") from None


def run_farm(model: Path, lengths: Sequence[int], results: Path, effort: str, budget_s: float | None) -> float:
    """Run the founding methods with the `farm` command; the seconds it took. Raises SystemExit where it fails."""
    command = [sys.executable, "-c", "from farm.cli import main; main()", "run", "--model", str(model)]
    command += ["--device", "cpu", "--lengths", ",".join(map(str, lengths)), "--effort", effort]
    command += ["--set", "accuracy=null", "--results", str(results), "--fresh", "--quiet"]
    if budget_s is not None:
        command += ["--set", f"budget_s={budget_s}"]
    return run_timed(command, results.with_suffix(".log"))


def farm_side(rows: Sequence[Mapping[str, Any]], wall_s: float, prepare_s: float) -> Side:
    """Sum up the measured rows that a command of `wall_s` seconds made."""
    return Side(
        wall_s=wall_s,
        timed_s=sum(sum(row["round_turn_ns"]) for row in rows) / 1e9,
        calls=sum(timed_calls(row) for row in rows),
        rewarm_s=sum(rewarm_ns(row) for row in rows) / 1e9,
        prepare_s=prepare_s,
    )


def measured_rows(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of `Results.measurements` that have timed calls of a method."""
    return [row for row in rows if row["role"] in MEASURED_ROLES and len(row["latency_ns"])]


def timed_calls(row: Mapping[str, Any]) -> int:
    """Timed calls of one process."""
    return len(row["latency_ns"]) * int(row["calls_per_sample"])


def rewarm_ns(row: Mapping[str, Any]) -> float:
    """Time of one process's discarded re-warms: as recorded, else one call of median latency for each turn."""
    if row.get("round_rewarm_ns") is not None:
        return float(sum(row["round_rewarm_ns"]))
    return float(median(row["latency_ns"])) * len(row["round_turn_ns"])


def calls_by_length(rows: Sequence[Mapping[str, Any]], calls_as: CallsAs) -> dict[int, int]:
    """The peer's timed calls at each length, from the measured rows; one process is one of the baseline's."""
    wanted: dict[int, int] = {}
    for length in sorted({int(row["length"]) for row in rows}):
        here = [row for row in rows if row["length"] == length]
        if calls_as is CallsAs.length:
            wanted[length] = sum(timed_calls(row) for row in here)
        else:
            wanted[length] = round(median(timed_calls(row) for row in here if row["role"] == "baseline"))
    return wanted


def peer_side(output: Path, lengths: Sequence[int], wall_s: float) -> Side:
    """Sum up the reports of a sweep of `wall_s` seconds."""
    latencies = [read_latency(output, length) for length in lengths]
    return Side(
        wall_s=wall_s,
        timed_s=sum(latency["total"] for latency in latencies),
        calls=sum(latency["count"] for latency in latencies),
    )


def prepare_both(command: Path, model: Path, lengths: Sequence[int], session: Path) -> float:
    """Run both sides once and briefly: artifacts are made, files are in memory, and what cannot run says so now.

    Returns the seconds that the farm took.
    """
    configuration = write_configuration(session / "trial-configuration", model, dict.fromkeys(lengths, 1))
    run_sweep(command, configuration, lengths, session / "trial", threads=1)
    return run_farm(model, lengths, session / "preparing", "quick", PREPARING_BUDGET_S)


def print_sides(sides: Mapping[str, Side]) -> None:
    """Print what each side spent."""

    def share(value: float | None) -> str:
        return "" if value is None else f"{value:.1%}"

    each = list(sides.values())
    rows = [
        ["wall time", *(f"{side.wall_s:.1f} s" for side in each)],
        ["in timed calls", *(f"{side.timed_s:.1f} s" for side in each)],
        ["timed calls", *(f"{side.calls}" for side in each)],
        ["fraction of wall time in timed calls", *(share(side.timed_share) for side in each)],
        ["the same, re-warm of turns included", *(share(side.turns_share) for side in each)],
        ["in timed calls, where preparing counts too", *(share(side.everything_share) for side in each)],
        ["wall time for each timed call", *(f"{side.wall_per_call_ms:.1f} ms" for side in each)],
    ]
    print_figures("What the wall time went into", ["", *sides], rows)


def print_repeatability(results: farm.Results, outputs: Sequence[Path], lengths: Sequence[int]) -> None:
    """Print how far the same cell was from itself: the peer's two runs, and the farm's twin."""
    speedups = results.speedups
    rows = []
    for length in lengths:
        twin = speedups[(speedups["role"] == "twin") & (speedups["length"] == length)].iloc[0]
        medians = [read_latency(output, length)["p50"] for output in outputs]
        ratios = [first / second for first, second in pairwise(medians)]
        rows.append(
            [
                str(length),
                *(f"{seconds * 1e3:.1f} ms" for seconds in medians),
                *(f"{ratio - 1:+.1%}" for ratio in ratios),
                f"{twin['speedup'] - 1:+.1%} [{twin['speedup_low'] - 1:+.1%}, {twin['speedup_high'] - 1:+.1%}]",
            ]
        )
    columns = ["length", "peer, first", "peer, second", "peer, first / second", "farm, A/A twin [95 % interval]"]
    print_figures("The same cell measured twice: p50 and their ratio, which ought to be 1 (+0 %)", columns, rows)


def main(
    *,
    workdir: Annotated[Path | None, typer.Option(help="For everything made; a new temporary one if left out.")] = None,
    peer_venv: Annotated[
        Path | None, typer.Option(help="The peer's virtual environment, made if missing; WORKDIR/peer if left out.")
    ] = None,
    peer_release: Annotated[str, typer.Option(help="Release of optimum-benchmark, as after == for pip.")] = "0.5.*",
    lengths: Annotated[str, typer.Option(help="Comma-separated, in tokens.")] = "64,128,256,512",
    effort: Annotated[str, typer.Option(help="The farm's effort: quick, standard or rigorous.")] = "standard",
    budget: Annotated[float | None, typer.Option(help="Seconds the farm may measure, instead of the effort's.")] = None,
    calls_as: Annotated[
        CallsAs,
        typer.Option(help="The peer times as many calls as the farm: at that length in all, or in one process."),
    ] = CallsAs.length,
) -> None:
    """Compare the farm with optimum-benchmark on one model: wall time, and how much of it goes into timed calls.

    At the defaults the farm takes about half an hour, and each of the peer's two sweeps about as long.
    """
    numbers = parse_lengths(lengths)
    workdir = (workdir or Path(tempfile.mkdtemp(prefix="peer-"))).absolute()
    session = workdir / time.strftime("session-%Y%m%d-%H%M%S")
    print(f"everything is kept in {session}", flush=True)
    command = make_environment((peer_venv or workdir / "peer").absolute(), peer_release)
    model = ensure_model(workdir / "model")
    prepare_s = prepare_both(command, model, numbers, session)
    wall_s = run_farm(model, numbers, session / "farm", effort, budget)
    results = farm.Results(session / "farm")
    rows = measured_rows(results.measurements.to_dict("records"))
    calls = calls_by_length(rows, calls_as)
    print(f"the farm took {wall_s:.0f} s; the peer's timed calls by length: {calls}", flush=True)
    outputs = [session / name for name in ("first", "second")]
    configuration = write_configuration(session / "configuration", model, calls)
    sides = {"farm": farm_side(rows, wall_s, prepare_s)}
    for output in outputs:
        sweep_s = run_sweep(command, configuration, list(calls), output, int(rows[0]["threads"]))
        sides[f"peer, {output.name}"] = peer_side(output, list(calls), sweep_s)
    print_sides(sides)
    print_repeatability(results, outputs, list(calls))
    print(f"\n{results.table()}")
    print(where_and_when(), f"peer: {describe_peer(command)}", sep="; ")


if __name__ == "__main__":
    typer.run(main)
