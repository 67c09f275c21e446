"""Methods of a group are compared with its first in the rounds they shared, and only there."""

from __future__ import annotations

import math

import pytest
from made_up import speedup_row, suite_of

from farm.direct import direct_lines
from farm.errors import RequestError
from farm.tables import speedup_table

GROUP = [["quantized", "pruned"]]


def _noisy(name: str, length: int, speedup: float, noise: float = 0.2) -> dict[str, object]:
    """Rounds whose noise is the baseline's: the same in every row of the cohort."""
    shared = [[noise * (-1) ** number for number in range(6)]] * 5
    own = [[math.log(speedup) + each + 0.001 * replica for each in shared[replica]] for replica in range(5)]
    return speedup_row(name, length, speedup=speedup, log_ratios=own)


def test_the_noise_of_the_baseline_cancels_in_a_direct_comparison() -> None:
    rows = [_noisy("quantized", 64, 2.0), _noisy("pruned", 64, 2.5)]
    assert list(direct_lines(rows, GROUP, 0.03)) == ["Directly over quantized: pruned 1.25x [1.25, 1.25]."]


def test_lengths_are_averaged_and_named_where_some_are_missing() -> None:
    rows = [_noisy("quantized", length, 2.0) for length in (64, 128)]
    both = [*rows, _noisy("pruned", 64, 2.5), _noisy("pruned", 128, 2.5)]
    assert list(direct_lines(both, GROUP, 0.03)) == ["Directly over quantized: pruned 1.25x [1.25, 1.25]."]
    one = [*rows, _noisy("pruned", 128, 2.5)]
    assert list(direct_lines(one, GROUP, 0.03)) == ["Directly over quantized: pruned 1.25x [1.25, 1.25] (length 128)."]


def test_rows_of_different_cohorts_or_rounds_are_not_compared() -> None:
    first = _noisy("quantized", 64, 2.0)
    elsewhere = _noisy("pruned", 64, 2.5) | {"cohort": "another pack"}
    shorter = _noisy("pruned", 64, 2.5) | {"log_ratios": [[0.9] * 4] * 5}
    failed = _noisy("pruned", 64, 2.5) | {"status": "failed", "speedup": None}
    for other in (elsewhere, shorter, failed):
        assert list(direct_lines([first, other], GROUP, 0.03)) == []


def test_a_table_has_the_comparisons_its_suite_asks_for() -> None:
    rows = [
        speedup_row("pytorch"),
        speedup_row("pytorch~twin"),
        _noisy("quantized", 64, 2.0),
        _noisy("pruned", 64, 3.0),
    ]
    assert any("Directly over quantized: pruned 1.50x" in line for line in _footer(rows, GROUP))
    assert not any("Directly" in line for line in _footer(rows, []))


def _footer(rows: list[dict[str, object]], compare: list[list[str]]) -> tuple[str, ...]:
    return speedup_table(rows, compare=compare).blocks[0].footer


@pytest.mark.parametrize(
    ("group", "words"),
    [
        (["control-work", "control-wrnog"], "compare: 'control-wrnog' is not one of the methods"),
        (["control-null", "control-work"], "compare: 'control-null' is the baseline"),
    ],
)
def test_a_comparison_must_name_methods_other_than_the_baseline(group: list[str], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        suite_of(compare=[group])
