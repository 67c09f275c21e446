"""The method to deploy, as terminal text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from farm.best import Verdict
from farm.choice import Choice, Entrant
from farm.doubts import roughness
from farm.numerals import change_text, figure_text, milliseconds_text, ratio_text

_FIGURE = re.compile(r"(?<![\w.])(?<!length )\d+(?:\.\d+)?(?![\w.])")
"""A number that is neither a length nor part of a word, such as the 4 of int4 or the 99 of p99."""


def to_rich(verdicts: Sequence[Verdict], run: str) -> Group:
    """For `console.print`: for each block the answer first and what to doubt in it, then what it was chosen from, then
    what was ruled out."""
    parts: list[RenderableType] = [Text(f"run {run}")]
    for verdict in verdicts:
        answer, *rest = lines(verdict)
        parts += ["", Text(verdict.title, style="bold"), Text(_mean(verdict)), "", Text(answer, style="bold")]
        parts += [Text(line, style="yellow") for line in _distrust(verdict)]
        if verdict.choice.entrants:
            parts += ["", _table(verdict), Text(_footnote(verdict), style="dim"), ""]
        parts += [Text(line) for line in rest]
    return Group(*parts)


def lines(verdict: Verdict) -> Iterator[str]:
    """The answer, and the sentences under the table."""
    choice, winner = verdict.choice, verdict.choice.winner
    if winner is None:
        yield "Nothing to deploy: no method with a result at every length keeps the limits."
    else:
        yield f"Deploy {winner.name}: {_price(verdict, winner)}."
        yield from _against_others(verdict, winner)
    if choice.left_out:
        yield "Ruled out:"
        yield from (f"  {line}." for line in _by_reason(choice.left_out))
    if (fastest := verdict.fastest_ruled_out) is not None:
        entrant, ratio = fastest
        yield f"What the limits cost: {entrant.name} is {ratio:.2f} times as fast as what they leave."


def _by_reason(left_out: Mapping[str, str]) -> Iterator[str]:
    """Each reason once, with its methods; reasons that differ in the figures before a limit are one, with their span.

    Lengths, statuses and messages are no such figures: methods are grouped only where those are the same.
    """
    groups: dict[str, dict[str, str]] = {}
    for name, why in left_out.items():
        # A message may begin with the method's own name, which is said already.
        plain = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])", "it", why)
        as_told = plain.startswith("no speedup") or "not known" in plain
        groups.setdefault(plain if as_told else _FIGURE.sub("#", plain), {})[name] = plain
    for found in groups.values():
        whys = list(found.values())
        why = _spanned(whys) if len(found) > 1 else left_out[next(iter(found))]
        yield f"{', '.join(found)}: {why}"


def _spanned(whys: Sequence[str]) -> str:
    """The same sentence with other figures as one: `loses 0.88 to 1.18 points of accuracy, ...`."""
    figures = [sorted(set(each), key=float) for each in zip(*map(_FIGURE.findall, whys), strict=True)]
    words = _FIGURE.split(whys[0])
    spans = [each[0] if len(each) == 1 else f"{each[0]} to {each[-1]}" for each in figures]
    return "".join(part for pair in zip(words, [*spans, ""], strict=True) for part in pair)


def _distrust(verdict: Verdict) -> Iterator[str]:
    """What the report and the table say against the numbers that the answer rests on."""
    winner = verdict.choice.winner
    if winner is None:
        return
    if verdict.doubts:
        yield f"Do not build on this yet. {' '.join(verdict.doubts)}"
    if rough := " ".join(roughness(winner, verdict.choice)):
        yield rough


def _mean(verdict: Verdict) -> str:
    """What a speedup over several lengths is."""
    shares = verdict.shares
    if len(shares) == 1:
        return f"Length {min(shares)}"
    if not verdict.mixed:
        return f"Geometric mean over lengths {', '.join(map(str, shares))}"
    parts = ", ".join(f"{100 * share:.3g} % of {length} tokens" for length, share in shares.items())
    return f"Mean latency over calls, shares: {parts}"


def _footnote(verdict: Verdict) -> str:
    """What stands behind the table's milliseconds and megabytes."""
    several = len(verdict.shares) > 1
    over = " (mean over these calls)" if verdict.mixed and several else " (mean over the lengths)" if several else ""
    told = f"ms a call: modelled{over}, the median of the baseline measured beside the method over its speedup."
    if not several:
        return told
    if all(each.footprint.whole for each in verdict.choice.entrants):
        return f"{told} Size: artifacts of all lengths together; one that lengths share counts once."
    return (
        f"{told} Size: of the largest length's artifact where these results do not tell which lengths share one; else "
        "of all."
    )


def _price(verdict: Verdict, entrant: Entrant) -> str:
    """Latency, speedup and what it takes, as far as known."""
    footprint = entrant.footprint
    parts = [f"{milliseconds_text(verdict.call_ms(entrant))} a call (modelled)"]
    if not entrant.is_baseline:
        parts.append(f"{ratio_text(entrant.speedup)} over {_baseline(verdict.choice)}")
    if entrant.accuracy_change is not None:
        parts.append(f"accuracy {change_text(entrant.accuracy_change)} points")
    if entrant.artifact_bytes is not None:
        parts.append(f"{entrant.artifact_bytes / 1e6:.0f} MB{footprint.over_lengths}")
    if footprint.prepare_s:
        at_most = "" if footprint.whole else " per length at most"
        parts.append(f"prepared in {figure_text(footprint.prepare_s)} s{at_most}")
    return ", ".join(parts)


def _against_others(verdict: Verdict, winner: Entrant) -> Iterator[str]:
    choice, leader = verdict.choice, verdict.choice.leader
    if leader is None:
        return
    if winner.is_baseline and winner is not leader:
        easy = ", which takes no preparing" if winner.footprint.prepare_s == 0 else ""
        yield f"No method is shown to be faster than {winner.name}{easy}: that one, then."
    elif winner is not leader:
        shown = f"shown to be faster than {_baseline(choice)}"
        yield f"{leader.name} came out faster, but is not {shown}, as {winner.name} is."
    if choice.ties:
        named = [f"{name} ({ratio_text(choice.leads[name])})" for name in choice.ties]
        yield (
            f"Level with {leader.name}, as far as this run can tell (its lead, simultaneous 95 % intervals): "
            f"{'; '.join(named)}. Choose among them by size, accuracy or memory, or measure with more effort."
        )
    yield _runner_up(choice, leader)


def _runner_up(choice: Choice, leader: Entrant) -> str:
    """The next best and why it lost."""
    second = choice.runner_up
    if second is None:
        barred = next((each.name for each in choice.entrants if each.name in choice.left_out), None)
        if barred is None:
            return "Runner-up: none, for no other method has a result at every length."
        return f"Runner-up: {barred}, which may not be deployed: {choice.left_out[barred]}."
    if second is leader:
        over = f"{ratio_text(second.speedup)} over {_baseline(choice)}"
        return f"Runner-up: {second.name}. It came out at {over}, which may be chance."
    lead = choice.leads[second.name]
    # Wider than the table of the two alone: who leads was picked from all.
    jointly = " (interval holds for all comparisons together)" if len(choice.leads) > 1 and lead.low is not None else ""
    how = f"{ratio_text(lead)} as fast{jointly}"
    if second.name in choice.ties:
        return f"Runner-up: {second.name}. It lost within the noise: {leader.name} came out {how}."
    return f"Runner-up: {second.name}. It lost by speed: {leader.name} is {how}."


def _baseline(choice: Choice) -> str:
    return next((each.name for each in choice.entrants if each.is_baseline), "the baseline")


def _table(verdict: Verdict) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("method", "ms a call", "speedup", "accuracy %", "size MB", "memory MB", ""):
        table.add_column(heading, justify="left" if heading in ("method", "speedup", "") else "right")
    for entrant in verdict.choice.entrants:
        # As Text: a plain string's brackets would be read as markup.
        table.add_row(*map(Text, _row(verdict, entrant)))
    return table


def _row(verdict: Verdict, entrant: Entrant) -> list[str]:
    sizes = [None if each is None else each / 1e6 for each in (entrant.artifact_bytes, entrant.peak_rss_bytes)]
    return [
        entrant.name,
        milliseconds_text(verdict.call_ms(entrant)).removesuffix(" ms"),
        ratio_text(entrant.speedup),
        "-" if entrant.accuracy is None else f"{100 * entrant.accuracy:.2f}",
        *("-" if each is None else f"{each:.0f}" for each in sizes),
        _standing(verdict, entrant),
    ]


def _standing(verdict: Verdict, entrant: Entrant) -> str:
    choice = verdict.choice
    if choice.winner is not None and entrant.name == choice.winner.name:
        return "deploy"
    if entrant.name in choice.left_out:
        return "ruled out"
    return "level" if entrant.name in choice.ties or entrant is choice.leader else ""
