"""Real Ray: a node whose memory runs out."""

from __future__ import annotations

import json

import pandas as pd
import psutil
import pytest
from ray_nodes import HEAD, ray_nodes

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(400)]

GIB = 1024**3


def test_a_cell_that_fills_the_nodes_memory_fails_with_its_cohort_and_ends_nothing_else() -> None:
    memory = psutil.virtual_memory()
    threshold = (memory.total - memory.available + 1.5 * GIB) / memory.total
    with ray_nodes(settings={**HEAD, "memory_usage_threshold": threshold, "memory_monitor_refresh_ms": 100}) as nodes:
        nodes.join()
        leak = {"method": "control-leak", "options": {"after": 6_000, "bytes_per_call": 100_000_000}}
        whole = memory.total
        suite = nodes.place.suite(methods=["control-null", leak], limits={"memory_bytes": whole, "call_s": 20})
        code, said = nodes.run(str(suite))
        (part,) = nodes.place.measured()
        rows = pd.read_parquet(part)
    assert code == 1, said
    assert set(rows["status"]) == {"failed"}
    assert all("memory" in reasons[0] for reasons in rows["reasons"]), json.dumps([list(r) for r in rows["reasons"]])
    assert rows["attempt"].max() == 3
