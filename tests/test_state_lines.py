"""Claims about what a table says of the machine's states: how often it changed, and what that did to the speedups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from made_up import speedup_row, speedup_rows, state, with_changes

from farm.tables import speedup_table


def footer_of(rows: Sequence[dict[str, Any]]) -> str:
    """The lines under the only block."""
    return "\n".join(speedup_table(rows, effort="standard").blocks[0].footer)


def test_a_change_of_the_machines_state_is_said_with_its_rounds() -> None:
    states = [state("usual", 48, 2.4), state("bf16 slower", 12, 1.9)]
    footer = footer_of(with_changes(speedup_rows(64, 256), "quantized", 256, states=states))
    assert "The machine changed while measuring: bf16 slower in 12 of 60 rounds at length 256." in footer
    by_state = "quantized (256) usual 2.40x [2.35, 2.45], bf16 slower 1.90x [1.86, 1.94]."
    assert f"Speedup by state (the two furthest apart): {by_state}" in footer


def test_states_with_too_few_rounds_for_a_speedup_are_counted_only() -> None:
    states = [state("memory slower", 2), state("usual", 58, 2.4)]
    footer = footer_of(with_changes(speedup_rows(64), "quantized", 64, states=states))
    assert "memory slower in 2 of 60 rounds at length 64." in footer
    assert "by state" not in footer


def test_the_same_state_at_several_lengths_is_added_up() -> None:
    rows = speedup_rows(64, 128, 256)
    for length, rounds in ((64, 3), (256, 4)):
        states = [state("usual", 50), state("fp32 slower, memory faster", rounds)]
        rows = with_changes(rows, "onnxruntime", length, states=states)
    assert "fp32 slower and memory faster in 7 of 107 rounds at length 64, 256." in footer_of(rows)


def test_of_many_states_the_most_frequent_are_named() -> None:
    states = [state("usual", 40), *(state(f"state {number}", number) for number in range(1, 7))]
    line = footer_of(with_changes(speedup_rows(64), "quantized", 64, states=states)).splitlines()[1]
    named = "state 6 in 6, state 5 in 5, state 4 in 4, and 3 more states in 6 of 61 rounds at length 64."
    assert line == f"The machine changed while measuring: {named}"


def test_of_a_cells_many_states_the_two_furthest_apart_are_told_and_of_many_cells_those_furthest_apart() -> None:
    def states(furthest: float) -> list[dict[str, Any]]:
        return [state("usual", 30, 2.0), state("int8 faster", 20, 2.1), state("memory slower", 10, furthest)]

    rows = [
        speedup_row("quantized", length, states=states(furthest))
        for length, furthest in ((64, 1.9), (128, 1.5), (256, 1.7), (512, 1.8))
    ]
    line = next(line for line in footer_of(rows).splitlines() if line.startswith("Speedup by state"))
    first = "quantized (128) int8 faster 2.10x [2.06, 2.14], memory slower 1.50x [1.47, 1.53]"
    assert line.startswith(f"Speedup by state (the two furthest apart): {first}; quantized (256) int8 faster")
    assert line.endswith("; and 2 more cells.")


def test_rounds_without_a_sentinels_reading_are_no_change() -> None:
    states = [state("usual", 50, 2.0), state(None, 10, 2.1)]
    assert "changed" not in footer_of(with_changes(speedup_rows(64), "quantized", 64, states=states))
