"""Where a cell was measured: its speedup on each node before replicas are pooled, and what ran beside it. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from farm import stats
from farm.numerals import ratio_text
from farm.pairing import Process
from farm.ratios import Ratio, Row, is_candidate

MOST_APART = 2
"""Of the cells whose speedup depends on the node so many are named, those that depend most first."""


def node_ratios(processes: Sequence[Process], pilot: int) -> list[dict[str, Any]] | None:
    """The speedup over the rounds that count on each node, by name; None unless there were two nodes or more.

    Ratios are taken within rounds, so never across nodes. Replicas of a cohort are spread over the nodes of a class,
    and the interval over all of them rests on how replicas differ: how nodes differ is in it.
    """
    by_node: dict[tuple[str, str], list[stats.FloatArray]] = {}
    for process in processes:
        ratios = stats.paired_log_ratios(*process.rounds(process.clean_rounds()))
        if len(ratios):
            node = (str(process.row.get("hostname")), str(process.row.get("node_id")))
            by_node.setdefault(node, []).append(ratios)
    if len(by_node) < 2:
        return None
    names = _names(list(by_node))
    found = {names[node]: stats.estimate(replicas, pilot=pilot) for node, replicas in by_node.items()}
    return [
        {"node": name, "replicas": each.replicas, "speedup": each.speedup, "low": each.low, "high": each.high}
        for name, each in sorted(found.items())
    ]


def _names(nodes: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], str]:
    """Host names, with the beginning of the node's id where several nodes are on one host."""
    hosts = [host for host, _ in nodes]
    return {node: node[0] if hosts.count(node[0]) == 1 else f"{node[0]}/{node[1][:6]}" for node in nodes}


def node_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Over how many nodes replicas were spread, and the speedups on each of those that differ most."""
    spread = sorted((row for row in rows if is_candidate(row) and row.get("nodes")), key=_apart, reverse=True)
    if not spread:
        return
    nodes = {entry["node"] for row in spread for entry in row["nodes"]}
    texts = [f"{row['name']} ({row['length']}) {_by_node(row)}" for row in spread[:MOST_APART]]
    yield (
        f"Replicas were spread over {len(nodes)} nodes; how those differ is in the intervals. "
        f"By node, furthest apart first: {'; '.join(texts)}."
    )


def packed_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Whether cohorts measured side by side on one machine."""
    if any(row.get("packed") for row in rows):
        yield (
            "Packed: cohorts measured side by side on the slots of a machine, which share its caches and memory. "
            "Latencies are those of a machine that is in use; `exclusive: node` gives each cohort all of it."
        )


def _apart(row: Row) -> float:
    """The largest over the smallest speedup of a node, as a log."""
    speedups = [entry["speedup"] for entry in row["nodes"]]
    return math.log(max(speedups) / min(speedups))


def _by_node(row: Row) -> str:
    """The smallest and the largest."""
    ranked = sorted(row["nodes"], key=lambda entry: entry["speedup"])
    ends = (ranked[0], ranked[-1])
    return ", ".join(f"{each['node']} {ratio_text(Ratio(each['speedup'], each['low'], each['high']))}" for each in ends)
