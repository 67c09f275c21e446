"""Jobs on a Ray cluster, through the address of its dashboard: submit, follow, list, stop, bring results home.

Nothing else of the cluster needs to be reachable, and nothing of a job depends on who follows it: it runs on the head
node, writes its log there, and whoever attaches reads that log from its beginning.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from ray.job_submission import JobStatus

from farm import delivery
from farm.dashboard import UnansweredError, answered, connect
from farm.errors import FarmError, RequestError
from farm.staging import SUITE_FILE, stage_code, staged
from farm.suite import Suite

CLUSTER_RESULTS = "~/farm-results"
"""Where a job keeps results on the head node unless they go to a bucket. An unfinished run goes on from there."""

PROGRAM = "python -m farm.cli.job"

AT_HOME_FILE = "at-home.txt"

STOP_S = 30
"""How long Ray waits for a job that was told to stop before it is killed: ending a cohort takes up to 15 s."""

POLL_S = 1.0

SILENCE_S = 60.0
"""How long a log may say nothing before its job's state is asked: a connection that is half open, after a laptop slept
or a router forgot it, is silent for ever. A job that measures tells of it every few seconds; to one that says nothing
because it prepares, asking costs one request and one more reading of its log."""

RECONNECT_S = 600.0
"""How long a cluster may be out of reach before following it is given up; the job does not notice."""

DELIVERY_S = 600.0

# They tell of every upload and connection, on the screen that shows progress.
for _name in (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
):
    logging.getLogger(_name).setLevel(logging.WARNING)

STARTING_S = (2.0, 5.0, 10.0)
"""Waits for the part of a head node that starts jobs: a cluster that has just come up has none for some seconds."""

_STARTING = "No available agent"
_ABOUT = "inference_farm"


@dataclass(frozen=True, slots=True)
class Job:
    """A job of the farm's on a cluster. `results` is a bucket, or empty where results stay on the head node."""

    job: str
    status: str
    suite: str
    results: str
    started_unix_s: float | None
    ended_unix_s: float | None
    message: str


class Jobs:
    """The farm's jobs on one cluster. All methods raise RequestError, in one line, where the cluster refuses."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._client = connect(address)

    def submit(self, suite: Suite, results: str, fresh: bool = False, command: str = "farm submit") -> str:
        """Send a suite with the code that is running here; the job's id. `results` as in `Job`."""
        job = f"farm-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
        words = [*PROGRAM.split(), "run", SUITE_FILE, "--results", results or CLUSTER_RESULTS, "--command", command]
        about = {_ABOUT: "run", "suite": suite.name, "results": results}
        with staged(suite) as folder:
            self._send(job, words + ["--fresh"] * fresh, folder, about)
        return job

    def follow(self, job: str, on_line: Callable[[str], None], on_silence: Callable[[str], None]) -> Job:
        """Pass on every line of a job's log, from the first to the last; the job as it ended.

        `on_silence` is told, once, when the cluster cannot be reached; it is asked again for `RECONNECT_S`.
        """
        lines = _Lines(on_line)
        lost_at: float | None = None
        while True:
            try:
                asyncio.run(self._tail(job, lines))
                known = self.find(job)
                if JobStatus(known.status).is_terminal():
                    lines.restart()
                    lines.feed(self.log(job))
                    return known
                lost_at = None
            except (aiohttp.ClientError, OSError, RuntimeError, UnansweredError) as error:
                if lost_at is None:
                    on_silence(str(error).splitlines()[0])
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > RECONNECT_S:
                    raise FarmError(
                        f"{self.address} has not answered for {RECONNECT_S / 60:.0f} minutes; the job may well go on: "
                        f"farm submit --attach {job} --address {self.address}"
                    ) from error
            time.sleep(POLL_S)

    def find(self, job: str) -> Job:
        """One job by its id."""
        with answered(self.address):
            known = {each.submission_id: each for each in self._client.list_jobs()}
        if job not in known:
            raise RequestError(
                f"no job {job} on {self.address}; farm submit --list --address {self.address} names them"
            )
        return _described(known[job])

    def all(self) -> list[Job]:
        """The farm's jobs, newest first."""
        with answered(self.address):
            listed = [each for each in self._client.list_jobs() if (each.metadata or {}).get(_ABOUT) == "run"]
        return sorted(map(_described, listed), key=lambda each: each.started_unix_s or 0, reverse=True)

    def log(self, job: str) -> str:
        """What a job has said so far."""
        with answered(self.address):
            return str(self._client.get_job_logs(job))

    def stop(self, job: str) -> None:
        """Tell a job to end; what it has published is kept, and submitting the same suite goes on from there.

        Raises RequestError where it has ended already.
        """
        known = self.find(job)
        if JobStatus(known.status).is_terminal():
            raise RequestError(
                f"job {job} has ended already ({known.status}): there is nothing to stop. farm submit --attach {job} "
                f"--address {self.address} brings home what it has measured"
            )
        with answered(self.address):
            self._client.stop_job(job)

    def bring_home(self, run: str, results: str) -> None:
        """Copy a run's files from the head node into a folder here, those that are not there yet.

        Raises ResultsError where they cannot be written, FarmError where the cluster did not give them.
        """
        names, more = delivery.at_home(results, run), True
        while more:
            try:
                log = self._deliver(run, names)
            except RequestError as error:  # no mistake of the user's by now: the run is measured
                raise FarmError(
                    f"the results of run {run} are on the head node and did not come home: {error}"
                ) from error
            brought = delivery.unpack(log.splitlines(), results, run)
            names, more = [*names, *brought.names], brought.more

    def _deliver(self, run: str, at_home: list[str]) -> str:
        """Let a small job on the head node write a run's files to its log; the log."""
        job = f"farm-results-{secrets.token_hex(6)}"
        with _code() as folder:
            (folder / AT_HOME_FILE).write_text("\n".join(at_home))
            words = [*PROGRAM.split(), "deliver", CLUSTER_RESULTS, run, AT_HOME_FILE]
            self._send(job, words, folder, {_ABOUT: "results"})
        status = self._wait_for(job, run)
        log = self.log(job)
        if status != JobStatus.SUCCEEDED:
            last = next((line for line in reversed(log.splitlines()) if line.strip()), "it said nothing")
            raise FarmError(f"the results of run {run} are on the head node and did not come home: {last}")
        with suppress(RequestError), answered(self.address):
            self._client.delete_job(job)
        return log

    def _wait_for(self, job: str, run: str) -> JobStatus:
        """How a small job ended; a cluster that does not answer meanwhile is asked again."""
        deadline = time.monotonic() + DELIVERY_S
        while time.monotonic() < deadline:
            with suppress(UnansweredError), answered(self.address):
                status = self._client.get_job_status(job)
                if status.is_terminal():
                    return status
            time.sleep(POLL_S)
        raise FarmError(f"{self.address} did not send the results of run {run} in {DELIVERY_S:.0f} s")

    def _send(self, job: str, words: list[str], folder: Path, about: dict[str, str]) -> None:
        environment = {"working_dir": str(folder), "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S)}}
        entrypoint = shlex.join(words)
        with answered(self.address):
            for wait_s in (*STARTING_S, None):
                try:
                    self._client.submit_job(
                        entrypoint=entrypoint, submission_id=job, runtime_env=environment, metadata=about
                    )
                    return
                except RuntimeError as error:
                    if _STARTING not in str(error) or wait_s is None:
                        raise
                    time.sleep(wait_s)

    async def _tail(self, job: str, lines: _Lines) -> None:
        """Pass on a log until it ends, or has said nothing for `SILENCE_S`."""
        lines.restart()
        async with aclosing(self._client.tail_job_logs(job)) as texts:
            while True:
                try:
                    lines.feed(await asyncio.wait_for(anext(texts), SILENCE_S))
                except (StopAsyncIteration, TimeoutError):
                    return


class _Lines:
    """Whole lines out of pieces of a log that may be read from its beginning more than once; each is passed on once."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._passed_on = 0
        self.restart()

    def restart(self) -> None:
        """What follows begins at the first line again."""
        self._read = 0
        self._rest = ""

    def feed(self, text: str) -> None:
        *whole, self._rest = (self._rest + text).split("\n")
        for line in whole:
            self._read += 1
            if self._read > self._passed_on:
                self._passed_on = self._read
                self._on_line(line)


@contextmanager
def _code() -> Iterator[Path]:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="farm-job-") as temporary:
        stage_code(Path(temporary))
        yield Path(temporary)


def _described(details: Any) -> Job:
    about = details.metadata or {}
    return Job(
        job=details.submission_id,
        status=str(details.status.value if hasattr(details.status, "value") else details.status),
        suite=about.get("suite", ""),
        results=about.get("results", ""),
        started_unix_s=details.start_time / 1000 if details.start_time else None,
        ended_unix_s=details.end_time / 1000 if details.end_time else None,
        message=" ".join((details.message or "").split()),
    )
