"""Speedup rows of one run -> the table a person reads, in the shape of the founding tables (`rendering` draws it)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from farm import captions, caveats, direct, disturbances, packs, places, stats
from farm.figures import Span, figures_of
from farm.ratios import (
    AccuracyChange,
    Claims,
    Ratio,
    Row,
    accuracy_change,
    accuracy_row,
    claims_of,
    geometric_mean_ratio,
    has_speedup,
    ratio_of,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One method at one length: a median latency and a speedup, or a `word` for what there is instead of them.

    `percentiles_ms` has those that enough samples support.
    """

    length: int
    word: str | None
    latency_ms: float | None
    ratio: Ratio | None
    note: int | None
    percentiles_ms: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MethodRow:
    """One method over all lengths of a block. `mean` is geometric; `founding_average` is in percent.

    `figures` are its costs and its share of the limit, by column of SPEEDUP_SCHEMA. The baseline's are over all packs.
    """

    name: str
    is_baseline: bool
    entries: tuple[Entry, ...]
    mean: Ratio | None
    founding_average: float | None
    accuracy: float | None
    accuracy_change: AccuracyChange | None
    figures: Mapping[str, Span]
    after_holm: Claims | None
    verdict: str


@dataclass(frozen=True, slots=True)
class Block:
    """The methods on one hardware class, device, batch size and number of threads. `notes` are numbered from 1."""

    title: str
    baseline: str
    lengths: tuple[int, ...]
    rows: tuple[MethodRow, ...]
    notes: tuple[str, ...]
    footer: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SpeedupTable:
    """All blocks of one run; `footer` stands once under all of them."""

    title: str
    blocks: tuple[Block, ...]
    footer: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Run:
    """What the blocks of one table share: all its rows, and how it was asked for."""

    rows: tuple[Row, ...]
    methods: Sequence[str]
    same_within: float
    effort: str | None
    compare: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class _Scope:
    """What the rows of one block share: lengths, those the means cover, footnotes with where they apply."""

    lengths: tuple[int, ...]
    shared: tuple[int, ...]
    notes: Mapping[str, Sequence[int]]
    same_within: float


def speedup_table(
    speedups: pa.Table | Iterable[Row],
    *,
    methods: Sequence[str] = (),
    same_within: float = 0.03,
    effort: str | None = None,
    command: str = "farm run",
    compare: Sequence[Sequence[str]] = (),
    order: str | None = None,
) -> SpeedupTable:
    """The table of one run's speedups (rows of SPEEDUP_SCHEMA).

    `methods` gives the order of the rows, the suite's; names not in it come last. `same_within` is the margin of
    `same`, a fraction. `effort` and `command` (what made the run) are for the line that says how to ask for more
    certainty, `order` (the suite's) for the one that warns of blocked order; `compare` has the suite's groups of
    methods to compare directly. Rows with a speedup but without `log_ratios` get means without an interval.
    """
    rows = speedups.to_pylist() if isinstance(speedups, pa.Table) else list(speedups)
    run = _Run(tuple(rows), methods, same_within, effort, compare)
    blocks = tuple(_block(group, run) for group in rows_by_block(rows))
    footer = tuple(captions.table_lines(rows, same_within, effort, command, order))
    return SpeedupTable(_title(rows), blocks, footer)


def block_of(row: Row) -> tuple[Any, ...]:
    """What tells the block of a row, measured or derived, from others."""
    return tuple(row.get(name) for name in ("hardware_class", "device", "batch_size", "threads", "inputs"))


def rows_by_block(rows: Iterable[Row]) -> list[list[Row]]:
    """The rows of each block, in the order of the table's blocks."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(block_of(row), []).append(row)
    # Numbers are padded, so that batch size 8 comes before 16 although a missing value forces text.
    return [groups[key] for key in sorted(groups, key=lambda key: [str(part).zfill(9) for part in key])]


def _title(rows: Sequence[Row]) -> str:
    if not rows:
        return "No cells published yet"
    first = rows[0]
    named = [(first.get("suite"), "{}"), (first.get("model"), "model {}"), (first.get("run"), "run {}")]
    return _joined(named) or "Speedups"


def _block(rows: Sequence[Row], run: _Run) -> Block:
    by_name: dict[str, dict[int, Row]] = {}
    for row in packs.pooled(rows):
        if row.get("role") != "twin":
            by_name.setdefault(row["name"], {}).setdefault(row["length"], row)
    order = {name: place for place, name in enumerate(run.methods)}
    names = sorted(by_name, key=lambda name: order.get(name, len(order)))
    lengths = tuple(sorted({length for cells in by_name.values() for length in cells}))
    scope = _Scope(lengths, _shared_lengths(by_name, lengths), _notes(by_name, names), run.same_within)
    return Block(
        title=block_title(rows[0]),
        baseline=next((row["name"] for row in rows if row.get("role") == "baseline"), "the baseline"),
        lengths=lengths,
        rows=tuple(_method_row(name, by_name[name], scope) for name in names),
        notes=tuple(f"{text} (length {', '.join(map(str, at))})" for text, at in scope.notes.items()),
        # From what decides whether to believe the block to what only explains it.
        footer=(
            *direct.direct_lines(rows, run.compare, run.same_within),
            *packs.pack_lines(rows),
            *caveats.twin_lines(rows, run.rows, run.same_within),
            *caveats.limit_lines(rows),
            *caveats.unresolved_lines(rows, run.effort),
            *disturbances.disturbed_lines(rows),
            *caveats.unread_lines(rows),
            *caveats.state_lines(rows),
            *places.node_lines(rows),
            *places.packed_lines(rows),
            *caveats.bootstrap_lines(rows, scope.shared),
            *caveats.remark_lines(rows),
            *captions.mean_lines(rows, lengths, scope.shared),
            *captions.accuracy_lines(rows),
            *captions.limit_lines(rows),
            *captions.cost_lines(rows),
        ),
    )


def block_title(row: Row) -> str:
    """What a block's rows share, in words."""
    threads = row.get("threads")
    device = row.get("device")
    return _joined(
        [
            (device and device.upper(), "{}"),
            (row.get("hardware_class"), "{}"),
            (threads, "{} thread" if threads == 1 else "{} threads"),
            (row.get("batch_size"), "batch size {}"),
            (row.get("inputs"), "{} inputs"),
        ]
    )


def _joined(parts: Sequence[tuple[Any, str]]) -> str:
    """Those parts that are known, each in its own words."""
    return "; ".join(words.format(value) for value, words in parts if value is not None)


def _shared_lengths(by_name: Mapping[str, Mapping[int, Row]], lengths: Sequence[int]) -> tuple[int, ...]:
    """The lengths at which every method that has any speedup has one: means over others would not compare."""
    having = [{length for length, row in cells.items() if has_speedup(row)} for cells in by_name.values()]
    useful = [lengths_of_method for lengths_of_method in having if lengths_of_method]
    return tuple(length for length in lengths if useful and all(length in each for each in useful))


def _notes(by_name: Mapping[str, Mapping[int, Row]], names: Sequence[str]) -> dict[str, list[int]]:
    """Each footnote once, with the lengths it applies to."""
    notes: dict[str, list[int]] = {}
    for row in (row for name in names for _, row in sorted(by_name[name].items())):
        text = caveats.failure_text(row)
        if text:
            notes.setdefault(text, []).append(row["length"])
    return notes


def _method_row(name: str, cells: Mapping[int, Row], scope: _Scope) -> MethodRow:
    rows = [cells[length] for length in scope.lengths if length in cells]
    averaged = [row for row in rows if row["length"] in scope.shared and has_speedup(row)]
    is_baseline = any(row.get("role") == "baseline" for row in rows)
    mean = geometric_mean_ratio(averaged, scope.same_within) if averaged else None
    judged = accuracy_row(rows)
    return MethodRow(
        name=name,
        is_baseline=is_baseline,
        entries=tuple(_entry(length, cells.get(length), scope.notes) for length in scope.lengths),
        mean=mean,
        founding_average=_founding_average(averaged),
        accuracy=judged["accuracy"] if judged else None,
        accuracy_change=accuracy_change(judged) if judged else None,
        figures=figures_of(rows),
        after_holm=claims_of(rows),
        verdict="baseline" if is_baseline else _verdict_text(mean, rows),
    )


def _entry(length: int, row: Row | None, notes: Mapping[str, Sequence[int]]) -> Entry:
    if row is None:
        return Entry(length, "-", None, None, None)
    text = caveats.failure_text(row)
    note = list(notes).index(text) + 1 if text else None
    word = None if row.get("status", "ok") == "ok" else row["status"]
    p50 = row.get("latency_p50_ns")
    known = {percent: row.get(f"latency_p{percent}_ns") for percent in stats.PERCENTILE_SAMPLES}
    percentiles_ms = {percent: float(found_ns) / 1e6 for percent, found_ns in known.items() if found_ns is not None}
    return Entry(length, word, None if p50 is None else p50 / 1e6, ratio_of(row), note, percentiles_ms)


def _founding_average(rows: Sequence[Row]) -> float | None:
    # A paired speedup is the ratio baseline / method, so the method's side of each ratio is 1.
    return stats.founding_average([row["speedup"] for row in rows], [1.0] * len(rows)) if rows else None


def _verdict_text(mean: Ratio | None, rows: Sequence[Row]) -> str:
    """The mean's verdict, the lengths that say something else, and a failed accuracy limit."""
    overall = (mean.verdict or "") if mean else ""
    apart = [
        f"{word} at {', '.join(str(row['length']) for row in rows if row.get('verdict') == word)}"
        for word in ("faster", "slower")
        if word != overall and any(row.get("verdict") == word for row in rows)
    ]
    gate = ["fails the accuracy limit"] if any(row.get("gate") == "fail" for row in rows) else []
    return "; ".join(part for part in [overall, *apart, *gate] if part) or "-"
