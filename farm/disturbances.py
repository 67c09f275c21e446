"""The lines under a table's block about disturbed rounds: where they are left out, where they count, what they move."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from farm import packs
from farm.caveats import first_few
from farm.guards import advice
from farm.numerals import ratio_text
from farm.pairing import LEAST_CLEAN_ROUNDS
from farm.ratios import Ratio, Row, has_speedup, is_candidate

TOO_DISTURBED = 0.5
"""Above this share of disturbed rounds the undisturbed ones are the exception, and no picture of the machine."""

ALL_ROUNDS_APART = 0.01
"""Leaving rounds out is said where it moved a speedup by more than 1 %: half of what `standard` aims at, so less could
not change what a reader does."""


def disturbed_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Rounds that were left out, why, what to change, those that count, and the speedups that leaving out has moved."""
    cohorts = packs.fullest_of_cohorts(rows, _rounds)
    tainted = sum(map(_tainted, cohorts))
    if too := too_disturbed(rows):
        yield (
            f"This machine was too disturbed at length {packs.lengths_text(too, rows)}, in over half of the rounds: do "
            "not build on those numbers; measure again when the cause is gone."
        )
    if tainted:
        reasons = _most_frequent_first(cohorts)
        why = f" ({'; '.join(reasons)})" if reasons else ""
        yield (
            f"Left out if enough others remain, disturbed: {tainted} of {sum(map(_rounds, cohorts))} rounds"
            f"{why}.{_remedy(reasons)}"
        )
    if counting := counting_disturbed(rows):
        yield (
            f"Disturbed rounds that count, for a replica had fewer than {LEAST_CLEAN_ROUNDS} others: at length "
            f"{packs.lengths_text(counting, rows)}."
        )
    moved = [row for row in rows if is_candidate(row) and _moved(row) > ALL_ROUNDS_APART]
    if moved:
        texts = [_moved_text(row) for row in sorted(moved, key=_moved, reverse=True)]
        yield f"With disturbed rounds: {first_few(texts, 'cell')}."


def too_disturbed(rows: Sequence[Row]) -> list[Row]:
    """A row of each cohort in which over half of the rounds were disturbed."""
    cohorts = packs.fullest_of_cohorts(rows, _rounds)
    return [row for row in cohorts if _tainted(row) > TOO_DISTURBED * _rounds(row)]


def counting_disturbed(rows: Sequence[Row]) -> list[Row]:
    """A row of each cohort whose results are made of disturbed rounds, too: in a replica too few others remained."""
    return [row for row in packs.fullest_of_cohorts(rows, _rounds) if _counts_disturbed(row)]


def _counts_disturbed(row: Row) -> bool:
    measured, counted = row.get("rounds_measured"), row.get("rounds")
    return bool(has_speedup(row) and measured and counted and counted > measured - _tainted(row))


def _tainted(row: Row) -> int:
    return row.get("rounds_tainted") or 0


def _rounds(row: Row) -> int:
    return row.get("rounds_measured") or (row.get("rounds") or 0) + _tainted(row)


def _most_frequent_first(cohorts: Sequence[Row]) -> list[str]:
    """Reasons of several cohorts, each of which orders its own by frequency without saying how many they are."""
    weights: dict[str, float] = {}
    for row in cohorts:
        for place, reason in enumerate(row.get("taint_reasons") or (), 1):
            weights[reason] = weights.get(reason, 0) + _tainted(row) / place
    return sorted(weights, key=lambda reason: -weights[reason])


def _remedy(reasons: Sequence[str]) -> str:
    if not reasons:
        return ""
    sentence = advice(reasons[0])
    return f" Mostly {sentence}." if len(reasons) > 1 else f" {sentence[:1].upper()}{sentence[1:]}."


def _moved(row: Row) -> float:
    """How far a speedup over all rounds is from that over the undisturbed ones, as a fraction."""
    everything = row.get("speedup_all_rounds")
    return abs(math.log(everything / row["speedup"])) if everything and has_speedup(row) else 0.0


def _moved_text(row: Row) -> str:
    with_all, without = Ratio(row["speedup_all_rounds"]), Ratio(row["speedup"])
    return f"{row['name']} ({row['length']}) {ratio_text(with_all)} instead of {ratio_text(without)}"
