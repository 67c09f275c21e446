"""The commands for work on a cluster: submit a suite as a job and follow it, see how a run stands, compact results."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from farm.addresses import named_place
from farm.cli.commands import (
    DeviceOption,
    EffortOption,
    LengthsOption,
    MethodsOption,
    ModelOption,
    ResultsArgument,
    ResultsOption,
    SetOption,
    SuiteArgument,
    ThreadsOption,
    app,
    own_command,
)
from farm.cli.exit_codes import DONE, SOME_FAILED
from farm.cli.interruption import if_interrupted
from farm.cli.output import error_console, make_console
from farm.cli.screen import make_screen
from farm.errors import FarmError, RequestError, after_measuring
from farm.folders import open_folder

if TYPE_CHECKING:
    from farm.events import Listener
    from farm.job_log import JobEvent
    from farm.submit import Job, Jobs

LOCAL_DASHBOARD = "http://127.0.0.1:8265"
"""Where a dashboard is on the head node itself, and where `ray dashboard` forwards it to."""

LAST_LINES = 15
"""Of the log of a job that ended without saying how: enough for a traceback's end."""

DashboardOption = Annotated[
    str, typer.Option("--address", envvar="RAY_API_SERVER_ADDRESS", help="The cluster's dashboard.")
]


@app.command()
def submit(
    suite: SuiteArgument = None,
    model: ModelOption = None,
    methods: MethodsOption = None,
    lengths: LengthsOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    effort: EffortOption = None,
    settings: SetOption = None,
    address: DashboardOption = LOCAL_DASHBOARD,
    results: ResultsOption = "results",
    fresh: Annotated[bool, typer.Option("--fresh", help="Ignore unfinished runs of the same request.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not follow the job.")] = False,
    attach: Annotated[str | None, typer.Option("--attach", metavar="ID", help="Follow a job submitted before.")] = None,
    stop: Annotated[str | None, typer.Option("--stop", metavar="ID", help="End a job; what it has is kept.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="Name the farm's jobs on the cluster.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; the table at the end.")] = False,
) -> int:
    """Measure a suite on a cluster, as a Ray job that goes on when this terminal is closed."""
    from farm.cli.flags import suite_from_flags
    from farm.submit import Jobs

    if (attach is not None) + (stop is not None) + listing > 1:
        raise RequestError("--attach, --stop and --list: give one of them")
    results = named_place(results)  # before a cluster hears of credentials in it
    if listing or stop is not None or attach is not None:
        jobs = Jobs(address)
        if listing:
            return _list(jobs)
        return _stop(jobs, str(stop)) if attach is None else _follow(jobs, attach, results, quiet)
    wanted = suite_from_flags(suite, model, methods, lengths, threads, device, effort, settings)
    bucket = results if "://" in results else ""
    if not bucket:
        open_folder(results).require_writable()  # or they could not come home after all that was measured
    jobs = Jobs(address)
    job = jobs.submit(wanted, bucket, fresh, own_command())
    error_console().print(f"job {job}; to follow it again: farm submit --attach {job} --address {address}")
    return DONE if detach else _follow(jobs, job, results, quiet)


@app.command()
def status(
    results: ResultsArgument = "results",
    run: Annotated[str | None, typer.Option("--run", help="A run's id; the newest if left out.")] = None,
    address: Annotated[str | None, typer.Option("--address", help="A cluster's dashboard: its jobs, too.")] = None,
) -> int:
    """How a run stands: what is done, what runs where, what failed and why, how long the rest takes."""
    from farm.status import of_job_log, of_results

    blocks: list[list[tuple[str, str]]] = []
    if address is not None:
        from farm.submit import Jobs  # which imports Ray

        jobs = Jobs(address)
        found = jobs.all()
        running = [job for job in found if job.status == "RUNNING"] or found[:1]
        blocks = [[("job", f"{job.job}; {job.status}"), *of_job_log(jobs.log(job.job), time.time())] for job in running]
        blocks = blocks or [[("job", "none of the farm's on this cluster")]]
    try:
        blocks.append(of_results(results, run, time.time()))
    except RequestError:
        if address is None or run is not None:
            raise
    for number, block in enumerate(blocks):
        if number:
            typer.echo("")
        for about, text in block:
            typer.echo(f"{about:9}{text}")
    return DONE


@app.command()
def compact(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Results: a folder, or s3://, gs://.")],
    destination: Annotated[str, typer.Argument(metavar="DEST", help="An empty place for the same results.")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> int:
    """Write the same results into few large parts elsewhere, and verify them. SRC is never touched."""
    from farm.compact import compact as write_compacted

    left = "SRC is as it was; empty DEST before the same command again"
    with if_interrupted(left), closing(make_screen(make_console(), quiet)) as screen:
        written = write_compacted(source, destination, screen)
    typer.echo(
        f"{destination}: {written.rows} rows of {written.replicas} cohort replicas in {written.parts} parts, "
        f"{written.runs} runs; read back and the same as in {source}"
    )
    for each in written.left_out:
        error_console().print(f"note: left out {each}")
    return SOME_FAILED if written.left_out else DONE


def _list(jobs: Jobs) -> int:
    table = Table(box=None, pad_edge=False)
    for column in ("job", "status", "suite", "started (UTC)", "took", "results"):
        table.add_column(column, no_wrap=True)
    for each in jobs.all():
        started = datetime.fromtimestamp(each.started_unix_s, UTC) if each.started_unix_s else None
        ended = each.ended_unix_s or datetime.now(UTC).timestamp()
        took = f"{(ended - each.started_unix_s) / 60:.1f} min" if each.started_unix_s else ""
        where = each.results or "head node"
        table.add_row(each.job, each.status, each.suite, f"{started:%Y-%m-%d %H:%M}" if started else "", took, where)
    make_console().print(table if table.row_count else "no jobs of the farm's")
    return DONE


def _stop(jobs: Jobs, job: str) -> int:
    jobs.stop(job)
    error_console().print(f"{job} was told to stop; `farm submit --attach {job}` brings home what it has measured")
    return DONE


def _follow(jobs: Jobs, job: str, results: str, quiet: bool) -> int:
    """Show a job's progress as if it ran here, bring its results home, print the table."""
    from farm.results import Results

    known = jobs.find(job)
    console = make_console()
    left = f"the job goes on. To follow it again: farm submit --attach {job} --address {jobs.address}"
    with if_interrupted(left):
        with closing(make_screen(console, quiet)) as screen:
            watched = _Watched(screen)
            ended = jobs.follow(job, watched.line, watched.silence)
        if watched.run and not known.results:
            with after_measuring():
                jobs.bring_home(watched.run, results)
    if watched.ended is None:
        raise FarmError(_why(ended, watched))
    if watched.ended.message:
        error_console().print(f"farm: {watched.ended.message}")
        return watched.ended.code
    home = known.results or results
    with after_measuring():
        typer.echo(Results(home, watched.run).table("text"))
    console.print(f"results: {home} (run {watched.run})", soft_wrap=True)
    return SOME_FAILED if watched.ended.failed_cells else DONE


class _Watched:
    """What a job's log has said so far; events go to a screen."""

    def __init__(self, screen: Listener) -> None:
        from farm.job_log import JobEnded

        self._screen = screen
        self.run = ""
        self.ended: JobEnded | None = None
        self.last: list[str] = []

    def line(self, line: str) -> None:
        """Take one line of the log."""
        from farm.job_log import from_line

        told = from_line(line)
        if told is None:
            self.last = [*self.last, line][-LAST_LINES:]
        else:
            self._event(told.event)

    def _event(self, event: JobEvent) -> None:
        from farm.events import RunBegan
        from farm.job_log import JobEnded

        if isinstance(event, JobEnded):
            self.ended = event
            self.run = event.run or self.run
            return
        if isinstance(event, RunBegan):
            self.run = event.run
        self._screen.on(event)

    def silence(self, why: str) -> None:
        """The cluster cannot be reached."""
        from farm.events import Notice

        self._screen.on(Notice(f"the cluster does not answer ({why})", "the job goes on; trying again"))


def _why(job: Job, watched: _Watched) -> str:
    """How a job ended that did not say so itself."""
    if job.status == "STOPPED":
        return f"{job.job} was stopped; everything it published is kept"
    told = "\n".join(line for line in watched.last if line.strip())
    return f"{job.job} ended as {job.status}: {job.message}" + (f"\nThe last lines of its log:\n{told}" if told else "")
