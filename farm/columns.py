"""The columns of a speedup table that one can choose: their headings, and what stands in them. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tabulate import tabulate

from farm import stats
from farm.errors import RequestError
from farm.numerals import change_text, figure_text, milliseconds_text, ratio_text
from farm.ratios import Ratio
from farm.tables import Entry, MethodRow

_NEVER = "never"


@dataclass(frozen=True, slots=True)
class _Figure:
    """A figure in units of `unit`: the most over the lengths or, where it has a `spread`, least to most."""

    figure: str
    unit: float = 1.0
    spread: bool = False
    whole: bool = False

    def __call__(self, row: MethodRow) -> str:
        """The figure's most, or its ends where they print unlike; `never` is a break-even that is not reached."""
        if self.figure not in row.figures:
            return "-"
        ends = [self._text(end / self.unit) for end in row.figures[self.figure]]
        # `0-never` reads as a word.
        between = " to " if _NEVER in ends else "-"
        return ends[1] if not self.spread else between.join(dict.fromkeys(ends))

    def _text(self, value: float) -> str:
        if math.isinf(value):
            return _NEVER
        return f"{value:.0f}" if self.whole else figure_text(value)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of methods. `fields` are the columns of SPEEDUP_SCHEMA behind it, for CSV."""

    name: str
    heading: str
    about: str
    text: Callable[[MethodRow], str]
    fields: tuple[str, ...]
    left: bool = False
    is_cost: bool = False
    narrow: str | None = None
    """The heading where space is dear: longer ones than what stands under them are broken."""


def _mean_text(row: MethodRow) -> str:
    return "-" if row.mean is None else ratio_text(row.mean)


def _founding_text(row: MethodRow) -> str:
    if row.founding_average is None:
        return "-"
    return "0.0 %" if row.is_baseline else f"{row.founding_average:+.1f} %"


def _accuracy_text(row: MethodRow) -> str:
    """The accuracy and, on a line of its own, how it differs from the baseline's."""
    accuracy = "-" if row.accuracy is None else f"{100 * row.accuracy:.2f}"
    return f"{accuracy}\n{change_text(row.accuracy_change)}" if row.accuracy_change else accuracy


def _holm_text(row: MethodRow) -> str:
    return f"{row.after_holm.held} of {row.after_holm.made}" if row.after_holm else "-"


AT_LENGTHS = {
    "latency": ("median latency at each length", ("latency_p50_ns",)),
    "speedup": ("speedup over the baseline at each length", ("speedup",)),
    "interval": ("its 95 % interval", ("speedup_low", "speedup_high")),
    "verdicts": ("faster, slower, same or unclear at each length", ("verdict",)),
    **{
        f"p{percent}": (
            f"percentile of latency at each length; withheld below {needed} samples",
            (f"latency_p{percent}_ns",),
        )
        for percent, needed in stats.PERCENTILE_SAMPLES.items()
        if percent > 50
    },
}
"""What may stand at each length, with its columns of SPEEDUP_SCHEMA."""

_ACCURACY_FIELDS = ("accuracy", "accuracy_drop_points", "accuracy_drop_low_points", "accuracy_drop_high_points")

_COLUMNS = (
    Column("mean", "geometric mean", "geometric mean of the speedups", _mean_text, (), left=True),
    Column(
        *("limit", "limit %", "share of the machine's limit", _Figure("limit_fraction", 0.01, spread=True, whole=True)),
        ("limit_fraction",),
    ),
    Column(
        "founding", "founding average", "mean of baseline / method - 1", _founding_text, (), narrow="founding\naverage"
    ),
    Column(
        "accuracy",
        "accuracy %",
        "accuracy, and its change from the baseline in points",
        _accuracy_text,
        _ACCURACY_FIELDS,
    ),
    Column(
        *("agreement", "agrees %", "share of texts with the baseline's prediction"),
        _Figure("agreement", 0.01, spread=True),
        ("agreement",),
    ),
    Column("holm", "after Holm", "claims that hold together", _holm_text, ("p_holm",), left=True, narrow="after\nHolm"),
    Column(
        "verdict",
        "verdict",
        "of the mean, and of lengths that differ",
        lambda row: row.verdict,
        ("verdict", "gate"),
        left=True,
    ),
)


def _cost(name: str, heading: str, about: str, figure: _Figure, narrow: str | None = None) -> Column:
    return Column(name, heading, about, figure, (figure.figure,), is_cost=True, narrow=narrow)


COSTS = (
    _cost("size", "size MB", "size of the artifact", _Figure("artifact_bytes", 1e6, whole=True), "size\nMB"),
    _cost("prepare", "prepare s", "seconds to make it", _Figure("prepare_s"), "prepare\ns"),
    _cost("load", "load s", "seconds to load it", _Figure("load_s"), "load\ns"),
    _cost(
        "first-call", "first call ms", "the first call", _Figure("first_call_ns", 1e6, spread=True), "first\ncall ms"
    ),
    _cost(
        "warm-up",
        "calls until steady",
        "calls until steady",
        _Figure("warmup_calls", spread=True, whole=True),
        "calls to\nsteady",
    ),
    _cost(
        "memory",
        "peak RSS MB",
        "peak memory of the process",
        _Figure("peak_rss_bytes", 1e6, whole=True),
        "peak RSS\nMB",
    ),
    _cost(
        "cpu",
        "CPU ms per call",
        "CPU time in all threads",
        _Figure("cpu_ns_per_call", 1e6, spread=True),
        "CPU ms\nper call",
    ),
    _cost(
        "energy",
        "energy J per call",
        "energy of the machine",
        _Figure("energy_j_per_call", spread=True),
        "energy J\nper call",
    ),
    _cost("gpu-time", "GPU ms per call", "time on the device", _Figure("device_p50_ns", 1e6, spread=True)),
    _cost("gpu-memory", "GPU MB", "memory of the device", _Figure("vram_bytes", 1e6, whole=True)),
    _cost("gpu-energy", "GPU mJ per call", "energy of the device", _Figure("gpu_energy_j_per_call", 1e-3, spread=True)),
    _cost("gpu-power", "GPU W", "power of the device", _Figure("gpu_power_w", spread=True, whole=True)),
    _cost(
        "break-even",
        "pays off after calls",
        "calls that win preparing back",
        _Figure("break_even_calls", spread=True, whole=True),
        "pays off\n(calls)",
    ),
)

COLUMNS = {column.name: column for column in (*_COLUMNS, *COSTS)}

AS_FOUNDED = ("latency", "speedup", "interval", *(name for name in COLUMNS if name != "agreement"))
"""What a table has unless one chooses; how many predictions are the baseline's is mostly what accuracy says too."""

OPTIONAL = frozenset({"limit", "holm", *(column.name for column in COSTS)})
"""Left out where they are known of no method, unless asked for."""

_IDENTITY = (
    *(
        "run",
        "hardware_class",
        "device",
        "threads",
        "batch_size",
        "inputs",
        "length",
        "name",
        "method",
        "role",
        "status",
    ),
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The columns of a table: what stands at each length, and what each method has once. `asked` by the user."""

    at_lengths: tuple[str, ...]
    once: tuple[Column, ...]
    asked: bool

    def fields(self) -> list[str] | None:
        """The columns of SPEEDUP_SCHEMA for CSV; None for all of them."""
        if not self.asked:
            return None
        named = [*(field for name in self.at_lengths for field in AT_LENGTHS[name][1])]
        named += [field for column in self.once for field in column.fields]
        return list(dict.fromkeys([*_IDENTITY, *named]))


def chosen(text: str | None) -> Chosen:
    """The columns that a user names, separated by commas; those of the founding table for None. Raises RequestError."""
    if text is None:
        return _of(AS_FOUNDED, asked=False)
    names = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [name for name in names if name not in AT_LENGTHS and name not in COLUMNS]
    if unknown or not names:
        raise RequestError(
            f"--columns: no column {', '.join(unknown) or 'named'}; there are {', '.join([*AT_LENGTHS, *COLUMNS])} "
            "(farm table --columns help)"
        )
    return _of(names, asked=True)


def described() -> str:
    """All columns and what they hold."""
    rows = [(name, about) for name, (about, _) in AT_LENGTHS.items()]
    rows += [(column.name, column.about) for column in COLUMNS.values()]
    return tabulate(rows, tablefmt="plain")


def entry_lines(row: MethodRow, entry: Entry, wanted: Sequence[str]) -> Iterator[str]:
    """What stands at one length: the latency on a line, the speedup with its interval on the next."""
    mark = f" [{entry.note}]" if entry.note else ""
    if entry.word or entry.latency_ms is None:
        yield f"{entry.word or 'no data'}{mark}"
        return
    lines = [milliseconds_text(entry.latency_ms)] if "latency" in wanted else []
    lines += [f"{name} {_percentile_text(entry, int(name[1:]))}" for name in percentiles(wanted)]
    if entry.ratio is not None and not row.is_baseline:
        lines += filter(None, [_ratio_words(entry.ratio, wanted)])
        lines += [entry.ratio.verdict or "-"] if "verdicts" in wanted else []
    first, *rest = lines or ["baseline" if row.is_baseline else "-"]
    yield f"{first}{mark}"
    yield from rest


def percentiles(wanted: Sequence[str]) -> list[str]:
    """Those of the columns at lengths that are percentiles above the median."""
    return [name for name in wanted if name[1:].isdigit()]


def _percentile_text(entry: Entry, percent: int) -> str:
    found_ms = entry.percentiles_ms.get(percent)
    return "withheld" if found_ms is None else milliseconds_text(found_ms)


def _ratio_words(ratio: Ratio, wanted: Sequence[str]) -> str:
    whole = ratio_text(ratio)
    point, _, ends = whole.partition(" ")
    if "interval" in wanted and "speedup" in wanted:
        return whole
    return point if "speedup" in wanted else ends if "interval" in wanted else ""


def _of(names: Sequence[str], asked: bool) -> Chosen:
    at_lengths = tuple(name for name in names if name in AT_LENGTHS)
    return Chosen(at_lengths, tuple(COLUMNS[name] for name in names if name in COLUMNS), asked)
