"""Which nodes a suite's `hardware` means, and which of them are alike. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from farm.records import Slot

CLASS_LABEL = "hardware"
"""The Ray label by which whoever runs a cluster tells nodes apart that look alike from inside: nodes of one
fingerprint and different values of it are different classes."""

NAME_LABELS = ("ray.io/node-id", "ray.io/node-ip")
"""Labels by whose value a single node may be named, beside its host name."""


def classify(fingerprint: str, labels: Mapping[str, str]) -> str:
    """The hardware class of a node: its fingerprint, and what its `hardware` label says, if it has one."""
    declared = re.sub(r"[^A-Za-z0-9.]+", "-", labels.get(CLASS_LABEL, "")).strip("-").lower()
    return f"{fingerprint}-{declared}" if declared else fingerprint


def label_of(hardware: str) -> tuple[str, str] | None:
    """The label that a suite's `hardware` asks for as KEY=VALUE, or None where it asks for something else."""
    key, separator, value = hardware.partition("=")
    return (key.strip(), value.strip()) if separator else None


def takes_every_class(hardware: str) -> bool:
    """Whether nodes of any further class that join later belong to the run, too."""
    return hardware == "all" or label_of(hardware) is not None


def admits(hardware: str, slot: Slot) -> bool:
    """Whether a suite's `hardware` allows the slot; `any` and `all` allow every one."""
    if hardware in ("any", "all"):
        return True
    labels = dict(slot.labels)
    label = label_of(hardware)
    if label is not None:
        return labels.get(label[0]) == label[1]
    names = (slot.hardware_class, slot.hostname, slot.node_id, *(labels.get(name) for name in NAME_LABELS))
    return hardware in names


def may_admit(hardware: str, labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels may have a slot that `admits` allows, as far as is known before it is asked."""
    label = label_of(hardware)
    return label is None or labels.get(label[0]) == label[1]


def nothing_fits(hardware: str, classes: Iterable[str]) -> str:
    """Why there is nothing to plan for, and which hardware classes there are instead."""
    found = sorted(set(classes))
    there = f"there are {', '.join(found)}" if found else "there is none at all"
    wanted = f"is of class '{hardware}', and none has that name; "
    if label_of(hardware) is not None:
        wanted = f"has the label {hardware}; of classes "
    return f"hardware: no node {wanted}{there}. `farm plan --address` shows nodes, labels and classes"
