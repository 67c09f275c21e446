"""What a suite may set of a method: frozen dataclasses, of which a field may say when and where it matters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from farm.records import Device

_LOADING, _DEVICE = "read while loading alone", "means something on this device alone"


@dataclass(frozen=True)
class NoOptions:
    """A method without settings of its own."""


def loading(default: Any, device: Device | None = None) -> Any:
    """A field that only loading reads: cells that differ in it share what was prepared.

    With `device`, one that other devices have no use for: there it can only keep its default.
    """
    return field(default=default, metadata={_LOADING: True, _DEVICE: device})


def of_preparing(options: Any) -> dict[str, Any]:
    """The fields that preparing may read: all that are not declared as `loading`."""
    return {each.name: getattr(options, each.name) for each in fields(options) if _LOADING not in each.metadata}


def of_other_devices(kind: Any, given: Mapping[str, Any], device: Device) -> dict[str, Device]:
    """Those of the given settings of a class of options that are for another device, and for which."""
    only = {each.name: each.metadata.get(_DEVICE) for each in fields(kind) if given.get(each.name) != each.default}
    return {name: of for name, of in only.items() if name in given and of not in (None, device)}
