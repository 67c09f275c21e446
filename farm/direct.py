"""Methods compared with one another rather than with the baseline: lines under the table that a suite asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from farm.numerals import ratio_text
from farm.ratios import Row, geometric_mean_ratio, has_speedup, log_ratios_of


def direct_lines(rows: Sequence[Row], compare: Sequence[Sequence[str]], same_within: float) -> Iterator[str]:
    """How much faster each method of a group is than the group's first, over the lengths that both have.

    `rows` are of one block. In one pack both took turns in the same rounds against the same baseline, so the
    difference of their log ratios is the log ratio of the two; the noise of the baseline's turns cancels.
    """
    for first, *others in compare:
        texts = [text for name in others if (text := _against(rows, first, name, same_within))]
        if texts:
            yield f"Directly over {first}: {'; '.join(texts)}."


def _against(rows: Sequence[Row], first: str, other: str, same_within: float) -> str | None:
    references = {_place(row): row for row in rows if row["name"] == first and has_speedup(row)}
    pairs = [
        paired
        for row in sorted(rows, key=lambda row: row["length"])
        if row["name"] == other and has_speedup(row) and (reference := references.get(_place(row))) is not None
        if (paired := paired_row(reference, row)) is not None
    ]
    if not pairs:
        return None
    lengths = "" if len(pairs) == len(references) else f" (length {', '.join(str(row['length']) for row in pairs)})"
    return f"{other} {ratio_text(geometric_mean_ratio(pairs, same_within))}{lengths}"


def paired_row(reference: Row, row: Row) -> Mapping[str, object] | None:
    """A row of `row` over `reference`, of one cohort; None where they were not paired in the same rounds."""
    mine, theirs = log_ratios_of(row), log_ratios_of(reference)
    if [len(rounds) for rounds in mine] != [len(rounds) for rounds in theirs]:
        return None
    ratios = [ours - others for ours, others in zip(mine, theirs, strict=True)]
    return {"length": row["length"], "log_ratios": [list(rounds) for rounds in ratios]}


def _place(row: Row) -> tuple[object, object]:
    """Only rows of one cohort were measured in the same rounds."""
    return row.get("cohort"), row["length"]
