"""Ten faults at random moments on real raylets: every cell is there once, with the status it deserves.

The benchmark `chaos.py` is the same with a hundred.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from farm.results import Results

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

FOLDER = Path(__file__).parent / "benchmarks"
FAULTS = 10
SEED = 3


@dataclass(frozen=True, slots=True)
class Story:
    """What was done to a run, what was left of it, and its table."""

    chaos: Any
    left: Any
    table: str


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        import chaos
        from ray_nodes import ray_nodes

        with ray_nodes() as nodes:
            happened, left = chaos.run_chaos(nodes, FAULTS, SEED, lengths=3)
            yield Story(happened, left, Results(nodes.place.results).table("text"))
        for name in ("chaos", "aftermath"):
            sys.modules.pop(name)


def test_ten_faults_were_injected(story: Story) -> None:
    assert len(story.chaos.done) == FAULTS
    assert len(set(story.chaos.done)) > FAULTS / 2  # of nine kinds; which of them are possible is a matter of moments


def test_every_cell_is_there_once_with_the_status_it_deserves_and_no_process_is_left(story: Story) -> None:
    assert story.left.problems == ()


def test_the_log_tells_what_happened(story: Story) -> None:
    assert story.left.events["attempt-began"] > story.chaos.cohorts
    assert story.left.events["attempt-failed"] + story.left.events["node-lost"] >= 1


def test_the_table_has_a_block_for_each_class_of_nodes(story: Story) -> None:
    headings = [line for line in story.table.splitlines() if line.startswith("CPU; ")]
    assert [heading.split(";")[1].rsplit("-", 1)[1] for heading in headings] == ["blue", "red"]


def test_each_row_was_measured_on_its_class_and_nothing_on_the_head(story: Story) -> None:
    rows = story.left.rows
    assert set(rows["cores"].map(len)) == {1}
    assert rows.groupby("hardware_class")["cores"].agg(lambda cores: len({tuple(each) for each in cores})).max() == 1
    assert rows["packed"].all()
