"""The sentences under a speedup table: what its numbers mean, and what to distrust."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from farm import stats
from farm.ratios import Row, geometric_mean_ratio, has_speedup, log_ratios_of

MORE_CERTAIN = {"quick": "standard", "standard": "rigorous"}


def failure_text(row: Row) -> str | None:
    """Why a row is not ok; None for one that is."""
    if row.get("status", "ok") == "ok":
        return None
    return f"{row['name']} {row['status']}: {'; '.join(row.get('reasons') or ()) or 'no reason recorded'}"


def remark_lines(rows: Sequence[Row]) -> Iterator[str]:
    """What to know about rows that are ok: each remark once, with the cells it applies to."""
    remarks: dict[str, dict[str, list[int]]] = {}
    for row in sorted(rows, key=lambda row: row["length"]):
        for reason in (row.get("reasons") or ()) if row.get("status", "ok") == "ok" else ():
            remark = re.sub(r" \(\d+ of \d+ replicas\)$", "", reason)
            remarks.setdefault(remark, {}).setdefault(row["name"], []).append(row["length"])
    for remark, cells in remarks.items():
        where = "; ".join(f"{name} ({_listed(lengths)})" for name, lengths in cells.items())
        yield f"{remark[:1].upper()}{remark[1:]}, in one replica or more: {where}."


def mean_lines(rows: Sequence[Row], lengths: Sequence[int], shared: Sequence[int]) -> Iterator[str]:
    """Which cells the means cover. `shared` are the lengths at which all methods have a speedup."""
    candidates = [row for row in rows if row.get("role") not in ("baseline", "twin")]
    if not candidates:
        return
    if not shared:
        yield "No means: there is no length at which all methods have a speedup."
        return
    averaged = [row for row in candidates if row["length"] in shared and has_speedup(row)]
    over = f"length{'s' if len(shared) > 1 else ''} {_listed(shared)}"
    why = "" if len(shared) == len(lengths) else ", which all methods share"
    yield f"Means over {over}{why}: {len(averaged)} of {len(candidates)} cells."
    yield (
        "Founding average: arithmetic mean of the percentages (baseline / method - 1), as the founding experiment "
        "printed it. Judge by the geometric mean."
    )


def accuracy_lines(rows: Sequence[Row]) -> Iterator[str]:
    """How many texts the accuracies rest on."""
    texts = sorted({row["accuracy_n"] for row in rows if row.get("accuracy_n")})
    if texts:
        yield f"Accuracy on {_listed(texts)} held-out texts; in brackets the change from the baseline in points."


def twin_lines(rows: Sequence[Row], same_within: float) -> Iterator[str]:
    """How far two equal processes were measured apart, judged over all lengths together."""
    twins = sorted((row for row in rows if row.get("role") == "twin"), key=lambda row: row["length"])
    for row in twins:
        if not has_speedup(row):
            yield f"A/A twin at length {row['length']}: {failure_text(row)}"
    measured = [row for row in twins if has_speedup(row)]
    if not measured:
        yield "A/A twin: none measured, so nothing here shows how far two equal processes come out apart."
        return
    mean = geometric_mean_ratio(measured, same_within)
    ends = f" [{mean.low:.3f}, {mean.high:.3f}]" if mean.low is not None else ""
    each = _listed([f"{row['speedup']:.3f}x" for row in measured])
    by_length = f", by length {each}" if len(measured) > 1 else ""
    off = _twins_apart(measured)
    yield f"A/A twin, the baseline run twice: {mean.speedup:.3f}x{ends}{by_length}. " + (
        f"Warning: apart at length {_listed(off)}; do not trust differences of this size."
        if off
        else "Equal within the noise, as it should be."
    )


def table_lines(rows: Sequence[Row], same_within: float, effort: str | None, command: str) -> Iterator[str]:
    """How to read the table, what its intervals leave out, and last how to ask for more certainty."""
    if not rows:
        yield "`farm run` measures; rows appear as each cohort ends."
        return
    kinds = {row.get("interval") for row in rows}
    if kinds != {None}:
        yield (
            f"[low, high] is a 95 % interval; faster or slower: it excludes 1; same: all of it within "
            f"{100 * same_within:g} % of 1; unclear: neither."
        )
    if kinds & {"one-replica", "one-round"}:
        yield (
            "One replica: how far fresh processes of the same cell differ was not measured; intervals are widened by "
            f"a stored {100 * stats.BETWEEN_PROCESS_SD:.1f} % (standard deviation) for it."
        )
    if "one-round" in kinds:
        yield "Some cells have a single round: their intervals rest on stored deviations alone."
    unclear = any(row.get("verdict") == "unclear" for row in rows if row.get("role") == "candidate")
    if effort == "quick" or (effort == "standard" and unclear):
        plain = re.sub(r"\s--effort[ =]\S+", "", command)
        from_shell = plain.startswith("farm ")
        ask = (
            f"{plain} --effort {MORE_CERTAIN[effort]}" if from_shell else f"effort: {MORE_CERTAIN[effort]} in the suite"
        )
        yield f"For more certainty: {ask}"


def _twins_apart(rows: Sequence[Row]) -> list[int]:
    """Lengths whose twin differs even when all are judged together: the first step of Holm, 5 % for the family."""
    confidence = 1 - (1 - stats.CONFIDENCE) / len(rows)
    with_rounds = [row for row in rows if row.get("log_ratios")]
    judged = [(row["length"], stats.estimate(log_ratios_of(row), confidence=confidence)) for row in with_rounds]
    return [length for length, found in judged if not found.low <= 1 <= found.high]


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))
