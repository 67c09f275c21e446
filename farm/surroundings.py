"""What else differs between two runs: libraries, hardware, settings, the machine's state. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from farm.sides import Side

MOVED = 0.15
"""A sentinel's rate that moved by more than this says that the machine was another: as within a run."""

DISTURBED_APART = 0.2
"""Shares of disturbed samples that differ by more than this are named: less is an ordinary day."""

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
    yield from _state(old, new)


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
