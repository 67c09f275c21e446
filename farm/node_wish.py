"""Asks a cluster's autoscaler for the nodes that a run lacks, by placement groups that wait for them.

Groups, because they end with this process and add to what others ask for; `request_resources` would replace it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from farm.hardware import label_of
from farm.records import Slot
from farm.schedule import Kind, slot_kind
from farm.suite import Suite

NODE_ID_LABEL = "ray.io/node-id"

MOST_IN_VAIN = 3
"""After so many nodes of a kind that came and were no help, no more are asked for: they are paid for."""


TOGETHER_S = 30.0
"""An autoscaler decides every few seconds; machines that it starts for a group take minutes, and join also when the
group is withdrawn meanwhile."""


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


@dataclass(frozen=True, slots=True)
class _Asked:
    """A group with a bundle for each node, for how many nodes it was wanted, and since when."""

    group: PlacementGroup
    wanted: int
    since_s: float


class NodeWish:
    """What the cluster is asked for at the moment: a group for each kind of node.

    An autoscaler gives all nodes of a group or none. Where so many do not come (a limit of the cluster's, or a cloud
    that is short of them), one after the other is asked for.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._asked: dict[NodeKind, _Asked] = {}
        self._in_vain: Counter[NodeKind] = Counter()
        self._clock = clock

    def ask(self, wanted: Mapping[NodeKind, int], up: Collection[str]) -> Iterator[str]:
        """Ask for so many nodes of each kind that are none of those `up`, and for nothing else any more.

        Yields what to tell: kinds that are asked for no more, as they came in vain.
        """
        now_s = self._clock()
        for kind, asked in list(self._asked.items()):
            placed = placement_group_table(asked.group).get("state") == "CREATED"
            late = asked.group.bundle_count > 1 and now_s - asked.since_s > TOGETHER_S
            if placed or late or wanted.get(kind, 0) != asked.wanted:
                remove_placement_group(asked.group)
                del self._asked[kind]
            if late and not placed and wanted.get(kind, 0) == asked.wanted:
                self._asked[kind] = _Asked(_group(kind, 1, up), asked.wanted, now_s)
            if placed and wanted.get(kind, 0) >= asked.wanted:
                self._in_vain[kind] += 1
                if self._in_vain[kind] == MOST_IN_VAIN:
                    yield f"{MOST_IN_VAIN} times a {kind} came on which this run can measure nothing"
        for kind, count in wanted.items():
            if count > 0 and kind not in self._asked and self._in_vain[kind] < MOST_IN_VAIN:
                self._asked[kind] = _Asked(_group(kind, count, up), count, now_s)


def _group(kind: NodeKind, count: int, up: Collection[str]) -> PlacementGroup:
    """A group that only so many new nodes can satisfy: one that is up may have a free CPU and yet be no help."""
    bundle = {"CPU": 1.0} | ({"GPU": 1.0} if kind.gpu else {})
    selector = dict([kind.label] if kind.label else [])
    if up:
        selector[NODE_ID_LABEL] = f"!in({','.join(sorted(up))})"
    return placement_group([bundle] * count, strategy="STRICT_SPREAD", bundle_label_selector=[selector] * count)
