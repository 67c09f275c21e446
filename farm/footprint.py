"""What deploying a method at several lengths takes: artifacts that lengths share count once, others add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from farm.errors import RequestError
from farm.ratios import Row
from tasks.method import find_method


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of the artifacts of all lengths, and seconds to make them; None is what nobody measured.

    Unless `whole`, it is not known which lengths share an artifact, and both are those of the dearest single length.
    """

    lengths: int
    artifact_bytes: int | None
    prepare_s: float | None
    whole: bool

    @property
    def over_lengths(self) -> str:
        """What goes with a figure: ` for 4 lengths`, ` per length`, or nothing where there is one length."""
        if self.lengths == 1:
            return ""
        return f" for {self.lengths} lengths" if self.whole else " per length"


def footprint_of(rows: Sequence[Row]) -> Footprint:
    """The footprint of a method from one row of SPEEDUP_SCHEMA for each of its lengths."""
    keys = dict.fromkeys(row.get("artifact_key") for row in rows)
    whole = len(rows) == 1 or None not in keys
    # By the artifact where all are known; else as if all lengths shared one.
    groups = [[row for row in rows if row.get("artifact_key") == key] for key in keys] if whole else [list(rows)]
    sizes, seconds = ([_largest(group, name) for group in groups] for name in ("artifact_bytes", "prepare_s"))
    size = _largest(rows, "artifact_bytes") if _reads_checkpoint(rows[0]) else _sum(sizes)
    return Footprint(len(rows), None if size is None else int(size), _sum(seconds), whole)


def _reads_checkpoint(row: Row) -> bool:
    """Whether the sizes hold the model's weights, which are there once; all else is some code, under 1 %."""
    try:
        return bool(row.get("method")) and find_method(row["method"]).reads_checkpoint
    except RequestError:  # a method of somebody else's that is not installed here
        return False


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _largest(rows: Sequence[Row], column: str) -> float | None:
    return max((row[column] for row in rows if row.get(column) is not None), default=None)
