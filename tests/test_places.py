"""Speedups are told node by node before they are pooled, and slots that shared a machine are marked."""

from __future__ import annotations

from typing import Any

import pytest
from made_up import speedup_row
from measured import as_table, simulated_cohort

from farm.places import node_lines, packed_lines
from farm.speedups import derive_speedups


def _spread(nodes: list[tuple[str, str]], factors: list[float]) -> list[dict[str, Any]]:
    """A replica on each node in turn, on which `quantized` is faster by that factor."""
    rows: list[dict[str, Any]] = []
    for replica, ((host, node_id), factor) in enumerate(zip(nodes, factors, strict=True)):
        speedups = {"pytorch": 1.0, "quantized": 2.0 * factor}
        place = {"hostname": host, "node_id": node_id}
        rows += [row | place for row in simulated_cohort(64, replica, speedups=speedups)]
    return [row for row in derive_speedups(as_table(rows), 0.03).to_pylist() if row["name"] == "quantized"]


A, B = ("a", "n1"), ("b", "n2")


def test_each_node_has_its_own_speedup_before_pooling() -> None:
    (row,) = _spread([A, B, A, B, A, B], [1.0, 1.2, 1.0, 1.2, 1.0, 1.2])
    assert [(each["node"], each["replicas"]) for each in row["nodes"]] == [("a", 3), ("b", 3)]
    first, second = row["nodes"]
    assert second["speedup"] / first["speedup"] == pytest.approx(1.2, rel=0.05)
    assert first["low"] < first["speedup"] < first["high"]
    assert row["replicas"] == 6


def test_how_nodes_differ_is_in_the_pooled_interval() -> None:
    (alike,), (unlike,) = _spread([A, B] * 3, [1.0] * 6), _spread([A, B] * 3, [1.0, 1.2] * 3)
    assert unlike["speedup_high"] - unlike["speedup_low"] > 2 * (alike["speedup_high"] - alike["speedup_low"])
    assert unlike["speedup_low"] < unlike["nodes"][0]["speedup"] * 1.1


def test_one_node_is_not_told_apart_from_itself() -> None:
    (row,) = _spread([A, A], [1.0, 1.0])
    assert row["nodes"] is None


def test_nodes_of_one_host_are_told_apart_by_their_ids() -> None:
    (row,) = _spread([("a", "n1" * 10), ("a", "n2" * 10)], [1.0, 1.0])
    assert [each["node"] for each in row["nodes"]] == ["a/n1n1n1", "a/n2n2n2"]


def _on(node: str, speedup: float) -> dict[str, Any]:
    return {"node": node, "replicas": 3, "speedup": speedup, "low": 0.99 * speedup, "high": 1.01 * speedup}


def test_a_line_names_the_cells_whose_speedup_depends_most_on_the_node() -> None:
    rows = [
        speedup_row("quantized", 64, nodes=[_on("a", 2.0), _on("b", 2.1), _on("c", 2.5)]),
        speedup_row("quantized", 128, nodes=[_on("a", 2.0), _on("b", 2.0)]),
        speedup_row("onnxruntime", 64, nodes=[_on("a", 1.5), _on("b", 1.6)]),
    ]
    (line,) = node_lines(rows)
    assert line.startswith("Replicas were spread over 3 nodes")
    assert "quantized (64) a 2.00x [1.98, 2.02], c 2.50x [2.48, 2.52]; onnxruntime (64) a" in line
    assert "128" not in line


def test_nothing_is_said_of_nodes_where_there_is_one_and_of_packing_where_there_is_none() -> None:
    assert not list(node_lines([speedup_row("quantized")]))
    assert not list(packed_lines([speedup_row("quantized", packed=False), speedup_row("pytorch")]))


def test_a_packed_block_says_so() -> None:
    assert "side by side" in next(packed_lines([speedup_row("quantized", packed=True)]))
