"""Packs: cohorts that the methods of one length were split into, each with a baseline and a twin of its own. Pure.

Whatever is given here is of one block (one hardware class, device, batch size, number of threads, kind of inputs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from farm import stats
from farm.ratios import Row, has_speedup, is_candidate

_LATENCIES = ("latency_p50_ns", "latency_p90_ns", "latency_p95_ns", "latency_p99_ns", "device_p50_ns")

_SUMMARIES: Mapping[str, Callable[[list[Any]], Any]] = {
    **dict.fromkeys(("replicas", "rounds", "rounds_measured", "rounds_tainted", "samples"), sum),
    **dict.fromkeys((*_LATENCIES, "baseline_p50_ns", "limit_ns", "limit_fraction"), stats.geometric_mean),
    **dict.fromkeys(("load_s", "first_call_ns", "warmup_calls", "cpu_ns_per_call", "energy_j_per_call"), median),
    **dict.fromkeys(("gpu_energy_j_per_call", "gpu_power_w", "gpu_sm_mhz"), median),
    **dict.fromkeys(("artifact_bytes", "prepare_s", "peak_rss_bytes", "vram_bytes", "allocated_vram_bytes"), max),
}
"""Latencies as comparisons of runs pool them (`joining`), costs as over replicas (`costs`): packs are more of those."""


def pooled(rows: Iterable[Row]) -> list[Row]:
    """The same rows with one of the baseline at each length: over all packs, or the first that has no result."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for place, row in enumerate(rows):
        key = ("baseline", row["name"], row["length"]) if row.get("role") == "baseline" else (place,)
        groups.setdefault(key, []).append(row)
    return [_merged(group) for group in groups.values()]


def _merged(rows: Sequence[Row]) -> Row:
    broken = next((row for row in rows if not has_speedup(row)), None)
    if len(rows) == 1 or broken is not None:
        return broken or rows[0]
    speaks = next((row for row in rows if row.get("accuracy") is not None), rows[0])
    merged = {**speaks, "reasons": list(dict.fromkeys(reason for row in rows for reason in row.get("reasons") or ()))}
    for column, summary in _SUMMARIES.items():
        known = [row[column] for row in rows if row.get(column) is not None]
        # A percentile that the samples of one pack do not support is not known of all.
        supported = len(known) == len(rows) if column in _LATENCIES else bool(known)
        if column in speaks or known:
            merged[column] = summary(known) if supported else None
    return merged


def pack_numbers(rows: Iterable[Row]) -> dict[str, int]:
    """The number, from 1, of each cohort at a length that has several packs; empty where there is but one at each.

    By the names of their methods, so that packs of the same methods have the same number at every length.
    """
    methods: dict[int, dict[str, list[str]]] = {}
    for row in rows:
        if row.get("cohort"):
            names = methods.setdefault(row["length"], {}).setdefault(row["cohort"], [])
            names += [row["name"]] if is_candidate(row) else []
    found = {}
    for cohorts in methods.values():
        if len(cohorts) > 1:
            ordered = sorted(cohorts, key=lambda cohort: (min(cohorts[cohort], default=""), cohort))
            found.update({cohort: number for number, cohort in enumerate(ordered, 1)})
    return found


def in_order(rows: Sequence[Row]) -> list[Row]:
    """By length, then by pack."""
    numbers = pack_numbers(rows)
    return sorted(rows, key=lambda row: (row["length"], numbers.get(row.get("cohort") or "", 0)))


def lengths_text(some: Iterable[Row], rows: Sequence[Row]) -> str:
    """The lengths of `some` of the block's `rows`, with the packs where not all are meant: `64, 128 (pack 2)`."""
    numbers = pack_numbers(rows)
    every: dict[int, set[int]] = {}
    for row in rows:
        every.setdefault(row["length"], set()).update({numbers[row["cohort"]]} if row.get("cohort") in numbers else ())
    meant: dict[int, set[int]] = {}
    for row in some:
        meant.setdefault(row["length"], set()).update({numbers[row["cohort"]]} if row.get("cohort") in numbers else ())
    return ", ".join(
        str(length) if meant[length] == every.get(length) else f"{length} ({_packs_text(meant[length])})"
        for length in sorted(meant)
    )


def _packs_text(numbers: Iterable[int]) -> str:
    first, *others = sorted(numbers)
    return f"packs {first}{''.join(f' and {number}' for number in others)}" if others else f"pack {first}"


def pack_lines(rows: Sequence[Row]) -> Iterator[str]:
    """How many packs there are, what each has, and over which baseline a speedup is then."""
    numbers = pack_numbers(rows)
    if not numbers:
        return
    split = sorted({row["length"] for row in rows if row.get("cohort") in numbers})
    counts = sorted({max(numbers[row["cohort"]] for row in rows if row["length"] == length) for length in split})
    number = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    yield (
        f"Measured in {number} packs{_members_text(rows, numbers)} at length {', '.join(map(str, split))}: each "
        "method's speedup is over the baseline of its own pack; "
        "the baseline's row pools them (geometric means of latencies)."
    )


def _members_text(rows: Sequence[Row], numbers: Mapping[str, int]) -> str:
    """A method of each pack to know it by; nothing where packs of one number differ between lengths."""
    packs: dict[int, dict[str, None]] = {}
    for row in rows:
        if is_candidate(row) and has_speedup(row) and row.get("cohort") in numbers:
            packs.setdefault(numbers[row["cohort"]], {})[row["name"]] = None
    names = [name for members in packs.values() for name in members]
    if len(names) != len(set(names)):
        return ""
    each = [f"{number}: {_with_others(list(packs[number]))}" for number in sorted(packs)]
    return f" ({'; '.join(each)})" if each else ""


def _with_others(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def fullest_of_cohorts(rows: Iterable[Row], rounds: Callable[[Row], int]) -> list[Row]:
    """For each cohort the row with the most rounds: its cells share them, and one that failed has seen fewer."""
    fullest: dict[object, Row] = {}
    for row in rows:
        cohort = row.get("cohort") or row["length"]
        if cohort not in fullest or rounds(row) > rounds(fullest[cohort]):
            fullest[cohort] = row
    return sorted(fullest.values(), key=lambda row: row["length"])
