"""How a run stands, in lines: from its results, from what it last told of itself, and from a cluster's jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from farm.errors import RequestError
from farm.job_log import JobEnded, from_line
from farm.progress import Progress, read_progress
from farm.store import RunRecord, Store

SILENT_S = 120.0
"""A run that goes on tells of itself with every step and round; silence longer than most of these means a dead driver
or a very long preparation."""

Line = tuple[str, str]
"""What it is about, and what there is to say."""


def of_results(results: str, run: str | None, now_unix_s: float) -> list[Line]:
    """How one run stands (the newest unless named) by its results and by what it last told.

    Raises RequestError where there are no results or no such run.
    """
    store = Store(results, read_only=True)
    names = [record.run for record in store.runs()] or store.measured_runs()
    if run is None and not names:
        raise RequestError(f"no results in {store.root}: `farm run` makes them, or name another folder")
    chosen = run or names[0]
    record = store.run(chosen)
    progress = read_progress(results, chosen)
    return [
        ("run", _heading(record)),
        ("done", _done(store, chosen, progress)),
        *(_going_on(progress, now_unix_s) if progress and record.finished_unix_ns is None else ()),
        *_failures(store, chosen),
        *(("left out", f"{each.path.name}: {each.why}") for each in store.quick_damaged(chosen)),
    ]


def of_job_log(log: str, now_unix_s: float) -> list[Line]:
    """How a job's run stands by its log."""
    progress, ended = Progress(), None
    for told in filter(None, map(from_line, log.splitlines())):
        if isinstance(told.event, JobEnded):
            ended = told.event
        else:
            progress.take(told.event, told.at_unix_s)
    if not progress.run:
        return [("stage", progress.stage or "starting"), *_note(progress)]
    lines = [("run", progress.run), ("done", f"{progress.done} of {progress.total} cohort replicas")]
    if ended is None:
        lines += _going_on(progress, now_unix_s)
    elif ended.message:
        lines.append(("ended", ended.message))
    return lines + _counted(f"{each.what}: {each.status}: {each.reason}" for each in progress.failures)


def _heading(record: RunRecord) -> str:
    begun = f"{record.run}; {record.suite.get('name')}; begun {_clock_time(record.created_unix_ns)}"
    if record.finished_unix_ns is None:
        return f"{begun}; not finished: the same command continues it"
    return f"{begun}; finished {_clock_time(record.finished_unix_ns)}"


def _done(store: Store, run: str, progress: Progress | None) -> str:
    replicas = len(store.quick_parts(run))
    of = f" of {progress.total}" if progress and progress.total >= replicas else ""
    statuses = Counter(store.dataset([run]).to_table(columns=["status"])["status"].to_pylist())
    counts = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
    return f"{replicas}{of} cohort replicas" + (f"; cells: {counts}" if counts else "")


def _going_on(progress: Progress, now_unix_s: float) -> list[Line]:
    silent_s = now_unix_s - progress.heard_unix_s
    if progress.ended:
        return [("state", f"nobody is measuring it; it ended {_duration(silent_s)} ago")]
    lines = [
        (
            "running",
            f"{each.cohort}, replica {each.replica + 1}"
            + (f", attempt {each.attempt}" if each.attempt > 1 else "")
            + f", on {each.hostname} ({each.slot}) for {_duration(now_unix_s - each.since_unix_s)}",
        )
        for each in progress.running.values()
    ]
    if progress.stage:
        lines.append(("stage", progress.stage))
    lines += _note(progress)
    left_s = progress.left_s()
    if left_s is not None:
        lines.append(("left", f"about {_duration(max(0.0, left_s - silent_s))} at the pace so far"))
    warning = ": its driver may be gone; the same command continues the run" if silent_s > SILENT_S else ""
    return [*lines, ("heard", f"{_duration(silent_s)} ago{warning}")]


def _note(progress: Progress) -> list[Line]:
    return [("note", progress.note)] if progress.note else []


def _failures(store: Store, run: str) -> list[Line]:
    columns = ["name", "length", "status", "reasons"]
    rows = store.dataset([run]).to_table(columns=columns).to_pylist()
    return _counted(
        f"{row['name']} at length {row['length']}: {row['status']}: {'; '.join(row['reasons'] or ['no reason given'])}"
        for row in rows
        if row["status"] in ("failed", "invalid")
    )


def _counted(texts: Iterable[str]) -> list[Line]:
    return [
        ("failed", f"{text} ({count} times)" if count > 1 else text) for text, count in Counter(texts).most_common()
    ]


def _clock_time(unix_ns: int) -> str:
    return f"{datetime.fromtimestamp(unix_ns / 1e9, UTC):%Y-%m-%d %H:%M} UTC"


def _duration(seconds: float) -> str:
    """Whole units that a person would say: 12 s, 4 min, 3.5 h."""
    limits: Iterator[tuple[float, str]] = iter(((60, f"{seconds:.0f} s"), (5400, f"{seconds / 60:.0f} min")))
    return next((text for limit, text in limits if seconds < limit), f"{seconds / 3600:.1f} h")
