"""How many rounds and replicas: what an effort allows, and how a budget is shared out. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from farm import stats
from farm.records import Cohort
from farm.variance import VarianceParts, best_rounds, pooled_parts, variance_parts


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

    @property
    def pilot(self) -> int:
        """Replicas of Stein's first stage: all that the effort begins with, as each adds a degree of freedom.

        Judged by ten rather than by five of them, intervals of as many replicas are a sixth narrower on average.
        """
        return max(self.replicas, stats.PILOT_REPLICAS)


EFFORTS: Mapping[str, Effort] = {
    # One replica of everything: an answer within three minutes, set-up included, so its turns are short and its rounds
    # many. With more time turns are longer: each begins with a call that is thrown away, a quarter of a turn of three
    # calls, a sixth of one of five, an eighth of one of seven.
    "quick": Effort(replicas=1, most_replicas=1, most_rounds=16, half_width=0.02, budget_s=160, turn_calls=3),
    "standard": Effort(replicas=5, most_replicas=10, most_rounds=60, half_width=0.02, budget_s=1500, turn_calls=7),
    "rigorous": Effort(replicas=10, most_replicas=30, most_rounds=100, half_width=0.01, budget_s=None, turn_calls=7),
}

LEAST_ROUNDS = 4
"""Two pairs of a round and its reverse: fewer give no spread to speak of."""

MOST_REPEATED = 0.25
"""Disturbed rounds are repeated by up to a quarter of the rounds wanted: on a bad day the budget must still do."""

MOST_TAINTED = 0.5
"""Where more than half of the rounds are disturbed, repeating them is no remedy."""

SAME_MARGIN_FACTOR = 1.5
"""`same` means a difference below 1.5 times the half-width that the effort aims at."""

WEIGHT_BASE_TOKENS = 256
"""A cohort's set-up costs about what rounds over this many tokens cost (imports, loading, three calls each)."""


AFTER_PILOT_SHARE = 0.1
"""The part of a budget held back for the replicas that the pilots turn out to need."""


def same_margin(effort: str) -> float:
    """The margin, as a fraction, within which an interval is called `same`, where a suite names none."""
    return SAME_MARGIN_FACTOR * EFFORTS.get(effort, EFFORTS["standard"]).half_width


def weight(cohort: Cohort) -> float:
    """The share of a budget that one replica of this cohort should get, in arbitrary units."""
    tokens = cohort.workload.length * cohort.workload.batch_size
    return (WEIGHT_BASE_TOKENS + tokens) * len(cohort.cells)


def budget_share(cohort: Cohort, waiting_weight: float, slots: int = 1) -> float:
    """The fraction of the time left that this replica may take, when others of that weight wait for as many slots."""
    return weight(cohort) / (weight(cohort) + waiting_weight / max(1, slots))


def spendable_s(effort: Effort, budget_s: float | None, left_s: float | None, pilot_waiting: bool) -> float | None:
    """How much of the time left may be shared out now.

    While pilots are still to come, some is held back: only they tell how many replicas more are needed.
    """
    if budget_s is None or left_s is None:
        return None
    reserve_s = AFTER_PILOT_SHARE * budget_s if pilot_waiting and effort.most_replicas > effort.replicas else 0.0
    return max(0.0, left_s - reserve_s)


def replica_share_s(spendable_s: float, fraction: float, usual_s: float | None) -> float:
    """Seconds that a replica may take: its fraction of what may be spent now, but no less than one usually takes.

    `usual_s` is what the cohort's replicas took so far, None before the first. Many replicas cut short would spend on
    set-up what fewer whole ones spend on rounds, so where time runs out it is replicas that are missing.
    """
    return max(fraction * spendable_s, min(usual_s or 0.0, spendable_s))


def worth_starting(left_s: float | None, usual_s: float | None) -> bool:
    """Whether the time left is enough for at least half of what a replica of the cohort usually takes."""
    return left_s is None or left_s > (usual_s or 0.0) / 2


def known_parts(
    log_ratios_per_cell: Sequence[Sequence[stats.FloatArray]], pilot: int = stats.PILOT_REPLICAS
) -> VarianceParts:
    """What the replicas so far tell of a cohort's variances; each cell has one array of log ratios per replica.

    How rounds differ shows after one replica. How processes differ is believed only once the `pilot` is complete: until
    then, and before the first replica, stored values stand in.
    """
    parts = [variance_parts(replicas) for replicas in log_ratios_per_cell if any(len(rounds) for rounds in replicas)]
    if not parts:
        return VarianceParts(stats.BETWEEN_PROCESS_SD**2, stats.ROUND_SD**2, 0)
    pooled = pooled_parts(parts)
    complete = pooled.replicas >= pilot
    return pooled if complete else replace(pooled, between=stats.BETWEEN_PROCESS_SD**2)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one replica may take, given what its set-up took: `share_s` seconds for both, or None for no limit."""

    effort: Effort
    parts: VarianceParts
    setup_s: float
    share_s: float | None

    def another_round(self, rounds_s: Sequence[float], tainted: int, elapsed_s: float) -> bool:
        """Whether to run one more round, given how long each one took and how many were disturbed so far."""
        return self.rounds_ahead(rounds_s, tainted, elapsed_s) > 0

    def rounds_ahead(self, rounds_s: Sequence[float], tainted: int, elapsed_s: float) -> int:
        """How many more rounds to run, as far as can be said now, given how long each one took and how many were
        disturbed so far.

        Never looks at what was measured. The number stays even unless time runs out, as rounds cancel drift in pairs.
        Disturbed rounds are repeated, up to a quarter more than wanted; a machine that disturbs more than half of
        them would disturb their repetitions too.
        """
        done = len(rounds_s)
        if done < LEAST_ROUNDS:
            return LEAST_ROUNDS - done
        mean_s = sum(rounds_s) / done
        wanted = self._wanted_rounds(mean_s)
        repeated = 0 if tainted > MOST_TAINTED * done else min(tainted, int(MOST_REPEATED * wanted))
        left, left_s = wanted + repeated - done, self.left_s(elapsed_s)
        if left <= 0 or left_s is None:
            return max(0, left)
        fitting = min(left, max(0, int(left_s / mean_s)))
        # One alone is run only where it completes a pair.
        return fitting if (done + fitting) % 2 == 0 else fitting - 1

    def left_s(self, elapsed_s: float) -> float | None:
        """Seconds left, `elapsed_s` after set-up ended; None for no limit."""
        return None if self.share_s is None else self.share_s - self.setup_s - elapsed_s

    def divided(self, parts: int) -> Allowance:
        """The same for one of so many equal parts of the time after set-up."""
        left_s = self.left_s(0.0)
        return replace(self, share_s=None if left_s is None else self.setup_s + left_s / max(1, parts))

    def _wanted_rounds(self, round_s: float) -> int:
        """More rounds where rounds differ, more replicas where processes do; a single replica takes all it may."""
        if self.effort.most_replicas == 1:
            return self.effort.most_rounds
        return best_rounds(self.parts, self.setup_s, round_s, LEAST_ROUNDS, self.effort.most_rounds)
