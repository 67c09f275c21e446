"""Asks a cluster's autoscaler for the nodes that a run lacks, by placement groups that wait for them.

Groups, because they end with this process and add to what others ask for; `request_resources` would replace it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from farm.hardware import label_of
from farm.records import Slot
from farm.schedule import Kind, slot_kind
from farm.suite import Suite

NODE_ID_LABEL = "ray.io/node-id"

MOST_IN_VAIN = 3
"""After so many nodes of a kind that came and were no help, no more are asked for: they are paid for."""


@dataclass(frozen=True, slots=True)
class NodeKind:
    """What can be said of a node that is not there: whether it has a GPU, and a label, if one is asked for."""

    gpu: bool
    label: tuple[str, str] | None

    def __str__(self) -> str:
        label = f" and the label {'='.join(self.label)}" if self.label else ""
        return f"node with a {'GPU' if self.gpu else 'CPU'}{label}"


def usual_kind(suite: Suite) -> NodeKind:
    """A node on which all of a suite's devices can be measured."""
    return NodeKind("cuda" in suite.devices, label_of(suite.hardware))


def nodes_wanted(
    suite: Suite,
    waiting: Mapping[Kind, int],
    up: Collection[Sequence[Slot]],
    labels: Mapping[str, tuple[str, str]],
) -> Counter[NodeKind]:
    """How many nodes of each kind would help with what waits, beside those that are up.

    One for each class that has a label (`labels`, by class) and lost all its nodes; and as many as the suite asks for,
    as long as there are jobs for them.
    """
    there = {slot_kind(slot) for slots in up for slot in slots}
    lost = [
        (device == "cuda", labels[name]) for name, device in waiting if (name, device) not in there and name in labels
    ]
    wanted = Counter({NodeKind(max(gpu for gpu, of in lost if of == label), label): 1 for _, label in lost})
    more = min(suite.nodes - len(up), sum(waiting.values())) - wanted.total()
    if more > 0:
        wanted[usual_kind(suite)] += more
    return wanted


class NodeWish:
    """What the cluster is asked for at the moment: a group for each kind of node, with a bundle for each node."""

    def __init__(self) -> None:
        self._groups: dict[NodeKind, PlacementGroup] = {}
        self._in_vain: Counter[NodeKind] = Counter()

    def ask(self, wanted: Mapping[NodeKind, int], up: Collection[str]) -> Iterator[str]:
        """Ask for so many nodes of each kind that are none of those `up`, and for nothing else any more.

        Yields what to tell: kinds that are asked for no more, as they came in vain.
        """
        for kind, group in list(self._groups.items()):
            placed = placement_group_table(group).get("state") == "CREATED"
            if placed or wanted.get(kind, 0) != group.bundle_count:
                remove_placement_group(group)
                del self._groups[kind]
            if placed and wanted.get(kind, 0) >= group.bundle_count:
                self._in_vain[kind] += 1
                if self._in_vain[kind] == MOST_IN_VAIN:
                    yield f"{MOST_IN_VAIN} times a {kind} came on which this run can measure nothing"
        for kind, count in wanted.items():
            if count > 0 and kind not in self._groups and self._in_vain[kind] < MOST_IN_VAIN:
                self._groups[kind] = _group(kind, count, up)


def _group(kind: NodeKind, count: int, up: Collection[str]) -> PlacementGroup:
    """A group that only so many new nodes can satisfy: one that is up may have a free CPU and yet be no help."""
    bundle = {"CPU": 1.0} | ({"GPU": 1.0} if kind.gpu else {})
    selector = dict([kind.label] if kind.label else [])
    if up:
        selector[NODE_ID_LABEL] = f"!in({','.join(sorted(up))})"
    return placement_group([bundle] * count, strategy="STRICT_SPREAD", bundle_label_selector=[selector] * count)
