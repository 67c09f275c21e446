"""What else differs between two runs: libraries, hardware, settings, the machine's state. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from farm.numerals import figure_text
from farm.sides import Side, SideCell

MOVED = 0.15
"""A sentinel's rate that moved by more than this says that the machine was another: as within a run."""

DISTURBED_APART = 0.2
"""Shares of disturbed samples that differ by more than this are named: less is an ordinary day."""

_SAME_CELL = ("name", "length", "batch_size", "device", "threads", "inputs")

_UNTOLD = {"suite": ("name", "budget_s"), "machine": ("hostname", "usable_cpus", "smt_siblings", "hardware_class")}
"""What may differ without changing what is measured, or is said by something else."""


def differences(old: Side, new: Side) -> Iterator[str]:
    """One line for each kind of difference that there is."""
    yield from _lines("Libraries", _libraries(old), _libraries(new))
    yield from _lines("Hardware", _machine(old), _machine(new))
    both = _methods(old) & _methods(new)  # a method that only one run has is told as such
    yield from _lines("Settings", _settings(old, both), _settings(new, both))
    if old.model and new.model and old.model.get("sha256") != new.model.get("sha256"):
        yield f"Model: not the same files ({old.model.get('name')}, {new.model.get('name')})."
    if old.farm_version != new.farm_version:
        yield f"Farm: {old.farm_version or 'unknown'} -> {new.farm_version or 'unknown'}."
    yield from _of_cells(_pairs(old, new))
    yield from _state(old, new)


def _of_cells(pairs: Sequence[tuple[SideCell, SideCell]]) -> Iterator[str]:
    """What differs in cells of both runs beside their times: what they load, how often it is right, how large it is."""
    other = sorted({after.length for before, after in pairs if _other_inputs(before, after)})
    if other:
        yield f"Timed inputs: other tokens at length {', '.join(map(str, other))}."
    for title, tell in _OF_CELLS.items():
        lengths: dict[str, list[int]] = {}
        for before, after in pairs:
            told = tell(before), tell(after)
            if None not in told and told[0] != told[1]:
                change = "" if tell is _artifact_key else f" {told[0]} -> {told[1]}"
                lengths.setdefault(f"{after.name}{change}", []).append(after.length)
        if lengths:
            listed = (f"{name} ({', '.join(map(str, sorted(set(at))))})" for name, at in lengths.items())
            yield f"{title}: {'; '.join(listed)}."


def _pairs(old: Side, new: Side) -> list[tuple[SideCell, SideCell]]:
    """The same cells of both runs, twins left out, of one hardware class where they share any."""
    share = {cell.hardware_class for cell in old.cells} & {cell.hardware_class for cell in new.cells}
    before, after = (
        {
            (cell.hardware_class if share else "", *(getattr(cell, name) for name in _SAME_CELL)): cell
            for cell in side.cells
            if cell.role != "twin"
        }
        for side in (old, new)
    )
    return [(before[key], cell) for key, cell in after.items() if key in before]


def _other_inputs(old: SideCell, new: SideCell) -> bool:
    known = old.inputs_sha256 is not None and new.inputs_sha256 is not None
    return known and old.inputs_sha256 != new.inputs_sha256


def _artifact_key(cell: SideCell) -> str | None:
    return cell.artifact_key


def _accuracy(cell: SideCell) -> str | None:
    return None if cell.accuracy is None else f"{100 * cell.accuracy:.2f} %"


def _megabytes(cell: SideCell) -> str | None:
    return None if cell.artifact_bytes is None else f"{figure_text(cell.artifact_bytes / 1e6)} MB"


_OF_CELLS: Mapping[str, Callable[[SideCell], str | None]] = {
    "Prepared anew": _artifact_key,
    "Accuracy": _accuracy,
    "Size of what is deployed": _megabytes,
}
"""What is told of a cell, by the title of its line; two that read the same are the same."""


def _libraries(side: Side) -> Mapping[str, Any]:
    versions = {"python": side.environment.get("python"), "system": side.environment.get("platform")}
    return {**versions, **side.environment.get("libraries", {})}


def _machine(side: Side) -> Mapping[str, Any]:
    machine = side.environment.get("machine", {})
    classes = sorted({cell.hardware_class for cell in side.cells})
    return {"class": ", ".join(classes)} | {k: v for k, v in machine.items() if k not in _UNTOLD["machine"]}


def _methods(side: Side) -> set[str]:
    return {_name(method) for method in side.suite.get("methods", [])}


def _name(method: str | Mapping[str, Any]) -> str:
    return method if isinstance(method, str) else str(method.get("name"))


def _settings(side: Side, methods: Collection[str]) -> Mapping[str, Any]:
    """A suite's settings, and those of these methods."""
    suite = {**side.suite, "methods": [each for each in side.suite.get("methods", []) if _name(each) in methods]}
    return {name: value for name, value in _flat(suite) if name not in _UNTOLD["suite"]}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings with dotted names; a list of mappings by their names, so that only what changed is told."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
            yield from _flat(
                {str(each.get("name", place)): each for place, each in enumerate(value)}, f"{prefix}{name}."
            )
        else:
            yield f"{prefix}{name}", value


def _lines(title: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    if names:
        yield f"{title}: {'; '.join(f'{name} {_told(old.get(name), new.get(name))}' for name in names)}."


def _told(old: Any, new: Any) -> str:
    """A change as `2.12 -> 2.13`; of long lists only what went and what came."""
    if isinstance(old, list) and isinstance(new, list):
        gone = [str(each) for each in old if each not in new]
        come = [str(each) for each in new if each not in old]
        return " ".join([*(f"-{each}" for each in gone), *(f"+{each}" for each in come)]) or "in another order"
    return f"{'none' if old is None else old} -> {'none' if new is None else new}"


def _state(old: Side, new: Side) -> Iterator[str]:
    if old.cells and new.cells and not (old.sentinels and new.sentinels):
        yield "The machine's state: unknown, for a run without sentinels does not tell."
    moved = [
        f"{about} {before:.3g} -> {new.sentinels[about]:.3g} ({100 * (new.sentinels[about] / before - 1):+.0f} %)"
        for about, before in old.sentinels.items()
        if about in new.sentinels and abs(new.sentinels[about] / before - 1) > MOVED
    ]
    if moved:
        yield f"The machine was in another state, by its sentinels: {'; '.join(moved)}."
    shares = (old.disturbed_share, new.disturbed_share)
    if None not in shares and abs((shares[0] or 0) - (shares[1] or 0)) > DISTURBED_APART:
        yield f"Disturbed samples: {100 * (shares[0] or 0):.0f} % -> {100 * (shares[1] or 0):.0f} %."
