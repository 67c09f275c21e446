"""Which cells of two runs are the same, what may be compared at all, and what one of the runs lacks. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from farm import stats
from farm.errors import RequestError
from farm.sides import Figure, Side, SideCell

Key = tuple[str, str, str, int, int, str, int, str]
"""Hardware class (empty where the sides share none), role, name, length, batch size, device, threads, inputs."""

_Setting = tuple[int, int, str, int, str]
"""What cells that are compared with one another share: length, batch size, device, threads, inputs."""

NO_ROW = "not measured: its suite asks for it, but there is no row"


@dataclass(frozen=True, slots=True)
class Joined:
    """Cells by what makes them the same. Baseline and twin of several packs are one cell in `pairs`, and several in
    `twins`; `missing` are cells that had a result and that the new run's suite asks for in vain."""

    pairs: tuple[tuple[SideCell, SideCell], ...]
    twins: tuple[SideCell, ...]
    only_old: tuple[SideCell, ...]
    only_new: tuple[SideCell, ...]
    missing: tuple[SideCell, ...]


def join(old: Side, new: Side) -> Joined:
    """Pair the cells of two runs, of one hardware class where they share any.

    Raises RequestError where no cell is in both, or where it would be a guess which classes to compare.
    """
    before, after = (_by_key(side, _shares_class(old, new)) for side in (old, new))
    both = [key for key in after if key in before]
    if not both:
        raise RequestError(
            f"nothing to compare: runs {old.run} and {new.run} share no method at the same length, batch size, device "
            "and number of threads"
        )
    gone = [key for key in before if key not in after]
    places = {(key[0], *key[5:]) for key in after}
    return Joined(
        pairs=tuple((_merged(before[key]), _merged(after[key])) for key in both),
        twins=tuple(cell for key in both for side in (before, after) for cell in side[key] if cell.role == "twin"),
        only_old=tuple(before[key][0] for key in gone),
        only_new=tuple(after[key][0] for key in after if key not in before),
        missing=tuple(
            cell
            for key in gone
            if (cell := _merged(before[key])).status == "ok"
            and (key[0], *key[5:]) in places
            and _asks_for(new.suite, cell)
        ),
    )


def require_one_baseline(joined: Joined, old: Side, new: Side) -> None:
    """Raise RequestError unless speedups of both runs are over the same baseline, for others do not compare."""
    before, after = (_baselines(side) for side in (old, new))
    settings = {_setting(cell) for pair in joined.pairs for cell in pair}
    for setting in sorted(settings & before.keys() & after.keys()):
        if before[setting] != after[setting]:
            told = ["; ".join(sorted(_baseline_text(each) for each in side[setting])) for side in (before, after)]
            raise RequestError(
                f"runs {old.run} and {new.run} have speedups over different baselines ({told[0]} -> {told[1]}), which "
                "do not compare; compare latencies with --measure latency, or measure again over the old baseline"
            )


def _shares_class(old: Side, new: Side) -> bool:
    classes = [sorted({cell.hardware_class for cell in side.cells}) for side in (old, new)]
    if set(classes[0]) & set(classes[1]):
        return True
    if max(map(len, classes)) > 1:
        raise RequestError(
            f"nothing to compare: runs {old.run} and {new.run} share no kind of hardware, and one of them has several: "
            f"{'; '.join(classes[0])} -> {'; '.join(classes[1])}"
        )
    return False


def _by_key(side: Side, with_class: bool) -> dict[Key, list[SideCell]]:
    found: dict[Key, list[SideCell]] = {}
    for cell in side.cells:
        place = (cell.name, cell.length, cell.batch_size, cell.device, cell.threads, cell.inputs)
        found.setdefault((cell.hardware_class if with_class else "", cell.role, *place), []).append(cell)
    return found


def _setting(cell: SideCell) -> _Setting:
    return cell.length, cell.batch_size, cell.device, cell.threads, cell.inputs


def _baselines(side: Side) -> dict[_Setting, set[tuple[str, str, str]]]:
    found: dict[_Setting, set[tuple[str, str, str]]] = {}
    for cell in side.cells:
        if cell.role == "baseline":
            options = json.dumps(json.loads(cell.options), sort_keys=True)
            found.setdefault(_setting(cell), set()).add((cell.name, cell.method, options))
    return found


def _baseline_text(baseline: tuple[str, str, str]) -> str:
    name, method, options = baseline
    return f"{name}: {method}{'' if options == '{}' else f' {options}'}"


def _merged(cells: Sequence[SideCell]) -> SideCell:
    """The baseline or twin of several packs as one: the mean of their logarithms; one without a result if one has."""
    broken = next((cell for cell in cells if cell.status != "ok"), None)
    if len(cells) == 1 or broken is not None:
        return broken or cells[0]
    latencies = [cell.latency_p50_ns for cell in cells if cell.latency_p50_ns]
    return cells[0].model_copy(
        update={
            "replicas": sum(cell.replicas for cell in cells),
            "latency_p50_ns": stats.geometric_mean(latencies) if latencies else None,
            "log_speedup": _mean([cell.log_speedup for cell in cells]),
            "log_latency_ns": _mean([cell.log_latency_ns for cell in cells]),
        }
    )


def _mean(figures: Iterable[Figure | None]) -> Figure | None:
    known = [figure for figure in figures if figure is not None]
    if not known:
        return None
    degrees = stats.satterthwaite([(figure.variance, figure.degrees) for figure in known])
    return Figure(
        mean=float(np.mean([figure.mean for figure in known])),
        variance=sum(figure.variance for figure in known) / len(known) ** 2,
        degrees=min(degrees, stats.MOST_DEGREES),
    )


def _asks_for(suite: Mapping[str, object], cell: SideCell) -> bool:
    """Whether a resolved suite wants the method at the cell's length and batch size; not where it does not tell."""
    methods, lengths, batches = (suite.get(name) for name in ("methods", "lengths", "batch_sizes"))
    if not isinstance(methods, list) or not isinstance(lengths, list):
        return False
    names = {each.get("name") if isinstance(each, Mapping) else each for each in methods}
    fits_batch = not isinstance(batches, list) or cell.batch_size in batches
    return cell.name in names and cell.length in lengths and fits_batch
