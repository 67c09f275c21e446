"""Beginning a run, or continuing the unfinished one that asked for the same."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from farm import __version__
from farm.events import Listener, Notice
from farm.hardware import takes_every_class
from farm.plan import Plan
from farm.records import ModelInfo, Slot
from farm.schemas import RUN_SCHEMA
from farm.store import RunRecord, Store
from farm.suite import Suite, request_sha256


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that can be measured: its record, and whether it was begun earlier."""

    record: RunRecord
    continued: bool


def open_run(
    store: Store,
    plan: Plan,
    environment: Mapping[str, Any],
    command: str,
    *,
    texts_sha256: str | None = None,
    fresh: bool = False,
) -> OpenRun:
    """Continue the newest unfinished run with the same suite, model, texts, hardware and libraries, or begin a new one.

    `texts_sha256` is that of the labelled texts, None without any. `fresh` begins a new one in any case.
    Raises ResultsError where the record cannot be written.
    """
    classes = sorted({cohort.hardware_class for cohort in plan.cohorts})
    # A run that takes every class goes on with whichever nodes are up.
    fixed = [] if takes_every_class(plan.suite.hardware) else classes
    identity = request_sha256(plan.suite, plan.model.sha256, fixed, environment["libraries"], texts_sha256)
    if not fresh:
        for record in store.runs():
            if record.request_sha256 == identity and record.finished_unix_ns is None:
                return OpenRun(record, continued=True)
    record = RunRecord(
        run=new_run_id(),
        created_unix_ns=time.time_ns(),
        request_sha256=identity,
        suite=plan.suite.resolved(),
        model=asdict(plan.model),
        environment=dict(environment),
        farm_version=__version__,
        command=command,
        hardware_classes=classes,
    )
    store.write_run(record)
    return OpenRun(record, continued=False)


def of_unfinished(
    store: Store,
    suite: Suite,
    model: ModelInfo,
    slots: Sequence[Slot],
    environment: Mapping[str, Any],
    *,
    texts_sha256: str | None = None,
) -> Sequence[Slot]:
    """With `hardware: any`, the slots of the classes with which an unfinished run of the same request began, the newest
    all of whose classes are up: it goes on there, whatever class has most slots by now. Else all slots."""
    here = {slot.hardware_class for slot in slots}
    for record in store.runs() if suite.hardware == "any" else ():
        classes = record.hardware_classes
        if record.finished_unix_ns is None and here.issuperset(classes):
            asked = request_sha256(suite, model.sha256, classes, environment["libraries"], texts_sha256)
            if asked == record.request_sha256:
                return [slot for slot in slots if slot.hardware_class in classes]
    return slots


def new_run_id() -> str:
    """UTC start time and four hexadecimal digits, so that names sort by time and two in one second differ."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def set_damaged_aside(store: Store, run: str, listener: Listener) -> None:
    """Move damaged parts out of the way, so that their replicas are measured again, and say so."""
    for damaged in store.damaged(run):
        moved = store.set_aside(damaged.path)
        kept = f"kept as {moved.name}; measured again" if moved else "another farm has moved it away already"
        listener.on(Notice(f"{damaged.path.name} is damaged ({damaged.why})", kept))


def runs_table(records: Sequence[RunRecord]) -> pa.Table:
    """The records as a table of RUN_SCHEMA, a row for each."""
    rows = [
        {
            "run": record.run,
            "created": record.created_unix_ns // 1000,
            "finished": None if record.finished_unix_ns is None else record.finished_unix_ns // 1000,
            "suite": record.suite.get("name"),
            "model": record.model.get("name"),
            "farm_version": record.farm_version,
            "command": record.command,
            "request_sha256": record.request_sha256,
            "settings": json.dumps(record.suite),
            "environment": json.dumps(record.environment),
        }
        for record in records
    ]
    return pa.Table.from_pylist(rows, schema=RUN_SCHEMA)
