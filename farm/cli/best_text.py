"""The method to deploy, as terminal text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from farm.best import Verdict
from farm.choice import Choice, Entrant
from farm.figures import figures_of
from farm.numerals import change_text, figure_text, milliseconds_text, ratio_text


def to_rich(verdicts: Sequence[Verdict], run: str) -> Group:
    """For `console.print`: for each block the answer first, then what it was chosen from, then what was ruled out."""
    parts: list[RenderableType] = [Text(f"run {run}")]
    for verdict in verdicts:
        answer, *rest = lines(verdict)
        parts += ["", Text(verdict.title, style="bold"), Text(_calls(verdict)), "", Text(answer, style="bold")]
        if verdict.choice.entrants:
            parts += ["", _table(verdict), ""]
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
        yield from (f"  {name}: {why}." for name, why in choice.left_out.items())
    if (fastest := verdict.fastest_ruled_out) is not None:
        entrant, ratio = fastest
        yield f"What the limits cost: {entrant.name} is {ratio:.2f} times as fast as what they leave."


def _calls(verdict: Verdict) -> str:
    shares = verdict.shares
    if len(set(shares.values())) == 1:
        return f"Lengths {', '.join(map(str, shares))}, all alike" if len(shares) > 1 else f"Length {min(shares)}"
    return f"Calls: {', '.join(f'{100 * share:.3g} % of {length} tokens' for length, share in shares.items())}"


def _price(verdict: Verdict, entrant: Entrant) -> str:
    """Latency, speedup and what it takes, as far as known."""
    figures = figures_of(entrant.rows)
    parts = [f"{milliseconds_text(verdict.call_ms(entrant))} a call on average"]
    if not entrant.is_baseline:
        parts.append(f"{ratio_text(entrant.speedup)} over {_baseline(verdict.choice)}")
    if entrant.accuracy_change is not None:
        parts.append(f"accuracy {change_text(entrant.accuracy_change)} points")
    if entrant.artifact_bytes is not None:
        parts.append(f"{entrant.artifact_bytes / 1e6:.0f} MB")
    if "prepare_s" in figures and figures["prepare_s"][1]:
        parts.append(f"prepared in {figure_text(figures['prepare_s'][1])} s")
    return ", ".join(parts)


def _against_others(verdict: Verdict, winner: Entrant) -> Iterator[str]:
    choice, leader = verdict.choice, verdict.choice.leader
    if leader is None:
        return
    if winner.is_baseline and winner is not leader:
        yield f"No method is shown to be faster than {winner.name}, which takes no preparing: that one, then."
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
    lead = ratio_text(choice.leads[second.name])
    if second.name in choice.ties:
        return f"Runner-up: {second.name}. It lost within the noise: {leader.name} came out {lead} as fast."
    return f"Runner-up: {second.name}. It lost by speed: {leader.name} is {lead} as fast."


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
