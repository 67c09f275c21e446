"""How many rounds and replicas: what an effort allows, and how a budget is shared out. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from farm.records import Cohort


@dataclass(frozen=True, slots=True)
class Effort:
    """What an effort promises. `half_width` is the target for a speedup's 95 % interval, as a fraction.

    `turn_calls` is the least number of samples in a turn.
    """

    replicas: int
    most_replicas: int
    most_rounds: int
    half_width: float
    budget_s: float | None
    turn_calls: int


EFFORTS: Mapping[str, Effort] = {
    # One replica of everything: an answer within three minutes, set-up included.
    "quick": Effort(replicas=1, most_replicas=1, most_rounds=16, half_width=0.02, budget_s=160, turn_calls=3),
    "standard": Effort(replicas=5, most_replicas=10, most_rounds=20, half_width=0.02, budget_s=1500, turn_calls=5),
    "rigorous": Effort(replicas=10, most_replicas=30, most_rounds=40, half_width=0.01, budget_s=None, turn_calls=5),
}

LEAST_ROUNDS = 4
"""Two pairs of a round and its reverse: fewer give no spread to speak of."""

SAME_MARGIN_FACTOR = 1.5
"""`same` means a difference below 1.5 times the half-width that the effort aims at."""

WEIGHT_BASE_TOKENS = 256
"""A cohort's set-up costs about what rounds over this many tokens cost (imports, loading, three calls each)."""


AFTER_PILOT_SHARE = 0.3
"""The part of a budget held back for the replicas that the pilots turn out to need."""


def same_margin(effort: str) -> float:
    """The margin, as a fraction, within which an interval is called `same`, where a suite names none."""
    return SAME_MARGIN_FACTOR * EFFORTS.get(effort, EFFORTS["standard"]).half_width


def weight(cohort: Cohort) -> float:
    """The share of a budget that one replica of this cohort should get, in arbitrary units."""
    tokens = cohort.workload.length * cohort.workload.batch_size
    return (WEIGHT_BASE_TOKENS + tokens) * len(cohort.cells)


def budget_share(cohort: Cohort, waiting: Sequence[Cohort], slots: int = 1) -> float:
    """The fraction of the time left that this replica may take, when `waiting` replicas share it on `slots` slots."""
    others = sum(weight(other) for other in waiting) / max(1, slots)
    return weight(cohort) / (weight(cohort) + others)


def spendable_s(effort: Effort, budget_s: float | None, left_s: float | None, pilot_waiting: bool) -> float | None:
    """How much of the time left may be shared out now.

    While pilots are still to come, some is held back: only they tell how many replicas more are needed.
    """
    if budget_s is None or left_s is None:
        return None
    reserve_s = AFTER_PILOT_SHARE * budget_s if pilot_waiting and effort.most_replicas > effort.replicas else 0.0
    return max(0.0, left_s - reserve_s)


def another_round(effort: Effort, rounds_s: Sequence[float], elapsed_s: float, share_s: float | None) -> bool:
    """Whether to run one more round, given how long each one took so far. Never looks at what was measured.

    The number stays even unless time runs out, as rounds cancel drift in pairs.
    """
    done = len(rounds_s)
    if done < LEAST_ROUNDS:
        return True
    if done >= effort.most_rounds:
        return False
    mean_s = sum(rounds_s) / done
    ahead = 2 if done % 2 == 0 else 1
    return share_s is None or elapsed_s + ahead * mean_s <= share_s
