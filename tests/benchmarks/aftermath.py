"""What is left of a run that went through faults: its rows, its log, its processes, and what is wrong with them."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import psutil
from control_suites import Place

GONE_S = 10.0
"""How long processes may take to go with what they belonged to."""

CRASHING = "crashes"
"""The method that fails on purpose, always in the same way."""


@dataclass(frozen=True, slots=True)
class Done:
    """What was done to a run of so many cohorts of so many cells each: kinds of faults, and names of cells hurt."""

    faults: Sequence[str]
    hurt: frozenset[str]
    cohorts: int
    cells: int


@dataclass(frozen=True, slots=True)
class Aftermath:
    """`problems` is empty where every promise was kept."""

    rows: pd.DataFrame
    events: Counter[str]
    problems: tuple[str, ...]


def aftermath(place: Place, done: Done) -> Aftermath:
    """Look at the results, the log and the processes of a place."""
    runs = sorted((place.results / "measurements").iterdir())
    rows = pd.read_parquet(runs[0])
    logs = sorted(place.results.glob("logs/*/*.jsonl"))
    events = [json.loads(line) for path in logs for line in path.read_text().splitlines()]
    problems = [
        *([f"{len(runs)} runs where one was continued"] if len(runs) > 1 else []),
        *_miscounted(rows, done),
        *(problem for row in rows.to_dict("records") for problem in _undeserved(row, done.hurt)),
        *_untold(rows, events, done),
        *(f"left: {title}" for title in _left(place)),
    ]
    return Aftermath(rows, Counter(event["event"] for event in events), tuple(problems))


def title(process: psutil.Process) -> str:
    """How a process calls itself; nothing where it is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _miscounted(rows: pd.DataFrame, done: Done) -> Iterator[str]:
    expected = done.cohorts * done.cells
    if len(rows) != expected or rows.duplicated(["cohort", "cell", "replica"]).any():
        yield f"{len(rows)} rows where {expected} different ones were planned"


def _undeserved(row: dict[str, Any], hurt: frozenset[str]) -> Iterator[str]:
    """What is wrong with a row's status."""
    if row["name"] == CRASHING:
        if row["status"] != "failed" or "raises on purpose" not in row["reasons"][0]:
            yield f"{row['cell']} crashes and is {row['status']}"
    elif row["status"] == "failed" and row["cell"] not in hurt:
        yield f"{row['cell']} failed ({row['reasons'][0]}) though nothing was done to it"
    elif row["status"] == "ok" and (len(set(row["round"])) < 4 or not len(row["latency_ns"])):
        yield f"{row['cell']} is ok without having been measured"
    elif row["status"] not in ("ok", "failed"):
        yield f"{row['cell']} is {row['status']}"


def _untold(rows: pd.DataFrame, events: Sequence[dict[str, Any]], done: Done) -> Iterator[str]:
    """What happened and is not in the log. A driver may be killed between a publication and its line."""
    failed = {(event["cohort"], event["cell"]) for event in events if event["event"] == "cell-failed"}
    given_up = {event["cohort"] for event in events if event["event"] == "attempt-failed"}
    of_cells = [row for row in rows.to_dict("records") if row["status"] == "failed" and row["cohort"] not in given_up]
    if any((row["cohort"], row["name"]) not in failed for row in of_cells):
        yield "cells failed of which the log does not tell"
    published = {(event["cohort"], event["replica"]) for event in events if event["event"] == "published"}
    if len(published) + done.faults.count("driver killed") + done.faults.count("part damaged") < done.cohorts:
        yield "the log does not tell of every publication"


def _left(place: Place) -> list[str]:
    """Processes that a cohort or a driver left behind, after a while."""
    until = time.monotonic() + GONE_S
    while True:
        named = [title(process) for process in place.processes()]
        ours = [name for name in named if "ray.dashboard" not in name]  # whose arguments are all that is installed
        mine = [name for name in ours if "farm" in name or "CohortProcess" in name]
        if not mine or time.monotonic() > until:
            return mine
        time.sleep(0.2)
