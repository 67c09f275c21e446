"""Two runs compared cell by cell: what became faster or slower, by how much, and how sure that is. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from farm import stats
from farm.claims import holm
from farm.differences import NOTHING_MEASURED, Between, Change, between_latencies, between_speedups, change
from farm.joining import NO_ROW, join, require_one_baseline
from farm.ratios import FALSE_CLAIMS
from farm.sides import Figure, Side, SideCell
from farm.surroundings import differences

Measure = Literal["speedup", "latency"]
"""What is judged: the speedup over each run's own baseline, in which the machine's state cancels, or the latency."""

NOT_COMPARED = "not compared"
"""What stands for a cell that is ok in both runs and has no figure in one."""

Place = tuple[str, int, int, str, int, str]


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
    p_beyond: float | None = None
    """The same for the claim that the slow-down is not the threshold."""
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
    warnings: tuple[str, ...]

    @property
    def slower(self) -> tuple[Compared, ...]:
        """Cells shown to be slower by more than the threshold, together with all other claims (Holm)."""
        return tuple(cell for cell in self.cells if _is_slower(cell, self.threshold))

    @property
    def broken(self) -> tuple[Compared, ...]:
        """Cells that had a result and have none."""
        return tuple(cell for cell in self.cells if cell.broken is not None)


def compare(old: Side, new: Side, *, measure: Measure = "speedup", threshold: float = 0.0) -> Comparison:
    """Compare the cells that both runs have, of one hardware class where they share any.

    `threshold` is the slow-down, a fraction, that is let pass. Raises RequestError where there is nothing to compare,
    or speedups are over different baselines.
    """
    joined = join(old, new)
    if measure == "speedup":
        require_one_baseline(joined, old, new)
    shifts = _baseline_shifts(joined.pairs)
    twins = [cell.log_speedup.as_mean for cell in joined.twins if cell.log_speedup]
    between = between_speedups(twins) if measure == "speedup" else between_latencies(shifts)
    compared = [_compared(*pair, measure, between, new.same_within) for pair in joined.pairs if pair[0].role != "twin"]
    missing = [_missing(cell) for cell in joined.missing if cell.role != "twin"]
    return Comparison(
        old=old.run,
        new=new.run,
        measure=measure,
        threshold=threshold,
        cells=tuple(_judged_together(sorted([*compared, *missing], key=_condition), threshold)),
        between=between,
        baseline_moved=float(np.exp(np.mean(shifts))) if shifts else None,
        only_old=_named(joined.only_old),
        only_new=_named(joined.only_new),
        differences=tuple(differences(old, new)),
        warnings=tuple(_warnings(old, new, compared)),
    )


def _place(cell: SideCell) -> Place:
    return cell.name, cell.length, cell.batch_size, cell.device, cell.threads, cell.inputs


def _condition(cell: Compared) -> tuple[str, str, int, int, int]:
    """What is measured side by side stands together, shortest lengths first; methods stay as the suite has them."""
    return cell.hardware_class, cell.device, cell.threads, cell.batch_size, cell.length


def _named(cells: Sequence[SideCell]) -> tuple[str, ...]:
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
    return "the yardstick" if measure == "speedup" and new.role == "baseline" else NOT_COMPARED


def _missing(old: SideCell) -> Compared:
    """A cell that had a result, is asked for still, and has no row."""
    gone = old.model_copy(update={"status": "missing", "latency_p50_ns": None, "reasons": ()})
    return replace(_compared(old, gone, "latency", NOTHING_MEASURED, 0.0), broken=NO_ROW)


def _warnings(old: Side, new: Side, cells: Sequence[Compared]) -> Iterator[str]:
    """What makes a comparison mean something else than a reader would think."""
    if old.run == new.run:
        yield "a run is compared with itself, so nothing can have changed."
    if old.model.get("sha256") and new.model.get("sha256") and old.model["sha256"] != new.model["sha256"]:
        names = f"{old.model.get('name')}, {new.model.get('name')}"
        yield f"the runs are of different models ({names}): a change may be the model's and not the program's."
    unjudged = [f"{cell.name} ({cell.length})" for cell in cells if cell.verdict == NOT_COMPARED]
    if unjudged:
        yield f"not judged by the gate, for one of the runs has no figure for it: {', '.join(unjudged)}."


def _judged_together(cells: Sequence[Compared], threshold: float) -> Iterator[Compared]:
    """Each claim with its p values adjusted for all of them: of twenty equal cells one looks changed by chance."""
    changes = [cell.change for cell in cells if cell.change]
    adjusted = iter(holm([change.p_value for change in changes]))
    beyond = iter(holm([change.p_of_slow_down(threshold) for change in changes]))
    for cell in cells:
        yield replace(cell, p_holm=next(adjusted), p_beyond=next(beyond)) if cell.change else cell


def _is_slower(cell: Compared, threshold: float) -> bool:
    """Whether the slow-down is shown to be above the threshold: by its own test, for an estimate is above it in half of
    all runs where the truth is just as large."""
    if cell.change is None or cell.p_beyond is None or cell.p_beyond >= FALSE_CLAIMS:
        return False
    return 1 / cell.change.speedup - 1 > threshold


def counted(cells: Sequence[Compared]) -> Mapping[str, int]:
    """How many cells have each verdict."""
    return Counter(cell.verdict for cell in cells if cell.change)
