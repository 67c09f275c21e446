"""The method to deploy in every block of a run: what wins, what is level with it, what was ruled out and why. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from farm.choice import Choice, Entrant, choose
from farm.doubts import doubts
from farm.errors import RequestError
from farm.limits import Limits
from farm.mixes import Shares, call_ms
from farm.ratios import Row
from farm.tables import block_title, rows_by_block


@dataclass(frozen=True, slots=True)
class Verdict:
    """The choice for one hardware class, device, batch size, number of threads and kind of inputs.

    `mixed` says whether the shares of calls were given, so that speedups are of the mean latency over calls; else they
    are geometric means over the lengths, and `shares` are alike. `doubts` say why not to build on it.
    """

    title: str
    rows: tuple[Row, ...]
    shares: Shares
    limits: Limits
    choice: Choice
    mixed: bool = False
    doubts: tuple[str, ...] = ()

    def call_ms(self, entrant: Entrant) -> float:
        """Mean milliseconds of a call in the mix, modelled (`mixes.call_ms`)."""
        return call_ms(entrant.rows, self.shares)

    @property
    def fastest_ruled_out(self) -> tuple[Entrant, float] | None:
        """The fastest method that a limit rules out and how much faster it is than the winner; None if none is."""
        winner = self.choice.winner
        faster = [
            (each, each.speedup.speedup / winner.speedup.speedup)
            for each in self.choice.entrants
            if winner is not None and each.name in self.choice.left_out
        ]
        best = max(faster, key=lambda pair: pair[1], default=None)
        return best if best is not None and best[1] > 1 else None


def best_methods(speedups: pa.Table, limits: Limits, shares: Shares | None = None) -> list[Verdict]:
    """The verdict for each block of a run's speedups. Without `shares` all lengths count alike.

    Raises RequestError where a length of the mix was not measured in any block, or there is nothing to choose from.
    """
    run = speedups.to_pylist()
    blocks = rows_by_block(run)
    if not blocks:
        raise RequestError("nothing to choose from: the run has no results yet")
    measured = sorted({row["length"] for rows in blocks for row in rows})
    missing = sorted(set(shares or ()) - set(measured))
    if missing:
        raise RequestError(
            f"--lengths: {', '.join(map(str, missing))} was not measured in this run, but "
            f"{', '.join(map(str, measured))}; measure with `farm run --lengths ...`"
        )
    return [_verdict(rows, run, limits, shares) for rows in blocks]


def _verdict(rows: Sequence[Row], run: Sequence[Row], limits: Limits, shares: Shares | None) -> Verdict:
    choice = choose(rows, shares, limits)
    alike = {length: 1 / len(choice.lengths) for length in choice.lengths}
    return Verdict(
        title=block_title(rows[0]),
        rows=tuple(rows),
        shares=shares or alike,
        limits=limits,
        choice=choice,
        mixed=shares is not None,
        doubts=tuple(doubts(rows, run)),
    )
