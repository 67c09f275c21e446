"""The lines under a table's block that say what to distrust, each only where there is something to say."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from farm import stats
from farm.claims import holm
from farm.numerals import ratio_text
from farm.packs import fullest_of_cohorts, lengths_text
from farm.ratios import (
    FALSE_CLAIMS,
    Ratio,
    Row,
    geometric_mean_ratio,
    has_speedup,
    is_candidate,
    is_unresolved,
    log_ratios_of,
    mean_is_supported,
    pilot_of,
)
from farm.stopping import EFFORTS
from tasks.sentinels import USUAL

MOST_NAMED = 4
"""Of a long list so many, the largest first: a line is to be read, and `farm table --format csv` has the rest."""

MOST_STATES = 3
"""Of the machine's states so many are named, the most frequent first: a restless one has dozens, of a round each."""

MOST_BY_STATE = 2
"""Of the cells whose speedup depends on the state so many, those that depend most first: each takes a line."""

ROUGH_EFFORT = "quick"
"""Its intervals are wide by design, which its last line says: nothing is called unresolved."""


def failure_text(row: Row) -> str | None:
    """Why a row is not ok; None for one that is."""
    if row.get("status", "ok") == "ok":
        return None
    return f"{row['name']} {row['status']}: {'; '.join(row.get('reasons') or ()) or 'no reason recorded'}"


def twin_lines(rows: Sequence[Row], run: Sequence[Row], same_within: float) -> Iterator[str]:
    """How far two equal processes were measured apart; all twins of the `run` (its rows) are judged together."""
    twins = sorted((row for row in rows if row.get("role") == "twin"), key=lambda row: row["length"])
    for row in twins:
        if not has_speedup(row):
            why = failure_text(row) or "no round paired with the baseline"
            yield f"A/A twin at length {lengths_text([row], rows)}: {why}"
    measured = [row for row in twins if has_speedup(row)]
    if not measured:
        yield "A/A twin: none measured, so nothing here shows how far two equal processes come out apart."
        return
    mean = geometric_mean_ratio(measured, same_within)
    ends = f" [{mean.low:.3f}, {mean.high:.3f}]" if mean.low is not None else ""
    by_length = _by_length(measured, same_within)
    off = lengths_text((row for row in twins_apart(run) if any(row is twin for twin in measured)), rows)
    yield f"A/A twin, the baseline run twice: {mean.speedup:.3f}x{ends}{by_length}. {_of_twins(off, mean)}"


def _by_length(twins: Sequence[Row], same_within: float) -> str:
    """One figure for each length, over its packs."""
    lengths = dict.fromkeys(row["length"] for row in twins)
    each = [
        geometric_mean_ratio([row for row in twins if row["length"] == length], same_within).speedup
        for length in lengths
    ]
    return f", by length {_listed(f'{speedup:.3f}x' for speedup in each)}" if len(each) > 1 else ""


def _of_twins(off: str, mean: Ratio) -> str:
    if off:
        return f"Warning: apart at length {off}; do not trust differences of this size."
    if mean.low is not None and mean.high is not None and not mean.low <= 1 <= mean.high:
        return (
            "Its interval leaves 1 out, as chance alone makes one in 20 do: do not build on differences of this size."
        )
    return "Equal within the noise, as it should be."


def twins_apart(run: Sequence[Row]) -> list[Row]:
    """The twins that differ from their baseline even when all of the run are judged together."""
    judged = [row for row in run if row.get("role") == "twin" and has_speedup(row) and row.get("log_ratios")]
    adjusted = holm([stats.estimate(log_ratios_of(row), pilot=pilot_of([row])).p_value for row in judged])
    apart = [row for row, p_value in zip(judged, adjusted, strict=True) if p_value < FALSE_CLAIMS]
    return sorted(apart, key=lambda row: row["length"])


def limit_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Cells that were faster than the machine allows, which is a mistake of somebody's."""
    above = [row for row in rows if (row.get("limit_fraction") or 0) > 1]
    if above:
        each = [f"{row['name']} ({row['length']}) {100 * row['limit_fraction']:.0f} %" for row in above]
        yield (
            f"Above the machine's limit, which cannot be: {first_few(each, 'cell')}. A ceiling was measured too low, "
            "or a method does less than it declares: build on no limit of this table; the speedups stand."
        )


def unread_lines(rows: Sequence[Row]) -> Iterator[str]:
    """What of a GPU nobody could watch."""
    unread = dict.fromkeys(what for row in rows for what in row.get("unread") or ())
    if unread:
        yield (
            f"Unknown, not fine: the GPU's driver does not tell {_listed(unread)} here (a container or the user may "
            "lack the permission), so that a disturbance of that kind went unseen."
        )
    unmetered = [row for row in rows if row.get("device") == "cuda" and row.get("rounds") and _lacks_energy(row)]
    if unmetered:
        yield (
            "Energy and power are left out where the GPU's driver tells none, or rounds last less than a second "
            f"altogether: {_cells(unmetered)}."
        )


def unresolved_lines(rows: Sequence[Row], effort: str | None) -> Iterator[str]:
    """Cells whose interval is wider than the effort aims at."""
    unresolved = [row for row in rows if is_unresolved(row)]
    if unresolved and effort is not None and effort in EFFORTS and effort != ROUGH_EFFORT:
        aim = f"{100 * EFFORTS[effort].half_width:g} %"
        yield f"Unresolved (interval wider than {aim} either way, the aim of {effort}): {_cells(unresolved)}."


def state_lines(rows: Sequence[Row]) -> Iterator[str]:
    """In which rounds the machine itself was slower or faster, and the speedups in each of its states."""
    changed = [row for row in fullest_of_cohorts(rows, _rounds_with_state) if _states(row).keys() - {USUAL}]
    if changed:
        lengths = _listed(dict.fromkeys(row["length"] for row in changed))
        of_all = f"{sum(map(_rounds_with_state, changed))} rounds at length {lengths}"
        yield f"The machine changed while measuring: {_other_states(changed)} of {of_all}."
    apart = [row for row in rows if is_candidate(row) and _apart_by_state(row)]
    if apart:
        texts = [_by_state_text(row) for row in sorted(apart, key=_apart_by_state, reverse=True)]
        yield f"Speedup by state (the two furthest apart): {first_few(texts, 'cell', MOST_BY_STATE)}."


def bootstrap_lines(rows: Sequence[Row], shared: Collection[int]) -> Iterator[str]:
    """Cells and geometric means whose interval a bootstrap contradicts. `shared` are the lengths that means cover."""
    averaged: dict[str, list[Row]] = {}
    for row in rows:
        if is_candidate(row) and has_speedup(row) and row["length"] in shared:
            averaged.setdefault(row["name"], []).append(row)
    means = [name for name, cells in averaged.items() if mean_is_supported(cells) is False]
    apart = [row for row in rows if row.get("bootstrap_agrees") is False]
    named = [*([_cells(apart)] if apart else []), *([f"the geometric mean of {_listed(means)}"] if means else [])]
    if named:
        yield (
            f"The bootstrap disagrees with the interval of {'; '.join(named)}: most likely one replica is unlike the "
            "others; look at the samples."
        )


def remark_lines(rows: Sequence[Row]) -> Iterator[str]:
    """What to know about rows that are ok: each remark once, with the cells it applies to."""
    remarks: dict[str, list[Row]] = {}
    in_some: set[str] = set()
    for row in sorted(rows, key=lambda row: row["length"]):
        for reason in (row.get("reasons") or ()) if row.get("status", "ok") == "ok" else ():
            remark = re.sub(r" \(\d+ of \d+ replicas\)$", "", reason)
            remarks.setdefault(remark, []).append(row)
            in_some |= {remark} if remark != reason else set()
    for remark, where in remarks.items():
        often = ", in one replica or more" if remark in in_some else ""
        yield f"{remark[:1].upper()}{remark[1:]}{often}: {_cells(where)}."


def first_few(texts: Sequence[str], what: str, most: int = MOST_NAMED) -> str:
    """So many of a long list's texts, and how many more there are."""
    left_out = len(texts) - most
    return "; ".join([*texts[:most], *([f"and {_counted(left_out, f'more {what}')}"] if left_out > 0 else [])])


def _lacks_energy(row: Row) -> bool:
    return "gpu_power_w" in row and row["gpu_power_w"] is None


def _states(row: Row) -> dict[str, Mapping[str, Any]]:
    """The row's states by name, `usual` first; rounds without a sentinel's reading have none."""
    named = [state for state in row.get("states") or () if state["state"]]
    return {state["state"]: state for state in sorted(named, key=lambda state: state["state"] != USUAL)}


def _rounds_with_state(row: Row) -> int:
    return sum(state["rounds"] for state in _states(row).values())


def _other_states(cohorts: Sequence[Row]) -> str:
    """The states that are not usual, each with its rounds, the less frequent ones added up."""
    rounds: Counter[str] = Counter()
    for row in cohorts:
        rounds.update({name: state["rounds"] for name, state in _states(row).items() if name != USUAL})
    counted = sorted(rounds.items(), key=lambda item: (-item[1], item[0]))
    texts = [f"{_plain(name)} in {number}" for name, number in counted[:MOST_STATES]]
    if others := counted[MOST_STATES:]:
        texts.append(f"and {_counted(len(others), 'more state')} in {sum(number for _, number in others)}")
    return _listed(texts)


def _ratios_by_state(row: Row) -> dict[str, Ratio]:
    """Of the states with enough rounds for one."""
    told = {name: state for name, state in _states(row).items() if state["speedup"] is not None}
    return {name: Ratio(state["speedup"], state["low"], state["high"]) for name, state in told.items()}


def _apart_by_state(row: Row) -> float:
    """The largest over the smallest speedup by state, as a log; 0 where fewer than two states have one."""
    found = [ratio.speedup for ratio in _ratios_by_state(row).values()]
    return math.log(max(found) / min(found)) if found else 0.0


def _by_state_text(row: Row) -> str:
    """The smallest and the largest speedup by state, that of the usual state first if it is one of them."""
    ratios = _ratios_by_state(row)
    ends = {choose(ratios, key=lambda name: ratios[name].speedup) for choose in (min, max)}
    each = [f"{_plain(name)} {ratio_text(ratios[name])}" for name in ratios if name in ends]
    return f"{row['name']} ({row['length']}) {', '.join(each)}"


def _plain(state: str) -> str:
    """A state of several rates without the commas that separate the parts of a sentence here."""
    return state.replace(", ", " and ")


def _cells(rows: Iterable[Row]) -> str:
    lengths: dict[str, dict[int, None]] = {}
    for row in sorted(rows, key=lambda row: row["length"]):
        lengths.setdefault(row["name"], {})[row["length"]] = None
    return "; ".join(f"{name} ({_listed(each)})" for name, each in lengths.items())


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
