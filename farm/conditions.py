"""What the guards saw over a whole run, and what to do about it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from farm import guards
from tasks.sentinels import USUAL

Row = Mapping[str, Any]
"""One row of MEASUREMENT_SCHEMA; a column that is missing or null is unknown."""

OWN_RATIO = 0.06
"""The farm and Ray promise to use less than 6 % of one core beside a turn: Ray's services take about 5 %, the cohort's
process the rest while it waits."""

_SEVERITY = {"steal": "round_steal_ratio", "foreign-cpu": "round_foreign_ratio"}
"""The columns that say how much there was of what a reason names."""

_WATCHED = {
    "stolen time": "round_steal_ratio",
    "other programs' CPU time": "round_foreign_ratio",
    "throttling": "round_throttled_ns",
    "major page faults": "round_major_faults",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know about the machine, and in one sentence what to do about it."""

    what: str
    advice: str


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which conditions a run was measured. None is what nobody recorded: unknown, not fine.

    Ratios are medians over all turns: `own_ratio` of one core's time, `foreign_ratio` of the slot's.
    """

    rounds: int
    disturbed: int | None = None
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Rounds by what disturbed them, the most frequent first."""
    worst: Mapping[str, float] = field(default_factory=dict)
    """The largest share of the slot's time that such a reason took in any turn."""
    own_ratio: float | None = None
    foreign_ratio: float | None = None
    states: Mapping[str, int] = field(default_factory=dict)
    """Rounds by the machine's state, where a sentinel told it."""
    unread: tuple[str, ...] = ()
    """What the guards watch and this platform does not tell."""

    @property
    def disturbed_share(self) -> float | None:
        """Disturbed rounds over all rounds, or None where nobody watched."""
        return None if self.disturbed is None or not self.rounds else self.disturbed / self.rounds


def observe(rows: Sequence[Row]) -> Conditions:
    """The conditions of a run from its measurements. A round is disturbed where any of its turns was."""
    reasons = _by_round(rows, "round_taint_reasons")
    told = Counter(reason for given in reasons.values() for reason in sorted(set(given)))
    states = Counter(state for given in _by_round(rows, "round_state").values() for state in sorted(set(given)))
    return Conditions(
        rounds=len({key for row in rows for key in _round_keys(row)}),
        disturbed=sum(bool(given) for given in reasons.values()) if reasons else None,
        reasons=dict(told.most_common()),
        worst={reason: max(_values(rows, column), default=0.0) for reason, column in _SEVERITY.items()},
        own_ratio=_median(rows, "round_own_ratio"),
        foreign_ratio=_median(rows, "round_foreign_ratio"),
        states=dict(states.most_common()),
        unread=tuple(
            name for name, column in _WATCHED.items() if reasons and not any(True for _ in _values(rows, column))
        ),
    )


def find(conditions: Conditions) -> tuple[Finding, ...]:
    """What of the conditions deserves attention, each with advice; nothing for a quiet machine."""
    found = [Finding(_told(conditions, reason), guards.advice(reason)) for reason in conditions.reasons]
    moved = {state: rounds for state, rounds in conditions.states.items() if state != USUAL}
    if moved:
        named = ", ".join(f"{state} ({rounds} of {conditions.rounds} rounds)" for state, rounds in moved.items())
        found.append(Finding(f"the machine changed its speed: {named}", _MOVED_ADVICE))
    if conditions.own_ratio is not None and conditions.own_ratio >= OWN_RATIO:
        share = f"{100 * conditions.own_ratio:.1f} % of a core; under {100 * OWN_RATIO:.0f} % is promised"
        found.append(Finding(f"the farm and Ray themselves used {share}", _OWN_ADVICE))
    if conditions.disturbed is None:
        found.append(Finding("nobody watched for disturbances", _UNWATCHED_ADVICE))
    elif conditions.unread:
        found.append(Finding(f"this platform does not tell: {', '.join(conditions.unread)}", _UNREAD_ADVICE))
    return tuple(found)


_MOVED_ADVICE = (
    "somebody else's load on the host, or a clock that follows the temperature: measure at another hour or on a host "
    "of your own, and read speedups by state"
)
_OWN_ADVICE = "measure on a private Ray (without --address), with no dashboard open, or leave it a core of its own"
_UNWATCHED_ADVICE = "the guards' columns are empty: whether anybody disturbed this check is unknown"
_UNREAD_ADVICE = "a disturbance of that kind would go unseen: rely on the A/A twin, and on Linux where you can"


def _told(conditions: Conditions, reason: str) -> str:
    worst = conditions.worst.get(reason, 0.0)
    much = f", up to {100 * worst:.0f} % of the slot's time" if worst else ""
    return f"{reason} in {conditions.reasons[reason]} of {conditions.rounds} rounds{much}"


def _by_round(rows: Iterable[Row], column: str) -> dict[tuple[Any, ...], list[str]]:
    """All words that any cell's row has for a round, by round; rounds without an entry are left out."""
    words: dict[tuple[Any, ...], list[str]] = {}
    for row in rows:
        for key, entry in zip(_round_keys(row), row.get(column) or (), strict=False):
            if entry is not None:
                words.setdefault(key, []).extend([entry] if isinstance(entry, str) else entry)
    return words


def _round_keys(row: Row) -> Iterator[tuple[Any, ...]]:
    """What tells rounds apart, for each entry of the row's lists: the cells of a round share the time it began."""
    return ((row.get("cohort"), row.get("replica"), began) for began in row.get("round_started_unix_ns") or ())


def _values(rows: Iterable[Row], column: str) -> Iterator[float]:
    return (value for row in rows for value in row.get(column) or () if value is not None)


def _median(rows: Iterable[Row], column: str) -> float | None:
    values = list(_values(rows, column))
    return median(values) if values else None
