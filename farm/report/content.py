"""What the page says, as data: each block's answer, plots and tables, and how the run was made. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from farm import disturbances, packs, tables
from farm.pairing import LEAST_CLEAN_ROUNDS
from farm.ratios import Row
from farm.report import charts_found, charts_samples, charts_trade, charts_trust, numbers
from farm.report.answer import Answer, answer
from farm.report.chart_parts import Drawing
from farm.report.numbers import NumberTable
from farm.report.subject import Subject, make_subject


@dataclass(frozen=True, slots=True)
class Plot:
    """One kind of plot: how it is asked for, its title, how to read it, and what to say where it cannot be drawn."""

    name: str
    title: str
    reading: str
    draw: Callable[[Subject], Drawing | None]
    missing: str
    heading: str = ""
    """Of a picture, which has no page around it to say what is compared; the title where none is given."""

    def heading_of(self, subject: Subject) -> str:
        """What stands over a picture of it."""
        return self.heading.format(baseline=subject.baseline) or self.title


PLOTS: Mapping[str, Plot] = {
    plot.name: plot
    for plot in (
        Plot(
            "speedup",
            "Speedup",
            "How many times as fast each method is as the baseline, in the same rounds. Lines are 95 % intervals: one "
            "that crosses the dashed 1x may be chance. Further right is better.",
            charts_found.speedup,
            "No method has a speedup.",
            "Speedup over {baseline}, with 95 % intervals",
        ),
        Plot(
            "latency",
            "Latency, and what the machine allows",
            "Median time of a call. Dotted lines (a tick, where there is one length) are the least time that this "
            "machine's products and memory allow the method. Lower is better.",
            charts_found.latency,
            "No method has a latency.",
        ),
        Plot(
            "trade-off",
            "Speed, accuracy and size",
            "Each circle is a method, as large as its files, with 95 % intervals. No other is at least as good in all "
            "three as one on the Pareto front. Up and to the right is better; what is below the dashed line fails.",
            charts_trade.trade_off,
            "Neither accuracy nor size was measured for every method, or there is only one.",
        ),
        Plot(
            "distribution",
            "Single calls",
            "The share of calls that took no longer than so many milliseconds. Steep is steady; a long way to the last "
            "few percent is a tail. At most 41 quantiles of each method are drawn; disturbed rounds are left out where "
            "enough others remain.",
            charts_samples.distribution,
            "No calls were recorded.",
        ),
        Plot(
            "rounds",
            "Rounds",
            "The median of each turn of a few calls, all replicas. Open circles are disturbed rounds, which count "
            "nowhere else where enough others remain. Of more than 60 rounds, 60 at even distances are drawn.",
            charts_samples.rounds,
            "No rounds were recorded.",
        ),
        Plot(
            "drift",
            "Drift",
            "How far each turn of the methods in colour was from the median of its process, over the time of the run, "
            "all lengths; the few furthest stand at the edge, with their figures under the pointer. What all methods "
            "share cancels in the speedup.",
            charts_samples.drift,
            "No rounds were recorded.",
        ),
        Plot(
            "sentinels",
            "What the machine could do meanwhile",
            "Fixed work, timed in every round: a neighbour on the host shows here and in no counter. Beyond the dashed "
            "lines the round counts as another state of the machine. Vertical lines are disturbed rounds.",
            charts_trust.sentinels,
            "No sentinel ran, so whether the machine changed is not known.",
        ),
        Plot(
            "twin",
            "The baseline against itself",
            "A second process of the baseline ran as if it were a method. Its interval ought to hold 1x; how wide it "
            "is shows how small a difference this run could see. One in twenty misses 1x by chance; where all together "
            "do not look like chance, a warning stands at the top. Shaded: what counts as the same.",
            charts_trust.twin,
            "No A/A twin was measured.",
        ),
        Plot(
            "start",
            "Until the first answer",
            "Seconds to prepare the model for the method (once; the result is cached), to load it, and of the first "
            "call: the most over the lengths, on a logarithmic scale.",
            charts_trust.start,
            "No costs were recorded.",
        ),
    )
}
"""By name, in the order of the page."""

OF_ROUNDS = frozenset({"distribution", "rounds"})
"""Plots whose reading says what becomes of disturbed rounds."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot of one block, ready to be shown: its Vega-Lite specification (None where there is none), and its table."""

    plot: Plot
    spec: Mapping[str, Any] | None
    tables: tuple[NumberTable, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """A method that has no result somewhere: where, why, and the end of its own error output."""

    name: str
    status: str
    lengths: tuple[int, ...]
    reason: str
    tail: str


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """All of one hardware class, device, batch size, number of threads and kind of inputs."""

    title: str
    answer: Answer
    subject: Subject
    speeds: NumberTable
    figures: tuple[Figure, ...]
    costs: NumberTable
    failures: tuple[Failed, ...]
    notes: tuple[str, ...]


def report_blocks(
    rows: Sequence[Row], measured: Iterable[Row], table: tables.SpeedupTable, same_within: float
) -> tuple[ReportBlock, ...]:
    """The blocks of a run: its speedup rows, its measurement rows (columns of `traces.COLUMNS`), and its table."""
    by_block: dict[tuple[Any, ...], list[Row]] = {}
    for row in measured:
        by_block.setdefault(tables.block_of(row), []).append(row)
    found = []
    for group, block in zip(tables.rows_by_block(rows), table.blocks, strict=True):
        subject = make_subject(group, by_block.get(tables.block_of(group[0]), ()), same_within)
        found.append(_report_block(subject, rows, block))
    return tuple(found)


def spec_of(plot: Plot, subject: Subject) -> Mapping[str, Any] | None:
    """The plot's Vega-Lite specification without colours' values, or None where there is nothing to draw."""
    drawing = plot.draw(subject)
    return None if drawing is None else drawing.spec(subject)


def _report_block(subject: Subject, run: Sequence[Row], block: tables.Block) -> ReportBlock:
    figures = [
        Figure(_read(plot, subject), spec_of(plot, subject), _tables(plot.name, subject)) for plot in PLOTS.values()
    ]
    return ReportBlock(
        title=block.title,
        answer=answer(subject.rows, run, subject.choice, subject.baseline),
        subject=subject,
        speeds=numbers.speed_table(block),
        figures=tuple(figures),
        costs=numbers.cost_table(block),
        failures=tuple(_failures(subject)),
        notes=block.footer,
    )


def _read(plot: Plot, subject: Subject) -> Plot:
    """The plot with what its reading leaves open: where disturbed rounds count after all."""
    counting = disturbances.counting_disturbed(subject.rows) if plot.name in OF_ROUNDS else []
    if not counting:
        return plot
    at = packs.lengths_text(counting, subject.rows)
    left = f"At length {at} fewer than {LEAST_CLEAN_ROUNDS} undisturbed rounds remained, so disturbed ones count."
    return replace(plot, reading=f"{plot.reading} {left}")


def _tables(plot: str, subject: Subject) -> tuple[NumberTable, ...]:
    """What a plot shows in figures; the speeds and the costs have tables of their own on the page."""
    kinds = {row["name"]: row["kind"] for row in charts_trade.trade_off_rows(subject)}
    made: Mapping[str, Callable[[], tuple[NumberTable, ...]]] = {
        "latency": lambda: (numbers.latency_table(subject),),
        "trade-off": lambda: (numbers.trade_off_table(subject, lambda name: kinds.get(name, "-")),),
        "distribution": lambda: (numbers.distribution_table(subject),),
        "rounds": lambda: (numbers.rounds_table(subject),),
        "sentinels": lambda: (numbers.sentinel_table(subject), numbers.disturbance_table(subject)),
        "twin": lambda: (numbers.twin_table(subject),),
    }
    return tuple(table for table in made[plot]() if table.lines) if plot in made else ()


def _failures(subject: Subject) -> list[Failed]:
    """Every row that is not ok, those of one reason together."""
    found: dict[tuple[str, str, str], list[int]] = {}
    for row in subject.rows:
        if row.get("status", "ok") != "ok":
            reason = "; ".join(row.get("reasons") or ()) or "no reason recorded"
            name = f"{row['name']} (twin)" if row.get("role") == "twin" else row["name"]
            found.setdefault((name, row["status"], reason), []).append(row["length"])
    return [
        Failed(
            name,
            status,
            tuple(sorted(lengths)),
            reason,
            next((tail for at in lengths if (tail := subject.tails.get((name, at)))), ""),
        )
        for (name, status, reason), lengths in found.items()
    ]


def environment_lines(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a run record knows of machine and libraries, one line each: nested names are joined by spaces."""
    lines: list[tuple[str, str]] = []
    for key, value in environment.items():
        if isinstance(value, Mapping):
            lines += [(f"{key} {inner}" if inner else key, text) for inner, text in environment_lines(value)]
        elif isinstance(value, str | int | float):
            lines.append((key.replace("_", " "), str(value)))
        else:
            lines.append((key.replace("_", " "), json.dumps(value)))
    return lines
