"""Holding a slot through Ray, so that nobody else's Ray work runs there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from farm.grounds import NodeBusyError
from farm.records import Slot
from farm.side_by_side import AT_ONCE

RESERVE_S = 10
"""How long a reservation may take before the node counts as held by others: Ray places a group within a second."""


@asynccontextmanager
async def reserve(slot: Slot) -> AsyncIterator[PlacementGroup]:
    """Hold the slot through a placement group, so that nobody else's Ray work runs there.

    The group is bound to the node by its id: otherwise Ray would move it elsewhere when the node dies.
    Raises NodeBusyError if the slot's CPUs are not free within some seconds.
    """
    # Which of the GPUs the cells see is the slot's to say, not Ray's.
    bundle = {"CPU": slot.ray_cpus} | ({"GPU": slot.ray_gpus} if slot.gpu else {})
    group = placement_group([bundle], strategy="STRICT_PACK", bundle_label_selector=[{"ray.io/node-id": slot.node_id}])
    try:
        try:
            await asyncio.wait_for(_as_future(group.ready()), RESERVE_S)
        except TimeoutError:
            raise NodeBusyError(f"other Ray work holds the CPUs of node {slot.hostname}") from None
        yield group
    finally:
        remove_placement_group(group)


def in_slot(group: PlacementGroup, slot: Slot) -> dict[str, Any]:
    """Options of an actor that lives in a reserved slot and costs no CPU of it.

    A second call is served while one runs, so that a round can be cut short.
    """
    strategy = PlacementGroupSchedulingStrategy(group, 0)
    return {
        "num_cpus": 0,
        "num_gpus": slot.ray_gpus if slot.gpu else 0,
        "scheduling_strategy": strategy,
        "max_restarts": 0,
        "max_concurrency": 1 + AT_ONCE["cuda" if slot.gpu else "cpu"],
    }


async def _as_future(reference: Any) -> Any:
    return await reference
