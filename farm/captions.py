"""The sentences under a speedup table that say how to read it, and how to ask for more (`caveats` has the rest)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from farm import stats
from farm.figures import steps_of
from farm.numerals import figure_text
from farm.proportions import paired_difference_interval
from farm.ratios import (
    FALSE_CLAIMS,
    Row,
    accuracy_change,
    accuracy_row,
    claims_of,
    has_speedup,
    is_candidate,
    is_unresolved,
)
from farm.stopping import EFFORTS

MOST_PREPARED = 4
"""Methods whose steps of preparing are listed: a line is to be read, and `farm query` has the others'."""

LEAST_STEP = 0.01
"""Steps of less than a hundredth of the whole are not listed: they are nobody's reason to wait."""


def mean_lines(rows: Sequence[Row], lengths: Sequence[int], shared: Sequence[int]) -> Iterator[str]:
    """Which cells the means cover. `shared` are the lengths at which all methods have a speedup."""
    candidates = [row for row in rows if is_candidate(row)]
    if not candidates:
        return
    if not shared:
        yield "No means: there is no length at which all methods have a speedup."
        return
    averaged = [row for row in candidates if row["length"] in shared and has_speedup(row)]
    over = f"length{'s' if len(shared) > 1 else ''} {', '.join(map(str, shared))}"
    why = "" if len(shared) == len(lengths) else ", which all methods share"
    yield f"Means over {over}{why}: {len(averaged)} of {len(candidates)} cells."
    yield "Founding average: mean of baseline / method - 1, as first published; judge by the geometric mean."


def accuracy_lines(rows: Sequence[Row]) -> Iterator[str]:
    """How many texts the accuracies rest on and at which length (the shortest, where methods are judged), how a change
    is to be read, and what the limit and a test make of it."""
    texts = sorted({row["accuracy_n"] for row in rows if row.get("accuracy_n")})
    if not texts:
        return
    number = ", ".join(map(str, texts))
    baseline = next((row for row in rows if row.get("role") == "baseline" and row.get("accuracy_low")), None)
    within = f", the baseline's within {_percentages(baseline)}" if baseline else ""
    methods = _by_accuracy(rows)
    measured = any(row.get("accuracy_drop_low_points") is not None for row in methods.values())
    reading = f" [paired 95 % interval]; none: right on the same texts (+-{_least(texts[0]):.2g})" if measured else ""
    judged = f"{number} held-out texts at length {min(row['length'] for row in rows)}"
    answers = {(row["name"], row["accuracy"], row.get("agreement")) for row in rows if row.get("accuracy") is not None}
    if len(answers) > len({name for name, *_ in answers}):
        judged += ", of a method's artifacts that differ the worst"
    yield f"Accuracy on {judged}{within}; below it the change from the baseline in points{reading}."
    yield from _limit_lines(methods)
    beyond_chance = [
        f"{name} (p = {row['mcnemar_p']:.2g})"
        for name, row in methods.items()
        if row.get("mcnemar_p") is not None and row["mcnemar_p"] < FALSE_CLAIMS
    ]
    if beyond_chance:
        yield f"Accuracy changed beyond chance, by McNemar's exact test: {', '.join(beyond_chance)}."


def _limit_lines(methods: Mapping[str, Row]) -> Iterator[str]:
    """What the accuracy limit judges, and the methods that passed it on these texts without being shown to keep it."""
    limit = next((row["max_drop_points"] for row in methods.values() if row.get("max_drop_points") is not None), None)
    if limit is None:
        return
    unsure = [
        name
        for name, row in methods.items()
        if row.get("gate") == "pass" and accuracy_change(row) and (row.get("accuracy_drop_high_points") or 0.0) > limit
    ]
    reach = f"; reaching beyond it: {', '.join(unsure)}" if unsure else ""
    yield f"Accuracy limit: a drop of {limit:g} points, judged by the change itself, not by its interval{reach}."


def _by_accuracy(rows: Sequence[Row]) -> dict[str, Row]:
    """For each method with an accuracy, the row that speaks for it."""
    names = dict.fromkeys(row["name"] for row in rows if is_candidate(row))
    found = {name: accuracy_row([row for row in rows if row["name"] == name]) for name in names}
    return {name: row for name, row in found.items() if row is not None}


def _percentages(row: Row) -> str:
    return f"[{100 * row['accuracy_low']:.1f}, {100 * row['accuracy_high']:.1f}]"


def _least(texts: int) -> float:
    """The points that the interval reaches either way where both are right on the same texts."""
    return 100 * paired_difference_interval(0, 0, texts)[1]


def limit_lines(rows: Sequence[Row]) -> Iterator[str]:
    """What the share of the limit is a share of."""
    if any(row.get("limit_fraction") is not None for row in rows):
        yield (
            "Limit: share reached of what the machine allowed in the same rounds, least to most over the lengths: "
            "operations of each product over the sentinel's rate for it, or bytes over bandwidth if larger."
        )


def cost_lines(rows: Sequence[Row]) -> Iterator[str]:
    """How to read the costs, and what the dearest preparations consist of."""
    if all(row.get("load_s") is None for row in rows):
        return
    yield (
        "Costs: the most, or least to most, over the lengths. CPU: time of all threads. Pays off: calls after which "
        "preparing and loading it are won back from the baseline."
    )
    if any(row.get("prepare_s") for row in rows) and len({row["length"] for row in rows}) > 1:
        yield "Prepare: the first that a process makes includes imports; other lengths often follow in the same one."
    if any(row.get("device_p50_ns") is not None for row in rows):
        yield (
            "GPU ms: by the GPU's own clock from a call's first copy to its last, waits for launches included. GPU MB: "
            "by how much loading made its used memory grow. Energy and power are the whole board's."
        )
    dearest: dict[str, Row] = {}
    for row in (row for row in rows if row.get("role") != "twin"):  # which is prepared with its baseline
        if len(steps_of(row)) > 1 and (row["prepare_s"] or 0) > (dearest.get(row["name"], {}).get("prepare_s") or 0):
            dearest[row["name"]] = row
    first = sorted(dearest.values(), key=lambda row: -row["prepare_s"])[:MOST_PREPARED]
    if first:
        yield f"Dearest to prepare: {'; '.join(map(_prepared_text, first))}."


def _prepared_text(row: Row) -> str:
    least_s = LEAST_STEP * row["prepare_s"]
    told = [(name, seconds) for name, seconds in steps_of(row).items() if seconds >= least_s]
    steps = ", ".join(f"{name} {figure_text(seconds)}" for name, seconds in told)
    return f"{row['name']} {figure_text(row['prepare_s'])} s ({steps})"


def table_lines(
    rows: Sequence[Row], same_within: float, effort: str | None, command: str, order: str | None
) -> Iterator[str]:
    """How to read the table, what its intervals leave out, and last how to ask for more certainty."""
    if not rows:
        yield "`farm run` measures; rows appear as each cohort ends."
        return
    if order == "blocked":
        yield (
            "Blocked order: all turns of one cell came before the next one's, so what drifted meanwhile is in the "
            "ratios, and intervals need not cover it."
        )
    kinds = {row.get("interval") for row in rows}
    if kinds != {None}:
        yield (
            f"Faster or slower: the interval excludes 1; same: all of it within {100 * same_within:g} % of 1; "
            "unclear: neither."
        )
    if kinds & {"one-replica", "one-round"}:
        yield (
            "One replica: how far fresh processes of the same cell differ was not measured; intervals are widened by "
            f"a stored {100 * stats.BETWEEN_PROCESS_SD:.1f} % (standard deviation) for it."
        )
    if "one-round" in kinds:
        yield "Some cells have a single round: their intervals rest on stored deviations alone."
    if claims_of(rows):
        yield "After Holm: how many lengths stay faster or slower with all claims of the table judged together."
    more = _more_certain(rows, effort, command)
    if more:
        yield f"For more certainty: {more}"


def _more_certain(rows: Sequence[Row], effort: str | None, command: str) -> str | None:
    """What to run for narrower intervals: the next effort or, where an effort has not reached its aim, more of it."""
    if effort is None or effort not in EFFORTS:
        return None
    if effort == "quick":
        return _with_effort("standard", command)
    unresolved = [row for row in rows if is_unresolved(row)]
    had_budget = EFFORTS[effort].budget_s is not None or "budget_s=" in command
    if had_budget and any((row.get("replicas") or 0) < EFFORTS[effort].most_replicas for row in unresolved):
        return f"{_with_budget(command)}, or a quieter machine"
    unclear = any(row.get("verdict") == "unclear" for row in rows if is_candidate(row))
    if effort == "standard" and (unresolved or unclear):
        return _with_effort("rigorous", command)
    return "a quieter machine" if unresolved else None


def _with_effort(effort: str, command: str) -> str:
    plain = re.sub(r"\s(--effort[ =]|--set[ =]effort=)\S+", "", command)
    return f"{plain} --effort {effort}" if _from_shell(command) else f"effort: {effort} in the suite"


def _with_budget(command: str) -> str:
    plain = re.sub(r"\s--set[ =]budget_s=\S+", "", command)
    return f"{plain} --set budget_s=SECONDS" if _from_shell(command) else "budget_s: SECONDS in the suite"


def _from_shell(command: str) -> bool:
    return command.startswith("farm ")
