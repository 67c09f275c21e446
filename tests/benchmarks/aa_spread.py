"""A/A spread: how far from 1 is the ratio of a model to itself, timed one after the other and by the farm?

Each repetition measures both ways on the same machine state, with the same number of timed calls in every process:

- the farm: one run of a suite whose only method is the baseline. The engine adds the baseline's A/A twin by itself;
  the twin's speedup, which ought to be 1, is the repetition's figure, and its interval ought to hold 1;
- one after the other: two fresh processes of `sequential.py`, the second started when the first has ended; the ratio
  of their medians is the figure.

A repetition is a run of effort `quick`, with a Ray of its own, although one run of thirty replicas would save its ten
seconds: only so can the two ways alternate, and a machine that is slow for ten minutes is slow for both. `quick` has
one replica, which is what a repetition must be: one fresh process of the baseline, one of its twin. Its interval is
the one-replica interval that a user of `quick` is shown, so that counting how many hold 1 judges what is printed.

Every repetition is appended to a CSV file as soon as it is done; the same command with the same --output continues.
"""

from __future__ import annotations

import csv
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from provenance import print_figures, where_and_when

import farm
from farm.errors import FarmError
from farm.machine import describe_machine
from tasks.inputs import build_inputs
from tasks.models import resolve_model
from tasks.progress import SilentProgress
from tasks.reviews import load_sentences, review_texts

INPUTS = 4
"""Different inputs that calls rotate through: as many as the farm's cells are given."""

SEQUENTIAL = Path(__file__).with_name("sequential.py")


@dataclass(frozen=True, slots=True)
class Repetition:
    """One repetition: the farm's twin and a sequential pair, of `calls` timed calls in each of the four processes."""

    started: str
    hardware_class: str
    length: int
    calls: int
    farm_speedup: float
    farm_low: float
    farm_high: float
    farm_interval: str
    farm_wall_s: float
    first_ms: float
    second_ms: float
    sequential_wall_s: float


@dataclass(frozen=True, slots=True)
class Spread:
    """How ratios that ought to be 1 are spread: fractions, not percent."""

    mean: float
    deviation: float
    worst: float


def spread(ratios: Sequence[float]) -> Spread:
    """Mean, standard deviation (n - 1) and largest distance from 1 of at least two ratios."""
    return Spread(statistics.fmean(ratios), statistics.stdev(ratios), max(abs(ratio - 1) for ratio in ratios))


def holding_one(repetitions: Sequence[Repetition]) -> int:
    """How many of the farm's intervals contain 1."""
    return sum(repetition.farm_low <= 1 <= repetition.farm_high for repetition in repetitions)


def read_repetitions(path: Path) -> list[Repetition]:
    """The repetitions of an earlier session; none where there is no file.

    Raises typer.BadParameter for a file of something else.
    """
    if not path.exists():
        return []
    kinds = {"str": str, "int": int, "float": float}
    convert = {field.name: kinds[str(field.type)] for field in fields(Repetition)}
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != list(convert):
            raise typer.BadParameter(f"{path} is not a file of repetitions; name another, or a new one")
        return [Repetition(**{name: kind(row[name]) for name, kind in convert.items()}) for row in reader]


def append_repetition(path: Path, repetition: Repetition) -> None:
    """Append one row; the first of a file comes with the names of the columns."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Repetition)])
        if new:
            writer.writeheader()
        writer.writerow(asdict(repetition))


def measure_farm(length: int, results: Path) -> dict[str, Any]:
    """One fresh run of the baseline and its twin: the twin's speedup, calls in each process, threads, wall time.

    Raises SystemExit where the twin has no speedup.
    """
    suite = {
        "name": "aa-spread",
        "methods": ["pytorch-fp32"],
        "lengths": [length],
        "devices": ["cpu"],
        "accuracy": None,
        "effort": "quick",
    }
    started = time.monotonic()
    measured = farm.run(suite, results=results, fresh=True)
    wall_s = time.monotonic() - started
    rows = measured.speedups
    twin = rows[rows["role"] == "twin"].iloc[0]
    if twin["status"] != "ok":
        raise SystemExit(f"the twin is {twin['status']}: {', '.join(twin['reasons'])}; look at {results}")
    samples = measured.samples
    mine = samples[samples["role"] == "twin"]
    return {
        "farm_speedup": float(twin["speedup"]),
        "farm_low": float(twin["speedup_low"]),
        "farm_high": float(twin["speedup_high"]),
        "farm_interval": str(twin["interval"]),
        "farm_wall_s": wall_s,
        "calls": int(mine["calls_per_sample"].sum()),
        "threads": int(mine["threads"].iloc[0]),
    }


def measure_sequentially(model: Path, inputs: Path, calls: int, threads: int) -> dict[str, Any]:
    """Two fresh processes, one after the other: their medians in milliseconds, and the wall time of both."""
    command = [sys.executable, str(SEQUENTIAL), str(model), str(inputs)]
    command += ["--calls", str(calls), "--threads", str(threads)]
    started = time.monotonic()
    first, second = (
        float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout) for _ in range(2)
    )
    return {"first_ms": first, "second_ms": second, "sequential_wall_s": time.monotonic() - started}


def measure_repetition(length: int, model: Path, inputs: Path, results: Path) -> Repetition:
    """The farm first, as it decides how many calls there are; then the sequential pair with as many."""
    started = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    ours = measure_farm(length, results)
    theirs = measure_sequentially(model, inputs, ours["calls"], ours.pop("threads"))
    hardware_class = describe_machine().hardware_class
    return Repetition(started=started, hardware_class=hardware_class, length=length, **ours, **theirs)


def save_inputs(length: int, path: Path) -> Path:
    """Save what the farm's cells are called with: real text that fills the length. Returns the model's folder."""
    progress = SilentProgress()
    model = resolve_model("demo", progress)
    texts = review_texts(load_sentences(progress))
    batches = build_inputs(model, texts, length=length, batch_size=1, kind="full", count=INPUTS)
    save_batches(path, batches)
    return Path(model.folder)


def save_batches(path: Path, batches: Sequence[Mapping[str, Any]]) -> None:
    """Write batches, dicts of input name to array, as `sequential.py` reads them."""
    arrays: dict[str, Any] = {f"{name}.{n}": array for n, batch in enumerate(batches) for name, array in batch.items()}
    np.savez(path, **arrays)


def check_same_question(done: Sequence[Repetition], length: int, path: Path) -> None:
    """Refuse to add to repetitions of another length or machine. Raises typer.BadParameter."""
    here: Mapping[str, object] = {"length": length, "hardware_class": describe_machine().hardware_class}
    for name, value in here.items():
        others = sorted({str(getattr(repetition, name)) for repetition in done} - {str(value)})
        if others:
            raise typer.BadParameter(f"{path} holds {name} {', '.join(others)}, not {value}; name another --output")


def print_summary(repetitions: Sequence[Repetition]) -> None:
    """Print both spreads beside each other. Needs two repetitions."""
    sequential = spread([repetition.first_ms / repetition.second_ms for repetition in repetitions])
    ours = spread([repetition.farm_speedup for repetition in repetitions])
    calls = sorted({repetition.calls for repetition in repetitions})
    walls = [
        statistics.median(getattr(repetition, name) for repetition in repetitions)
        for name in ("sequential_wall_s", "farm_wall_s")
    ]
    both = (sequential, ours)
    rows = [
        ["standard deviation of the ratio", *(f"{each.deviation:.2%}" for each in both)],
        ["worst distance from 1", *(f"{each.worst:.2%}" for each in both)],
        ["mean ratio", *(f"{each.mean:.4f}" for each in both)],
        ["95 % intervals that hold 1", "none given", f"{holding_one(repetitions)} of {len(repetitions)}"],
        ["timed calls in each process", *["-".join(map(str, dict.fromkeys((calls[0], calls[-1]))))] * 2],
        ["wall time of a repetition, median", *(f"{wall_s:.0f} s" for wall_s in walls)],
    ]
    title = f"A/A spread at length {repetitions[0].length}, {len(repetitions)} repetitions"
    print_figures(title, ["", "one after the other", "farm"], rows)


def print_repetition(number: int, wanted: int, done: Repetition) -> None:
    """Print one line about a repetition that is finished."""
    farm_text = f"{done.farm_speedup:.4f} [{done.farm_low:.4f}, {done.farm_high:.4f}]"
    ratio = done.first_ms / done.second_ms
    print(f"{number} of {wanted}: farm {farm_text}, sequential {ratio:.4f}, {done.calls} calls each", flush=True)


def main(
    repetitions: Annotated[int, typer.Option(min=2, help="Repetitions in all, those in --output included.")] = 30,
    length: Annotated[int, typer.Option(help="Tokens.")] = 128,
    output: Annotated[
        Path | None,
        typer.Option(help="CSV file to append to and to continue from; a new one in a temporary folder if left out."),
    ] = None,
) -> None:
    """Compare how a model's ratio to itself spreads: two processes one after the other, and the farm's A/A twin.

    Takes a little over a minute for each repetition on two cores. Raw samples of the farm's runs stay beside OUTPUT.
    """
    output = output or Path(tempfile.mkdtemp(prefix="aa-spread-")) / "repetitions.csv"
    done = read_repetitions(output)
    check_same_question(done, length, output)
    print(f"{len(done)} of {repetitions} repetitions in {output}; the same command with --output {output} continues")
    inputs = output.with_suffix(".npz")
    model = save_inputs(length, inputs)
    while len(done) < repetitions:
        done.append(measure_repetition(length, model, inputs, output.with_suffix(".results")))
        append_repetition(output, done[-1])
        print_repetition(len(done), repetitions, done[-1])
    print_summary(done)
    print(where_and_when())


if __name__ == "__main__":
    try:
        typer.run(main)
    except FarmError as error:
        sys.exit(f"aa_spread: {error}")
