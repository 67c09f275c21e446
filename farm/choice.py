"""Which method to deploy: the fastest within the limits, what cannot be told from it, and the Pareto front of speed,
accuracy and size. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from farm import packs, stats
from farm.direct import paired_row
from farm.footprint import Footprint, footprint_of
from farm.limits import Limits, broken_limits
from farm.mixes import Shares, time_weights, weighted_ratio
from farm.ratios import (
    FALSE_CLAIMS,
    AccuracyChange,
    Ratio,
    Row,
    accuracy_change,
    accuracy_row,
    has_speedup,
    is_candidate,
    log_ratios_of,
    pilot_of,
)

SAME_SIZE = 0.01
"""Sizes that differ by less than 1 % are one size on the Pareto front: a few names more in a graph are no reason to
prefer a method."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """A method that has a speedup at every length of its block, and its price; None is what nobody measured.

    `speedup` is the geometric mean over the lengths, or that of their mix; `rows` one row of SPEEDUP_SCHEMA for each of
    them. A baseline that was measured in several packs is one entrant: its rows are pooled over them.
    """

    name: str
    is_baseline: bool
    speedup: Ratio
    accuracy: float | None
    accuracy_change: AccuracyChange | None
    footprint: Footprint
    peak_rss_bytes: int | None
    rows: tuple[Row, ...]

    @property
    def artifact_bytes(self) -> int | None:
        """Of the artifacts of all its lengths, as far as it is known which share one."""
        return self.footprint.artifact_bytes

    @property
    def fails_gate(self) -> bool:
        """Whether it loses more accuracy than the suite allows."""
        return any(row.get("gate") == "fail" for row in self.rows)


@dataclass(frozen=True, slots=True)
class Choice:
    """What to deploy in one block (one hardware class, device, batch size, number of threads and kind of inputs).

    `entrants` are fastest first. `leads` says by how much the fastest that may be deployed is faster than each other
    one that may; those intervals hold jointly. `left_out` says why a method may not be deployed.
    """

    lengths: tuple[int, ...]
    entrants: tuple[Entrant, ...]
    leader: Entrant | None
    leads: Mapping[str, Ratio]
    left_out: Mapping[str, str]

    @property
    def ties(self) -> tuple[str, ...]:
        """Methods that may be as fast as the leader: with it they hold the truly fastest in 95 of 100 runs."""
        beaten = {each.name for each in self.entrants if each.is_baseline and self._sure}
        return tuple(
            name for name, lead in self.leads.items() if name not in beaten and (lead.low is None or lead.low <= 1)
        )

    @property
    def winner(self) -> Entrant | None:
        """What to deploy: the leader, unless it is not shown to be faster than a baseline that may stay.

        Then the fastest method that is shown to be, if the leader is not shown to be faster than that one either; the
        baseline where there is none. None without a speedup.
        """
        if self.leader is None or self.leader in self._sure:
            return self.leader
        baseline = next((each for each in self.entrants if each.is_baseline), None)
        if baseline is None or baseline.name not in self.leads:
            return self.leader
        candidate = self._sure[0] if self._sure else baseline
        return candidate if candidate.name in self.ties else self.leader

    @property
    def _sure(self) -> tuple[Entrant, ...]:
        """Those that may be deployed and are shown to be faster than the baseline: by their own intervals, as every
        table says it."""
        return tuple(
            each
            for each in self.entrants
            if each.name not in self.left_out and each.speedup.low is not None and each.speedup.low > 1
        )

    @property
    def runner_up(self) -> Entrant | None:
        """The fastest that may be deployed beside the winner."""
        return next(
            (each for each in self.entrants if each.name not in self.left_out and each is not self.winner), None
        )


def choose(rows: Sequence[Row], shares: Shares | None = None, limits: Limits | None = None) -> Choice:
    """The choice for one block of speedup rows: all lengths count alike, or by their `shares` of calls.

    A method may be deployed if it has a speedup at every length that the baseline was measured at (or that has a
    share), and keeps the `limits`. Unless those say how much accuracy may be lost, the suite's own limit holds.
    """
    methods = _by_method(rows)
    baseline = next((cells for cells in methods.values() if not is_candidate(next(iter(cells.values())))), {})
    measured = tuple(sorted(length for length, row in baseline.items() if has_speedup(row)))
    lengths = measured if shares is None else tuple(sorted(shares))
    left_out = {name: why for name, cells in methods.items() if (why := _why_incomplete(cells, lengths))}
    complete = {name: [cells[length] for length in lengths] for name, cells in methods.items() if name not in left_out}
    reference = next((rows for rows in complete.values() if not is_candidate(rows[0])), [])
    found = [_entrant(name, rows, reference, shares) for name, rows in complete.items()]
    entrants = tuple(sorted(found, key=lambda each: -each.speedup.speedup))
    left_out |= {each.name: why for each in entrants if (why := _why_forbidden(each, limits or Limits()))}
    deployable = [each for each in entrants if each.name not in left_out]
    leader = deployable[0] if deployable else None
    leads = {each.name: _lead(deployable[0], each, len(deployable) - 1, shares) for each in deployable[1:]}
    return Choice(lengths, entrants, leader, leads, left_out)


def _by_method(rows: Sequence[Row]) -> dict[str, dict[int, Row]]:
    """The row of each method at each length, twins left out; the baseline's of packs that have a result are pooled."""
    measured = {(row["name"], row["length"]) for row in rows if has_speedup(row)}
    # A method stands in one pack, the baseline in all: where it failed in one, the others still tell what it is.
    kept = [row for row in rows if has_speedup(row) or (row["name"], row["length"]) not in measured]
    methods: dict[str, dict[int, Row]] = {}
    for row in packs.pooled(row for row in kept if row.get("role") != "twin"):
        methods.setdefault(row["name"], {})[row["length"]] = row
    return methods


def pareto_front(entrants: Iterable[Entrant]) -> tuple[str, ...]:
    """The methods of which no other is at least as good in speed, accuracy and size, and better in one of them.

    By the values found, not their intervals; sizes count as equal within SAME_SIZE. What is not known of every method
    is left out of the comparison.
    """
    everyone = tuple(entrants)
    accurate = all(each.accuracy is not None for each in everyone)
    sized = all(each.artifact_bytes is not None for each in everyone)
    merits = {
        each.name: (
            each.speedup.speedup,
            each.accuracy or 0.0 if accurate else 0.0,
            each.artifact_bytes or 0.0 if sized else 0.0,
        )
        for each in everyone
    }
    return tuple(name for name in merits if not any(_dominates(other, merits[name]) for other in merits.values()))


def _dominates(one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    """Whether speed, accuracy and size of the one are all as good as the other's, and one of them better."""
    (speed, accuracy, size), (speed_of_other, accuracy_of_other, size_of_other) = one, other
    as_good = speed >= speed_of_other and accuracy >= accuracy_of_other and size <= (1 + SAME_SIZE) * size_of_other
    smaller = (1 + SAME_SIZE) * size < size_of_other
    return as_good and (speed > speed_of_other or accuracy > accuracy_of_other or smaller)


def _why_incomplete(cells: Mapping[int, Row], lengths: Sequence[int]) -> str | None:
    missing = [length for length in lengths if length not in cells or not has_speedup(cells[length])]
    if not lengths:
        return "the baseline has no result to compare with"
    if not missing:
        return None
    row = cells.get(missing[0], {})
    at = f"no speedup at length {', '.join(map(str, missing))}"
    reason = "; ".join(row.get("reasons") or ())
    status = row.get("status", "not measured") if row else "not measured"
    return f"{at}: {'not paired with the baseline' if status == 'ok' else status}{f' ({reason})' if reason else ''}"


def _entrant(name: str, rows: Sequence[Row], baseline: Sequence[Row], shares: Shares | None) -> Entrant:
    judged = accuracy_row(rows)
    is_baseline = not is_candidate(rows[0])
    return Entrant(
        name=name,
        is_baseline=is_baseline,
        speedup=Ratio(1.0) if is_baseline else _over_lengths(rows, rows, baseline, shares),
        accuracy=judged["accuracy"] if judged else None,
        accuracy_change=accuracy_change(judged) if judged else None,
        footprint=footprint_of(rows),
        # What a process takes is what that of its dearest length takes.
        peak_rss_bytes=max(
            (row["peak_rss_bytes"] for row in rows if row.get("peak_rss_bytes") is not None), default=None
        ),
        rows=tuple(rows),
    )


def _why_forbidden(entrant: Entrant, limits: Limits) -> str | None:
    """The limits it breaks, in words; None where it breaks none."""
    said = broken_limits(entrant.rows, limits)
    if limits.accuracy_drop_points is None and entrant.fails_gate:
        said = [_gate_text(entrant), *said]
    return "; ".join(said) or None


def _gate_text(entrant: Entrant) -> str:
    row = accuracy_row(entrant.rows) or {}
    drop, limit = row.get("accuracy_drop_points"), row.get("max_drop_points")
    if drop is None or limit is None:
        return "fails the accuracy limit"
    return f"loses {drop:.2f} points of accuracy, more than the limit of {limit:g}"


def _lead(leader: Entrant, other: Entrant, comparisons: int, shares: Shares | None) -> Ratio:
    """How much faster the leader is than another, over all lengths.

    The leader was picked for being fastest, so a plain interval would call it faster too often. Each of the
    `comparisons` gets its share of the chance of a false claim (Bonferroni): then the fastest method of all is left
    behind by chance in at most 5 of 100 runs, whichever leads (after Hsu's multiple comparisons with the best).
    """
    confidence = 1 - FALSE_CLAIMS / comparisons
    pairs = [_paired(mine, theirs) for mine, theirs in zip(leader.rows, other.rows, strict=True)]
    paired = [pair for pair in pairs if pair is not None]
    if len(paired) == len(pairs):
        return _over_lengths(paired, leader.rows, other.rows, shares, confidence)
    alone = (_over_lengths(each.rows, leader.rows, other.rows, shares, confidence) for each in (leader, other))
    return _unpaired(*alone)


def _over_lengths(
    ratios: Sequence[Row],
    faster: Sequence[Row],
    slower: Sequence[Row],
    shares: Shares | None,
    confidence: float = 1 - FALSE_CLAIMS,
) -> Ratio:
    """The mean of `ratios` over the lengths: geometric, or weighted by the time that both methods spend there."""
    if shares is not None:
        return weighted_ratio(ratios, time_weights(faster, slower, shares), confidence)
    if not all(row.get("log_ratios") for row in ratios):
        return Ratio(stats.geometric_mean([row["speedup"] for row in ratios]))
    found = stats.geometric_mean_estimate(
        [log_ratios_of(row) for row in ratios], pilot=pilot_of(ratios), confidence=confidence
    )
    return Ratio(found.speedup, found.low, found.high, found.kind)


def _paired(leader: Row, other: Row) -> Row | None:
    """A row whose log ratios are the leader's over the other's; None where they did not share their rounds."""
    if not is_candidate(other):
        return leader
    if not other.get("log_ratios"):
        return None
    if not is_candidate(leader):
        return {**other, "log_ratios": [list(-replica) for replica in log_ratios_of(other)]}
    same = leader.get("cohort") == other.get("cohort") and bool(leader.get("log_ratios"))
    return (paired := paired_row(other, leader)) and {**other, **paired} if same else None


def _unpaired(leader: Ratio, other: Ratio) -> Ratio:
    """From each one's ratio to its own baseline: the furthest apart that both intervals allow, so never too narrow."""
    speedup = leader.speedup / other.speedup
    if leader.low is None or leader.high is None or other.low is None or other.high is None:
        return Ratio(speedup)
    return Ratio(speedup, leader.low / other.high, leader.high / other.low)
