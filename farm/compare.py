"""Two runs compared cell by cell: what became faster or slower, by how much, and how sure that is. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from farm import stats
from farm.claims import holm
from farm.differences import Between, Change, between_latencies, between_speedups, change
from farm.errors import RequestError
from farm.ratios import FALSE_CLAIMS
from farm.sides import Figure, Side, SideCell
from farm.surroundings import differences

Measure = Literal["speedup", "latency"]
"""What is judged: the speedup over each run's own baseline, in which the machine's state cancels, or the latency."""

Place = tuple[str, int, int, str, int, str]

_Cells = dict[tuple[str, str, Place], SideCell]


@dataclass(frozen=True, slots=True)
class Compared:
    """One cell in both runs. `change` is of the measure that is judged; None where a side has no figure for it."""

    hardware_class: str
    name: str
    role: str
    length: int
    batch_size: int
    device: str
    threads: int
    old_ms: float | None
    new_ms: float | None
    change: Change | None
    verdict: str
    p_holm: float | None = None
    broken: str | None = None
    """Why the cell has no result any more, where it had one."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed from one run to the other. `slower` and `broken` are what the gate stops at."""

    old: str
    new: str
    measure: Measure
    threshold: float
    cells: tuple[Compared, ...]
    between: Between
    baseline_moved: float | None
    """New speed / old speed of the baselines, their geometric mean: the machine's change and the baseline's own."""
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    differences: tuple[str, ...]

    @property
    def slower(self) -> tuple[Compared, ...]:
        """Cells that hold as slower together with all other claims (Holm), by more than the threshold."""
        return tuple(cell for cell in self.cells if _is_slower(cell, self.threshold))

    @property
    def broken(self) -> tuple[Compared, ...]:
        """Cells that had a result and have none."""
        return tuple(cell for cell in self.cells if cell.broken is not None)


def compare(old: Side, new: Side, *, measure: Measure = "speedup", threshold: float = 0.0) -> Comparison:
    """Compare the cells that both runs have, of one hardware class where they share any.

    `threshold` is the slow-down, a fraction, that is let pass. Raises RequestError where there is nothing to compare.
    """
    before, after = _places(old, new)
    pairs = [(before[place], after[place]) for place in after if place in before]
    if not pairs:
        raise RequestError(
            f"nothing to compare: runs {old.run} and {new.run} share no method at the same length, batch size, device "
            "and number of threads"
        )
    shifts = _baseline_shifts(pairs)
    twins = [cell.log_speedup.as_mean for pair in pairs for cell in pair if cell.role == "twin" and cell.log_speedup]
    between = between_speedups(twins) if measure == "speedup" else between_latencies(shifts)
    compared = [_compared(*pair, measure, between, new.same_within) for pair in pairs if pair[0].role != "twin"]
    return Comparison(
        old=old.run,
        new=new.run,
        measure=measure,
        threshold=threshold,
        cells=tuple(_judged_together(compared)),
        between=between,
        baseline_moved=float(np.exp(np.mean(shifts))) if shifts else None,
        only_old=_named(before[place] for place in before if place not in after),
        only_new=_named(after[place] for place in after if place not in before),
        differences=tuple(differences(old, new)),
    )


def _places(
    old: Side, new: Side
) -> tuple[dict[tuple[str, str, Place], SideCell], dict[tuple[str, str, Place], SideCell]]:
    """Both sides' cells by what makes them the same; the class counts unless the two sides share none."""
    shared = {cell.hardware_class for cell in old.cells} & {cell.hardware_class for cell in new.cells}
    before, after = (
        {(cell.hardware_class if shared else "", cell.role, _place(cell)): cell for cell in side.cells}
        for side in (old, new)
    )
    return before, after


def _place(cell: SideCell) -> Place:
    return cell.name, cell.length, cell.batch_size, cell.device, cell.threads, cell.inputs


def _named(cells: Iterator[SideCell]) -> tuple[str, ...]:
    """Methods with the lengths at which only one of the runs has them."""
    lengths: dict[str, list[int]] = {}
    for cell in cells:
        if cell.role != "twin":
            lengths.setdefault(cell.name, []).append(cell.length)
    return tuple(f"{name} ({', '.join(map(str, sorted(set(found))))})" for name, found in lengths.items())


def _baseline_shifts(pairs: Sequence[tuple[SideCell, SideCell]]) -> list[float]:
    """How far the baseline moved, old - new of its log latencies: one mean of it and its twin for each place."""
    shifts: dict[tuple[str, Place], list[float]] = {}
    for old, new in pairs:
        if old.role in ("baseline", "twin") and old.log_latency_ns and new.log_latency_ns:
            place = (new.hardware_class, ("", *_place(new)[1:]))
            shifts.setdefault(place, []).append(old.log_latency_ns.mean - new.log_latency_ns.mean)
    return [float(np.mean(both)) for both in shifts.values()]


def _compared(old: SideCell, new: SideCell, measure: Measure, between: Between, same_within: float) -> Compared:
    found = _change(old, new, measure, between)
    broken = old.status == "ok" and new.status != "ok"
    why = f"{new.status}: {'; '.join(new.reasons) or 'no reason recorded'}"
    return Compared(
        hardware_class=new.hardware_class,
        name=new.name,
        role=new.role,
        length=new.length,
        batch_size=new.batch_size,
        device=new.device,
        threads=new.threads,
        old_ms=None if old.latency_p50_ns is None else old.latency_p50_ns / 1e6,
        new_ms=None if new.latency_p50_ns is None else new.latency_p50_ns / 1e6,
        change=found,
        verdict=stats.verdict(found, same_within) if found else _word(old, new, measure),
        broken=why if broken else None,
    )


def _change(old: SideCell, new: SideCell, measure: Measure, between: Between) -> Change | None:
    # A latency that grew is slower, a speedup that grew is faster: the two run in opposite directions.
    sides: tuple[Figure | None, Figure | None] = (
        (old.log_speedup, new.log_speedup) if measure == "speedup" else (new.log_latency_ns, old.log_latency_ns)
    )
    slower, faster = sides
    if slower is None or faster is None or {old.status, new.status} != {"ok"}:
        return None
    return change(slower.as_mean, faster.as_mean, between)


def _word(old: SideCell, new: SideCell, measure: Measure) -> str:
    if new.status != "ok":
        return new.status
    if old.status != "ok":
        return f"was {old.status}"
    return "the yardstick" if measure == "speedup" and new.role == "baseline" else "not compared"


def _judged_together(cells: Sequence[Compared]) -> Iterator[Compared]:
    """Each claim with its p value adjusted for all of them: of twenty equal cells one looks changed by chance."""
    p_values = [cell.change.p_value for cell in cells if cell.change]
    adjusted = iter(holm(p_values))
    for cell in cells:
        yield replace(cell, p_holm=next(adjusted)) if cell.change else cell


def _is_slower(cell: Compared, threshold: float) -> bool:
    if cell.change is None or cell.p_holm is None or cell.verdict != "slower" or cell.p_holm >= FALSE_CLAIMS:
        return False
    return 1 / cell.change.speedup - 1 > threshold


def counted(cells: Sequence[Compared]) -> Mapping[str, int]:
    """How many cells have each verdict."""
    return Counter(cell.verdict for cell in cells if cell.change)
