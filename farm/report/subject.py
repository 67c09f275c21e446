"""What one block of the report is about: its rows, the choice they lead to, and which methods get a colour. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from farm.choice import Choice, choose
from farm.ratios import Row, has_speedup
from farm.report import traces
from farm.report.theme import SERIES
from farm.report.traces import Distribution, MachineRound, Turns


@dataclass(frozen=True, slots=True)
class Subject:
    """One block: speedup rows, what was measured behind them, and what to do.

    `order` has all methods that have a speedup anywhere, fastest first; `focus` those with a colour of their own, the
    one to deploy first.
    """

    rows: tuple[Row, ...]
    distributions: tuple[Distribution, ...]
    turns: tuple[Turns, ...]
    machine: tuple[MachineRound, ...]
    tails: Mapping[tuple[str, int], str]
    """The end of a failed cell's own error output, by name and length."""
    choice: Choice
    baseline: str
    order: tuple[str, ...]
    focus: tuple[str, ...]
    same_within: float

    @property
    def lengths(self) -> tuple[int, ...]:
        """Every length of which there is a row."""
        return tuple(sorted({row["length"] for row in self.rows}))

    @property
    def timed(self) -> list[Row]:
        """The rows that have a speedup, the baseline's among them, the twin's not; in the order of the methods."""
        place = {name: at for at, name in enumerate(self.order)}
        found = [row for row in self.rows if row.get("role") != "twin" and has_speedup(row)]
        return sorted(found, key=lambda row: (place[row["name"]], row["length"]))

    @property
    def winner(self) -> str | None:
        """The method to deploy."""
        return self.choice.winner.name if self.choice.winner else None


def make_subject(rows: Sequence[Row], measured: Iterable[Row], same_within: float) -> Subject:
    """The subject of one block's speedup rows and measurement rows (columns of `traces.COLUMNS`)."""
    taken = tuple(measured)
    choice = choose(rows)
    timed = [row for row in rows if row.get("role") != "twin" and has_speedup(row)]
    ranked = [each.name for each in choice.entrants]
    best = {
        name: max(row["speedup"] for row in timed if row["name"] == name) for name in {row["name"] for row in timed}
    }
    partly = sorted((name for name in best if name not in ranked), key=lambda name: -best[name])
    order = (*ranked, *partly)
    baseline = next((row["name"] for row in rows if row.get("role") == "baseline"), "the baseline")
    return Subject(
        rows=tuple(rows),
        distributions=tuple(traces.distributions(taken)),
        turns=tuple(traces.turns(taken)),
        machine=tuple(traces.machine_rounds(taken)),
        tails={(row["name"], row["length"]): row["error_tail"] for row in taken if row.get("error_tail")},
        choice=choice,
        baseline=baseline,
        order=order,
        focus=_focus(choice, order, baseline, rows),
        same_within=same_within,
    )


def _focus(choice: Choice, order: Sequence[str], baseline: str, rows: Sequence[Row]) -> tuple[str, ...]:
    """The one to deploy, the baseline, the fastest of each runtime, then the fastest, as many as there are colours."""
    methods: Mapping[str, str] = {row["name"]: str(row.get("method") or row["name"]) for row in rows}
    of_runtime: dict[str, str] = {}
    for name in order:
        of_runtime.setdefault(methods[name].partition("-")[0], name)
    winner = [choice.winner.name] if choice.winner else []
    leader = [choice.leader.name] if choice.leader else []
    first = [*winner, *([baseline] if baseline in order else []), *leader, *of_runtime.values(), *order]
    return tuple(dict.fromkeys(first))[: len(SERIES)]
