"""How near a cell came to what the machine allowed in its own rounds: operations over rates, or bytes over bandwidth.

The ceilings say what the machine reaches at best and what the sentinel read then; the sentinel's reading of a round
scales them to that round. Everything is compared within a round, like speedups are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from farm.pairing import Process, Row
from farm.rates import RATES


def limit_ns(operations: Mapping[str, int], bytes_read: int, rates: Mapping[str, float]) -> float | None:
    """The least time of a call, from `rates` per nanosecond; None where a rate it needs is not known.

    Products take turns on the same cores, so their times add up; reading goes on beside them.
    """
    if not operations or not {*operations, "memory"} <= rates.keys():
        return None
    computing = sum(count / rates[precision] for precision, count in operations.items())
    return max(computing, bytes_read / rates["memory"])


def limits_of(row: Row) -> dict[int, float]:
    """The limit in each round of a measurement row that has the readings for it."""
    if not row.get("operations_by_precision") or not row.get("ceilings") or row.get("bytes_read") is None:
        return {}
    operations, ceilings = json.loads(row["operations_by_precision"]), json.loads(row["ceilings"])
    # What the caches hold from one call to the next need not come from memory.
    bytes_read = max(0, row["bytes_read"] - ceilings.get("memory", {}).get("cached_bytes", 0))
    found = {}
    for place, number in enumerate(sorted(set(row["round"] or ()))):
        limit = limit_ns(operations, bytes_read, _rates(row, place, ceilings))
        if limit is not None:
            found[number] = limit
    return found


def _rates(row: Row, place: int, ceilings: Mapping[str, Any]) -> dict[str, float]:
    """What the machine could do at best in the round at this place: ceiling x sentinel now / sentinel then."""
    now = {name: (row.get(rate.column) or ())[place:] for name, rate in RATES.items()}
    known = {rate: readings[0] for rate, readings in now.items() if readings and readings[0] and rate in ceilings}
    return {rate: ceilings[rate]["value"] * reading / ceilings[rate]["sentinel"] for rate, reading in known.items()}


def roofline(processes: Sequence[Process]) -> dict[str, float]:
    """`limit_ns` and `limit_fraction` of a cell over the rounds that count in its replicas; empty where unknown."""
    limits: list[float] = []
    fractions: list[float] = []
    for process in processes:
        _, turns = process.rounds(process.clean_rounds())
        by_round = limits_of(process.row)
        for number in turns.keys() & by_round.keys():
            limits.append(by_round[number])
            fractions.append(by_round[number] / median(turns[number]))
    return {"limit_ns": median(limits), "limit_fraction": median(fractions)} if limits else {}
