"""Which nodes fail whatever they try, so that they are left alone for a while. Pure."""

from __future__ import annotations

from collections import defaultdict

MOST_IN_A_ROW = 3
"""A node at which the tries of so many cohorts failed one after another is suspected: of a sound one that would take as
many broken cohorts in a row."""

QUARANTINE_S = 300.0
"""For so long a suspected node gets no work; then its next try decides."""


class Quarantine:
    """Counts, for each node, the cohorts whose tries failed there since the last that did not."""

    def __init__(self) -> None:
        self._failed: defaultdict[str, set[str]] = defaultdict(set)
        self._suspected: set[str] = set()

    def failed(self, node_id: str, cohort: str) -> bool:
        """Note a try that failed on a node; whether that is one too many."""
        self._failed[node_id].add(cohort)
        return len(self._failed[node_id]) >= MOST_IN_A_ROW

    def succeeded(self, node_id: str) -> None:
        """Note a replica that was measured on a node: whatever failed there before was not the node."""
        self._failed.pop(node_id, None)

    def begin(self, node_id: str) -> None:
        """The node gets no work from now on."""
        self._suspected.add(node_id)

    def end(self, node_id: str) -> bool:
        """The time is over; whether the node was still suspected. One failure more, and it is again."""
        if node_id not in self._suspected:
            return False
        self._suspected.discard(node_id)
        if self._failed[node_id]:
            self._failed[node_id].pop()
        return True

    def fails_everywhere(self, cohort: str) -> list[str]:
        """The cohort failed for good, which speaks for the nodes where it did: those that are suspected no more."""
        for cohorts in self._failed.values():
            cohorts.discard(cohort)
        freed = [node_id for node_id in self._suspected if len(self._failed[node_id]) < MOST_IN_A_ROW]
        self._suspected -= set(freed)
        return freed
