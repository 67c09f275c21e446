"""The answer in words: what to deploy, by how much, at what price, and how sure that is. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from farm import caveats, packs
from farm.choice import Choice, Entrant
from farm.doubts import doubts, one_replica, roughness
from farm.figures import figures_of
from farm.numerals import change_text, end_text, factor_text, figure_text, grouped_text, milliseconds_text, ratio_text
from farm.ratios import Ratio, Row, geometric_mean_ratio, has_speedup, is_candidate

Sureness = Literal["solid", "open", "rough", "doubtful"]
"""How far to trust an answer: to the last percent; to choose by; as a first look; not at all."""

MOST_NAMED = 3
"""Of methods that are tied, or faster and not to be deployed, so many are named in the answer; the table has all."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing to know about the answer: what it is about, the figure to remember, and what stands behind it."""

    term: str
    figure: str
    detail: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What one block says. `verb` and `name` are what to do, `sentence` by how much, with the interval; `ratio` is that
    in short."""

    verb: str
    name: str
    ratio: str
    sentence: str
    facts: tuple[Fact, ...]
    sureness: Sureness
    doubts: tuple[str, ...]
    notes: tuple[str, ...]


def answer(rows: Sequence[Row], run: Sequence[Row], choice: Choice, baseline: str) -> Answer:
    """The answer for one block: its speedup rows, those of the whole `run` (for its twins), and the choice of them."""
    winner = choice.winner
    if winner is None:
        why = "; ".join(dict.fromkeys(filter(None, map(caveats.failure_text, rows)))) or "nothing was measured yet"
        return Answer(
            "No answer:", "", "", f"{baseline} has no result to compare with ({why}).", (), "doubtful", (), ()
        )
    why_not = tuple(doubts(rows, run))
    rough = tuple(roughness(winner, choice))
    sureness: Sureness = (
        "doubtful" if why_not else "rough" if one_replica(winner, choice) else "open" if rough else "solid"
    )
    return Answer(
        verb="Stay with" if winner.is_baseline else "Deploy",
        name=winner.name,
        ratio="" if winner.is_baseline else ratio_text(winner.speedup),
        sentence=_sentence(winner, choice, baseline),
        facts=tuple(_facts(winner, choice, rows, baseline)),
        sureness=sureness,
        doubts=(*why_not, *rough),
        notes=tuple(_notes(winner, choice)),
    )


def times_text(ratio: Ratio, other: str = "") -> str:
    """A speedup in a sentence: `1.21 times as fast as pytorch (95 % interval 1.17 to 1.25)`."""
    found = f"{factor_text(ratio.speedup)} times as fast{f' as {other}' if other else ''}"
    if ratio.low is None or ratio.high is None:
        return found
    return f"{found} (95 % interval {end_text(ratio.low)} to {end_text(ratio.high)})"


def lengths_text(lengths: Sequence[int]) -> str:
    """`at 64 tokens` or `over 64, 128 and 256 tokens`."""
    if len(lengths) == 1:
        return f"at {lengths[0]} tokens"
    return f"over {', '.join(map(str, lengths[:-1]))} and {lengths[-1]} tokens"


def _sentence(winner: Entrant, choice: Choice, baseline: str) -> str:
    over = lengths_text(choice.lengths)
    if not winner.is_baseline:
        mean = " (geometric mean)" if len(choice.lengths) > 1 else ""
        return f"It is {times_text(winner.speedup, baseline)}, {over}{mean}."
    if len(choice.entrants) < 2:
        return f"Nothing else was measured {over}."
    return f"No other method that may be deployed is shown to be faster {over}."


def _facts(winner: Entrant, choice: Choice, rows: Sequence[Row], baseline: str) -> Iterator[Fact]:
    yardstick = next((each for each in choice.entrants if each.is_baseline), None)
    if winner.is_baseline:
        timed = packs.pooled(row for row in rows if row.get("role") == "baseline" and has_speedup(row))
        winner = replace(winner, rows=tuple(row for row in timed if row["length"] in choice.lengths))
    yield _latency(winner)
    yield from _accuracy(winner)
    yield from _size(winner, yardstick, rows)
    yield from _start(winner)
    yield from _runner_up(choice, baseline)
    yield from _twin(rows)


def _latency(winner: Entrant) -> Fact:
    first, last = winner.rows[0], winner.rows[-1]
    figure = milliseconds_text(first["latency_p50_ns"] / 1e6)
    detail = f"median at {first['length']} tokens{_instead_of(first)}"
    if last is not first:
        detail += f"; {milliseconds_text(last['latency_p50_ns'] / 1e6)} at {last['length']}{_instead_of(last)}"
    return Fact("Latency", figure, detail)


def _instead_of(row: Row) -> str:
    """The latency of the baseline that the row's speedup is over: that of its own pack, in the same rounds."""
    baseline_ns = row.get("baseline_p50_ns")
    if not is_candidate(row) or baseline_ns is None:
        return ""
    return f" instead of {milliseconds_text(baseline_ns / 1e6)}"


def _accuracy(winner: Entrant) -> Iterator[Fact]:
    if winner.accuracy is None:
        return
    row = next((row for row in winner.rows if row.get("accuracy") is not None), winner.rows[0])
    texts = f"{grouped_text(row['accuracy_n'])} held-out texts" if row.get("accuracy_n") else "held-out texts"
    figure, change = f"{100 * winner.accuracy:.2f} %", winner.accuracy_change
    if winner.is_baseline:
        detail = f"right on {texts}"
    elif change is None:
        detail = f"right on the same of {texts} as the baseline"
    else:
        detail = f"{change_text(change)} points against the baseline, on {texts}"
    yield Fact("Accuracy", figure, detail)


def _size(winner: Entrant, baseline: Entrant | None, rows: Sequence[Row]) -> Iterator[Fact]:
    if winner.artifact_bytes is None:
        return
    other = None if winner.is_baseline or baseline is None else baseline
    detail = f"on disk{winner.footprint.over_lengths}{_instead(other.artifact_bytes if other else None)}"
    if winner.peak_rss_bytes is not None:
        memory = f"{winner.peak_rss_bytes / 1e6:.0f} MB of memory at most"
        # Of every pack, as in the tables.
        peaks = [row["peak_rss_bytes"] for row in rows if row.get("role") == "baseline" and row.get("peak_rss_bytes")]
        detail += f"; {memory}{_instead(max(peaks, default=None) if other else None)}"
    yield Fact("Size", f"{winner.artifact_bytes / 1e6:.0f} MB", detail)


def _instead(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f" instead of {size_bytes / 1e6:.0f} MB"


def _start(winner: Entrant) -> Iterator[Fact]:
    figures = figures_of(winner.rows)
    if "load_s" not in figures:
        return
    prepare_s = winner.footprint.prepare_s
    prepared = f"prepared once in {figure_text(prepare_s)} s" if prepare_s else ""
    broken_even = [row["break_even_calls"] for row in winner.rows if row.get("break_even_calls") is not None]
    paid = f"paid off after {grouped_text(max(broken_even))} calls" if broken_even else ""
    detail = "; ".join(part for part in ("to load", prepared, paid) if part)
    yield Fact("Start-up", f"{figure_text(figures['load_s'][1])} s", detail)


def _runner_up(choice: Choice, baseline: str) -> Iterator[Fact]:
    second = choice.runner_up
    if second is None:
        return
    if second is choice.leader:
        yield Fact(
            "Next best", second.name, f"{ratio_text(second.speedup)} over {baseline}, which may be chance: a tie"
        )
        return
    longer = f"takes {_percent_ends(choice.leads[second.name])} longer"
    yield Fact(
        "Next best", second.name, f"{longer}, which may be chance: a tie" if second.name in choice.ties else longer
    )


def _twin(rows: Sequence[Row]) -> Iterator[Fact]:
    twins = [row for row in rows if row.get("role") == "twin" and has_speedup(row)]
    if twins:
        mean = geometric_mean_ratio(twins, same_within=0.0)
        ends = "" if mean.low is None else f"[{mean.low:.3f}, {mean.high:.3f}]; "
        yield Fact("A/A twin", f"{mean.speedup:.3f}x", f"{ends}the baseline against itself, which ought to be 1")


def _percent_ends(lead: Ratio) -> str:
    """`10 % [5, 17]`: by how much the other one's calls take longer."""
    found = f"{100 * (lead.speedup - 1):.1f} %"
    if lead.low is None or lead.high is None:
        return found
    return f"{found} [{100 * (lead.low - 1):+.1f}, {100 * (lead.high - 1):+.1f}]"


def _notes(winner: Entrant, choice: Choice) -> Iterator[str]:
    tied = [name for name in choice.ties if name != winner.name]
    if choice.leader is not None and choice.leader is not winner:
        lead = choice.leads[winner.name]
        yield f"{choice.leader.name} came out fastest, by {_percent_ends(lead)}, which could be chance."
    elif tied:
        yield f"This run cannot tell it from {_few(tied)}: choose among them by size, memory or what you run already."
    faster = [each for each in choice.entrants if each.speedup.speedup > winner.speedup.speedup and each.fails_gate]
    for each in faster[:MOST_NAMED]:
        yield f"{each.name} is {times_text(each.speedup)}, but {choice.left_out[each.name]}."
    incomplete = {name: why for name, why in choice.left_out.items() if why.startswith("no speedup")}
    if incomplete:
        yield f"Left out, without a result at every length: {_few(list(incomplete))}."


def _few(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
