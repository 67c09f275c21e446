"""Whether a machine measures honestly, judged from a run whose true ratios are known. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from farm import conditions, stats
from farm.conditions import Conditions, Finding
from farm.ratios import has_speedup, log_ratios_of
from farm.uncertainty import within_variance

Row = Mapping[str, Any]

FALSE_ALARMS = 0.05
"""An honest machine fails at most once in twenty checks: the intervals hold jointly (Bonferroni), not one by one."""

MOST_DISTURBED = 0.5
"""Where more than half of all rounds are disturbed, leaving them out leaves too little."""

COARSE = 0.02
"""Resolution beyond 2 %, the half-width that standard effort aims at, is worth a word."""


@dataclass(frozen=True, slots=True)
class Known:
    """A cell whose true time is known: `slowdown` is that time over the baseline's, 1 for the A/A twin."""

    name: str
    what: str
    slowdown: float


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was found of something known: time over the baseline's, with its interval; None where `problem` says why.

    The intervals of a check's recoveries all hold what is known in 95 of 100 checks of an honest machine.
    `half_width` is that of an ordinary 95 % interval, a fraction.
    """

    known: Known
    found: float | None = None
    low: float | None = None
    high: float | None = None
    half_width: float | None = None
    problem: str = ""

    @property
    def held(self) -> bool:
        """Whether the interval holds what is known."""
        return self.low is not None and self.high is not None and self.low <= self.known.slowdown <= self.high


@dataclass(frozen=True, slots=True)
class Evidence:
    """One run of known cells: rows of SPEEDUP_SCHEMA and of MEASUREMENT_SCHEMA."""

    speedups: Sequence[Row]
    measurements: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Orders:
    """By how much one replica's ratio was off, as a fraction: root mean square over so many ratios, by order."""

    interleaved: float
    interleaved_ratios: int
    blocked: float
    blocked_ratios: int


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """What a self-check found. `replicas` of `wanted` were measured, in `seconds` altogether.

    `round_spread` is the standard deviation of single rounds' log ratios of the A/A twin around their replica's mean.
    """

    recoveries: tuple[Recovery, ...]
    conditions: Conditions
    orders: Orders | None
    replicas: int
    wanted: int
    round_spread: float | None
    seconds: float

    @property
    def resolution(self) -> float | None:
        """The smallest difference that can be told from none here, a fraction: a typical interval's half-width."""
        widths = [each.half_width for each in self.recoveries if each.half_width is not None]
        return median(widths) if widths else None

    @property
    def faults(self) -> tuple[str, ...]:
        """Why this machine cannot be trusted to measure; none where it can."""
        told = [_fault(each) for each in self.recoveries if not each.held]
        share = self.conditions.disturbed_share
        if share is not None and share > MOST_DISTURBED:
            told.append(f"{self.conditions.disturbed} of {self.conditions.rounds} rounds were disturbed")
        return tuple(told)

    @property
    def honest(self) -> bool:
        """Whether the intervals of this machine hold what they promise."""
        return not self.faults

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What else is worth knowing, with advice."""
        found = list(conditions.find(self.conditions))
        if self.replicas < self.wanted:
            what = f"{self.replicas} of {self.wanted} sets of processes were measured in the time there was"
            found.append(Finding(what, _SHORT_ADVICE))
        if self.resolution is not None and self.resolution > COARSE and self.round_spread is not None:
            what = f"rounds of the very same work differ by {100 * self.round_spread:.1f} % (standard deviation)"
            found.append(Finding(what, _COARSE_ADVICE))
        if any(each.found is not None and not each.held for each in self.recoveries):
            found.append(Finding("an interval missed what is known", _MISSED_ADVICE))
        return tuple(found)


_SHORT_ADVICE = "the machine is slow or busy: give it more time with --effort standard"
_COARSE_ADVICE = (
    "where no guard saw a reason, it is a neighbour on the host or a changing clock: measure at another hour, on a "
    "host of your own or at a fixed frequency, or give it more time with --effort standard"
)
_MISSED_ADVICE = (
    "repeat the check: one honest machine in twenty misses by chance; if it misses again, something slows one process "
    "and not another (SMT, power limits, a neighbour): measure elsewhere, and do not trust intervals from here"
)


def judge(
    known: Sequence[Known], interleaved: Evidence, blocked: Evidence | None, wanted: int, seconds: float
) -> SelfCheck:
    """Judge a run of known cells, and what blocked order made of them; `wanted` replicas were asked for."""
    recoveries = recover(known, interleaved.speedups)
    twins = [row for row in interleaved.speedups if row.get("role") == "twin" and has_speedup(row)]
    spread = within_variance(log_ratios_of(twins[0])) if twins else None
    return SelfCheck(
        recoveries=recoveries,
        conditions=conditions.observe(interleaved.measurements),
        orders=None if blocked is None else compare_orders(known, interleaved.speedups, blocked.speedups),
        replicas=max((row.get("replicas") or 0 for row in interleaved.speedups), default=0),
        wanted=wanted,
        round_spread=None if spread is None else math.sqrt(spread),
        seconds=seconds,
    )


def recover(known: Sequence[Known], speedups: Sequence[Row]) -> tuple[Recovery, ...]:
    """What was found of each known cell, with intervals that hold jointly: each at 1 - 0.05 / their number."""
    rows = {row["name"]: row for row in speedups}
    confidence = 1 - FALSE_ALARMS / max(1, len(known))
    return tuple(_recovery(each, rows.get(each.name), confidence) for each in known)


def compare_orders(known: Sequence[Known], interleaved: Sequence[Row], blocked: Sequence[Row]) -> Orders | None:
    """How far off single replicas were in both orders; None where either has no ratio."""
    errors = [_errors(known, rows) for rows in (interleaved, blocked)]
    if not all(errors):
        return None
    sizes = [math.expm1(math.sqrt(float(np.mean(np.square(each))))) for each in errors]
    return Orders(sizes[0], len(errors[0]), sizes[1], len(errors[1]))


def _recovery(known: Known, row: Row | None, confidence: float) -> Recovery:
    if row is None or not has_speedup(row):
        reasons = "; ".join(row.get("reasons") or ()) if row else ""
        return Recovery(known, problem=reasons or "was not measured")
    ratios = log_ratios_of(row)
    # Their number was fixed beforehand, so all of them say how they differ.
    joint, plain = (
        stats.estimate(ratios, pilot=len(ratios), confidence=each) for each in (confidence, stats.CONFIDENCE)
    )
    half_width = math.sqrt(plain.high / plain.low) - 1
    return Recovery(known, 1 / joint.speedup, 1 / joint.high, 1 / joint.low, half_width)


def _errors(known: Sequence[Known], rows: Sequence[Row]) -> list[float]:
    """Mean log ratio of every replica of every known cell, less the true one."""
    by_name = {row["name"]: row for row in rows if has_speedup(row)}
    return [
        float(replica.mean()) + math.log(each.slowdown)
        for each in known
        if each.name in by_name
        for replica in log_ratios_of(by_name[each.name])
        if len(replica)
    ]


def _fault(recovery: Recovery) -> str:
    what = recovery.known.what
    return f"{what}: {recovery.problem}" if recovery.problem else f"{what}: the interval does not hold the truth"
