"""Why an answer should not be built on, or is good for a first look only: the same wherever one is given. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from farm import caveats, disturbances, packs, stats
from farm.choice import Choice, Entrant
from farm.ratios import Row, has_speedup, is_unresolved


def doubts(rows: Sequence[Row], run: Sequence[Row]) -> Iterator[str]:
    """Why the numbers of a block should not be built on; all twins of the `run` (its rows) are judged together."""
    apart = caveats.twins_apart(run)
    if off := packs.lengths_text((row for row in apart if any(row is twin for twin in rows)), rows):
        yield f"The baseline differs from its own twin at length {off}."
    if too := disturbances.too_disturbed(rows):
        yield f"Over half of the rounds were disturbed at length {packs.lengths_text(too, rows)}."
    if not any(row.get("role") == "twin" and has_speedup(row) for row in rows):
        yield "No A/A twin was measured, so nothing shows how far two equal processes come out apart."


def roughness(winner: Entrant, choice: Choice) -> Iterator[str]:
    """Why the answer is good for a first look only."""
    judged = choice.leader if winner.is_baseline else winner
    if one_replica(winner, choice):
        yield (
            "One set of processes was measured; how much fresh ones would differ is taken from experience, not from "
            "this machine."
        )
    elif _replicas(judged) < stats.PILOT_REPLICAS:
        yield f"Only {_replicas(judged)} sets of processes were measured: too few to tell close methods apart."
    elif judged is not None and any(map(is_unresolved, judged.rows)):
        yield "Some of its intervals are wider than the effort aimed at, so the last percent is open."


def one_replica(winner: Entrant, choice: Choice) -> bool:
    """Whether the answer rests on one set of processes, or one round."""
    judged = choice.leader if winner.is_baseline else winner
    kinds = {row.get("interval") for row in judged.rows} if judged is not None else set()
    return _replicas(judged) == 1 or bool(kinds & {"one-replica", "one-round"})


def _replicas(judged: Entrant | None) -> int:
    """How many sets of processes the least certain of its lengths rests on."""
    known = [row["replicas"] for row in judged.rows if row.get("replicas")] if judged is not None else []
    return min(known, default=stats.PILOT_REPLICAS)
