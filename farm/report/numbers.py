"""The report's tables: what every plot shows, in figures, for those who cannot or would rather not look. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import quantiles

from farm import packs
from farm.columns import COLUMNS, COSTS
from farm.numerals import change_text, figure_text, grouped_text, milliseconds_text, ratio_text
from farm.rates import RATES
from farm.ratios import Ratio, Row, has_speedup, is_candidate
from farm.report.subject import Subject
from farm.tables import Block, Entry, MethodRow
from tasks.sentinels import STATE_CHANGE, USUAL

LEAST_FOR_QUARTILES = 11
"""Calls that quartiles are printed of at least: as many as support a median elsewhere."""


@dataclass(frozen=True, slots=True)
class Line:
    """One row: the method it is about (None: none in particular), and its texts; a line feed begins a new line."""

    method: str | None
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NumberTable:
    """A table: headings, of which `words` stand to the left and all others are numbers, and its rows."""

    caption: str
    headings: tuple[str, ...]
    lines: tuple[Line, ...]
    words: frozenset[str] = field(default_factory=lambda: frozenset({"method", "verdict", "judged", "disturbed by"}))


def speed_table(block: Block) -> NumberTable:
    """Latency and speedup at every length, the mean over them, and what they say."""
    lengths = [f"{length} tokens" for length in block.lengths]
    headings = ("method", "mean", "verdict", "accuracy %, change", "agrees %", *lengths, "founding average")
    lines = [Line(row.name, tuple(_speed_texts(row))) for row in _fastest_first(block)]
    return NumberTable(f"Median latency, and speedup over {block.baseline} with 95 % intervals", headings, tuple(lines))


def latency_table(subject: Subject) -> NumberTable:
    """Percentiles of latency where enough calls support them, and the limit."""
    columns = {f"p{percent} ms": f"latency_p{percent}_ns" for percent in (50, 90, 95, 99)} | {"limit ms": "limit_ns"}
    numbers = packs.pack_numbers(subject.rows)
    lines = []
    for row in packs.pooled(subject.timed):
        figures = [_figure(row.get(column), 1e6) for column in columns.values()]
        share = row.get("limit_fraction")
        pack = [str(numbers.get(row.get("cohort") or "", "-")) if is_candidate(row) else "all"] if numbers else []
        texts = (row["name"], str(row["length"]), *pack, *figures, "-" if share is None else f"{100 * share:.0f} %")
        lines.append(Line(row["name"], texts))
    caption = "Latency; a percentile is given where enough calls support it"
    headings = ("method", "tokens", *(["pack"] if numbers else []), *columns, "of the limit")
    return NumberTable(caption, headings, tuple(lines))


def trade_off_table(subject: Subject, judged: Callable[[str], str]) -> NumberTable:
    """Speed, accuracy and size of every method that is measured at every length; `judged` says how each fares."""
    lines = []
    for each in subject.choice.entrants:
        change = change_text(each.accuracy_change) if each.accuracy_change else "-"
        accuracy = "-" if each.accuracy is None else f"{100 * each.accuracy:.2f}"
        sizes = [_figure(size, 1e6, whole=True) for size in (each.artifact_bytes, each.peak_rss_bytes)]
        texts = (each.name, ratio_text(each.speedup), accuracy, change, *sizes, judged(each.name))
        lines.append(Line(each.name, texts))
    headings = ("method", "speedup", "accuracy %", "change, points", "MB on disk", "MB of memory", "judged")
    return NumberTable("Speed, accuracy and size", headings, tuple(lines))


def distribution_table(subject: Subject) -> NumberTable:
    """Quartiles of the calls that count."""
    lines = []
    for each in sorted(subject.distributions, key=lambda each: (each.length, each.latency_ms[0])):
        enough = each.samples >= LEAST_FOR_QUARTILES
        quartiles = (
            [figure_text(value) for value in quantiles(each.latency_ms, n=4, method="inclusive")]
            if enough
            else ["-"] * 3
        )
        ends = [figure_text(each.latency_ms[place]) for place in (0, -1)]
        texts = (each.name, str(each.length), str(each.samples), ends[0], *quartiles, ends[1])
        lines.append(Line(each.name, texts))
    headings = ("method", "tokens", "calls", "least ms", "25 % ms", "50 % ms", "75 % ms", "most ms")
    caption = "Single calls, those of disturbed rounds left out where enough others remain"
    return NumberTable(caption, headings, tuple(lines))


def rounds_table(subject: Subject) -> NumberTable:
    """How far the turns of each cell were apart."""
    lines = []
    for each in subject.turns:
        low, high = each.apart_range_percent
        ends = map(figure_text, each.latency_range_ms)
        name = f"{each.name} (twin)" if each.role == "twin" else each.name
        texts = (name, str(each.length), str(each.rounds), str(each.disturbed), *ends, f"{low:+.1f}", f"{high:+.1f}")
        lines.append(Line(each.name, texts))
    headings = ("method", "tokens", "rounds", "disturbed", "least ms", "most ms", "least, %", "most, %")
    return NumberTable("Turns, and how far they were from their replica's median", headings, tuple(lines))


def sentinel_table(subject: Subject) -> NumberTable:
    """How far each rate of the sentinel moved."""
    every = subject.machine
    lines = []
    for what in (rate.what for rate in RATES.values()):
        moved = [each.rates_percent[what] for each in every if what in each.rates_percent]
        if moved:
            beyond = sum(abs(percent) > 100 * STATE_CHANGE for percent in moved)
            lines.append(Line(None, (what, str(len(moved)), f"{min(moved):+.1f}", f"{max(moved):+.1f}", str(beyond))))
    headings = ("rate", "rounds", "least, %", "most, %", f"rounds beyond {100 * STATE_CHANGE:.0f} %")
    return NumberTable(
        "The sentinel's rates, from the median of their replica", headings, tuple(lines), frozenset({"rate"})
    )


def disturbance_table(subject: Subject) -> NumberTable:
    """How many rounds were disturbed by what, and how many saw another state of the machine."""
    every = subject.machine
    reasons = Counter(reason for each in every for reason in each.disturbed_by)
    states = Counter(each.state for each in every if each.state not in (None, USUAL))
    counted = [(f"disturbed by {reason}", count) for reason, count in reasons.most_common()]
    counted += [(f"{state}", count) for state, count in states.most_common()]
    lines = tuple(Line(None, (what, f"{count} of {len(every)}")) for what, count in counted)
    return NumberTable("What happened to the machine", ("what", "rounds"), lines, frozenset({"what"}))


def twin_table(subject: Subject) -> NumberTable:
    """The baseline over its own twin at every length."""
    twins = [row for row in packs.in_order(subject.rows) if row.get("role") == "twin" and has_speedup(row)]
    lines = [
        Line(None, (at, ratio_text(_ratio(row)), str(row["rounds"]), row.get("verdict") or "-"))
        for row, at in ((row, packs.lengths_text([row], subject.rows)) for row in twins)
    ]
    headings = ("tokens", "baseline over its twin", "rounds", "verdict")
    return NumberTable("A/A twin, the baseline run twice", headings, tuple(lines))


def cost_table(block: Block) -> NumberTable:
    """What each method costs beside its latency, over the lengths; known costs only."""
    known = [cost for cost in COSTS if any(set(cost.fields) & row.figures.keys() for row in block.rows)]
    lines = [Line(row.name, (row.name, *(cost.text(row) for cost in known))) for row in _fastest_first(block)]
    return NumberTable("Costs", ("method", *(cost.heading for cost in known)), tuple(lines))


def _fastest_first(block: Block) -> list[MethodRow]:
    """As in the plots; those without a mean come last."""
    return sorted(block.rows, key=lambda row: (row.mean is None, -(row.mean.speedup if row.mean else 0)))


def _speed_texts(row: MethodRow) -> Iterable[str]:
    yield row.name
    yield "-" if row.mean is None else "1.00x" if row.is_baseline else _in_lines(ratio_text(row.mean))
    after_holm = f"\n{row.after_holm.held} of {row.after_holm.made} after Holm" if row.after_holm else ""
    yield f"{row.verdict}{after_holm}"
    change = f"\n{_in_lines(change_text(row.accuracy_change))}" if row.accuracy_change else ""
    yield "-" if row.accuracy is None else f"{100 * row.accuracy:.2f}{change}"
    yield COLUMNS["agreement"].text(row)
    yield from (_entry_text(row, entry) for entry in row.entries)
    yield "-" if row.founding_average is None or row.is_baseline else f"{row.founding_average:+.1f} %"


def _in_lines(text: str) -> str:
    """An interval under its figure: a table of several lengths is wide enough without."""
    return text.replace(" [", "\n[", 1)


def _entry_text(row: MethodRow, entry: Entry) -> str:
    if entry.word or entry.latency_ms is None:
        return entry.word or "no data"
    ratio = f"\n{_in_lines(ratio_text(entry.ratio))}" if entry.ratio is not None and not row.is_baseline else ""
    return f"{milliseconds_text(entry.latency_ms)}{ratio}"


def _ratio(row: Row) -> Ratio:
    return Ratio(row["speedup"], row.get("speedup_low"), row.get("speedup_high"))


def _figure(value: float | None, unit: float = 1.0, whole: bool = False) -> str:
    if value is None:
        return "-"
    return grouped_text(value / unit) if whole else figure_text(value / unit)
