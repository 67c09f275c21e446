"""Does this machine measure honestly? Work of known ratios through the real engine, and what it made of them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from farm.driver import run_suite
from farm.events import Event, Listener, Notice, ReplicaDone, RoundDone, Silent, Step
from farm.honesty import Evidence, Known, SelfCheck, judge
from farm.records import Device
from farm.results import Results
from farm.speedups import current
from farm.stopping import Effort
from farm.suite import Suite, parse_suite
from tasks.control_model import LENGTH, write_control_model, write_control_texts

UNITS = 200
"""Of the control's work in a baseline call: some 5 ms, so that a turn of 100 ms holds twenty, and every percent of it
is a whole number of units."""

MORE_WORK = (2, 5, 20)
"""Percent: what the farm aims to tell apart, what is worth deploying, and what nobody should miss."""

BASELINE = "work"

KNOWN = (
    Known(f"{BASELINE}~twin", "A/A: the same work in another process", 1.0),
    *(Known(f"{BASELINE}+{percent}", f"{percent} % more work", 1 + percent / 100) for percent in MORE_WORK),
)


@dataclass(frozen=True, slots=True)
class Amount:
    """How much to measure in rounds, and in blocked order beside them."""

    interleaved: Effort
    blocked: Effort


AMOUNTS: Mapping[str, Amount] = {
    # Two minutes on two cores, Ray's start included. A replica of five cells costs 10 s before its first round, and
    # five replicas are the fewest whose differences give an interval; the budgets stop slow machines, no others.
    "quick": Amount(
        Effort(replicas=5, most_replicas=5, most_rounds=12, half_width=0.02, budget_s=90, turn_calls=7),
        Effort(replicas=1, most_replicas=1, most_rounds=12, half_width=0.02, budget_s=25, turn_calls=7),
    ),
    "standard": Amount(
        Effort(replicas=10, most_replicas=10, most_rounds=16, half_width=0.01, budget_s=360, turn_calls=7),
        Effort(replicas=3, most_replicas=3, most_rounds=16, half_width=0.01, budget_s=120, turn_calls=7),
    ),
}


WORK: Mapping[Device, str] = {"cpu": "control-work", "cuda": "control-gpu-work"}
"""The method whose time is known, by the device that it keeps busy."""


def check(
    amount: Amount = AMOUNTS["quick"],
    *,
    device: Device = "cpu",
    keep: str | Path | None = None,
    listener: Listener | None = None,
) -> SelfCheck:
    """Measure fixed work of known ratios on this machine, in rounds and in blocked order, and judge both.

    On a GPU everything that watches it takes part. Results go to the folder `keep`, or to a temporary one that is
    removed. Needs no model and no network; starts a private Ray, twice. Raises what `run_suite` raises.
    """
    started = time.monotonic()
    listener = listener or Silent()
    with tempfile.TemporaryDirectory(prefix="farm-selfcheck-") as scratch:
        folder = Path(scratch)
        results = Path(keep) if keep is not None else folder / "results"
        write_control_model(folder / "model")
        write_control_texts(folder / "texts.csv")
        interleaved = _measure(known_suite(folder, "interleaved", device), results, amount.interleaved, listener)
        blocked = _measure(known_suite(folder, "blocked", device), results, amount.blocked, listener)
    return judge(KNOWN, interleaved, blocked, amount.interleaved.replicas, time.monotonic() - started)


def known_suite(folder: Path, order: str, device: Device = "cpu") -> Suite:
    """The known cells on one core: their work is single-threaded, and the kernel is not to choose where it runs."""
    more = [
        {
            "method": WORK[device],
            "name": f"{BASELINE}+{percent}",
            "options": {"units": UNITS * (100 + percent) // 100},
        }
        for percent in MORE_WORK
    ]
    keys = {
        "name": f"selfcheck-{order}",
        "model": str(folder / "model"),
        "methods": [{"method": WORK[device], "name": BASELINE, "options": {"units": UNITS}}, *more],
        "lengths": [LENGTH],
        "devices": [device],
        "threads": [1],
        "order": order,
        "sentinels": False,  # they need PyTorch, and what this looks at are the farm's own eyes
        "accuracy": {"dataset": str(folder / "texts.csv")},
    }
    return parse_suite(keys, "selfcheck")


def _measure(suite: Suite, results: Path, effort: Effort, listener: Listener) -> Evidence:
    progress = StageProgress(listener, f"{suite.order} order", effort)
    outcome = run_suite(suite, results, fresh=True, command="farm selfcheck", listener=progress, effort=effort)
    store = Results(outcome.root, outcome.run).store
    return Evidence(
        speedups=current(store, outcome.run).to_pylist(),
        measurements=store.read_measurements(outcome.run).to_pylist(),
    )


class StageProgress:
    """Tells how far a part of the check is; what a run says of its ratios and its time is not the check's to repeat."""

    def __init__(self, listener: Listener, stage: str, effort: Effort) -> None:
        self._listener = listener
        self._stage = stage
        self._effort = effort
        self._done = 0

    def on(self, event: Event) -> None:
        """Pass on warnings, and progress as one stage."""
        match event:
            case Step(stage="measure"):
                self._tell("measuring", event.done / event.total)
            case Step():
                self._tell(event.stage, 0.0)
            case RoundDone():
                self._tell("measuring", event.rounds / self._effort.most_rounds)
            case ReplicaDone():
                self._done += 1
            case Notice() if "budget" not in event.message:  # that one names a setting of runs; the check has its own
                self._listener.on(event)

    def _tell(self, note: str, part: float) -> None:
        self._listener.on(Step(self._stage, self._done + part, self._effort.replicas, note))
