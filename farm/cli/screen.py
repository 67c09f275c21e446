"""What a run looks like on a terminal, and as plain lines where there is none. Drawn between turns only."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from farm.events import Event, Notice, ReplicaDone, RoundDone, RunBegan, Step
from farm.numerals import milliseconds_text, ratio_text
from farm.ratios import ratio_of
from farm.records import Cohort

REDRAW_S = 0.1
"""Fetching and training report far more often than anybody can read."""

PLAIN_REPORT_S = 5.0
"""As plain lines, a long stage is reported every 5 s: a log must not fill with percentages."""


def make_screen(console: Console, quiet: bool) -> QuietScreen:
    """The right screen for this console: live on a terminal, plain lines elsewhere, notices only where quiet."""
    if quiet:
        return QuietScreen(console)
    return LiveScreen(console) if console.is_terminal else PlainScreen(console)


def describe(cohort: Cohort) -> str:
    """A cohort in words."""
    shape = cohort.workload
    batch = f", batch {shape.batch_size}" if shape.batch_size > 1 else ""
    return f"length {shape.length}{batch} on {shape.device}, {shape.threads} threads"


def replica_lines(event: ReplicaDone) -> list[str]:
    """A cohort's rows so far, one line each."""
    of = f"replica {event.replica + 1} of {event.replicas}" if event.replicas > 1 else "measured"
    rounds = max((row["rounds"] or 0 for row in event.speedups), default=0)
    lines = [f"{describe(event.cohort)}: {of}, {rounds} rounds"]
    width = max(len(row["name"]) for row in event.speedups)
    return lines + [f"  {row['name']:{width}}  {_row_text(row)}" for row in event.speedups]


def _row_text(row: Mapping[str, Any]) -> str:
    if row["status"] != "ok":
        return f"{row['status']}: {'; '.join(row['reasons'])}"
    latency = f"{milliseconds_text(row['latency_p50_ns'] / 1e6):>10}"
    ratio = ratio_of(row)
    if row["role"] == "baseline" or ratio is None:
        return f"{latency}  1.00x (baseline)"
    verdict = "A/A" if row["role"] == "twin" else row["verdict"]
    return f"{latency}  {ratio_text(ratio):20} {verdict}"


def began_line(event: RunBegan) -> str:
    """What kind of run begins."""
    if event.continued:
        return f"continuing unfinished run {event.run}: {event.done} of {event.total} cohort replicas are there already"
    return f"new run {event.run}: {event.total} cohort replicas"


def notice_line(event: Notice) -> str:
    """A notice with its remedy."""
    return f"note: {event.message}" + (f" ({event.remedy})" if event.remedy else "")


class QuietScreen:
    """Says only what the user must know."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def on(self, event: Event) -> None:
        """Print notices."""
        if isinstance(event, Notice):
            self._console.print(notice_line(event), soft_wrap=True)

    def close(self) -> None:
        """Nothing to end."""


class PlainScreen(QuietScreen):
    """Plain lines for logs and pipes."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._stage = ""
        self._reported = 0.0
        self._measuring: tuple[str, int] | None = None

    def on(self, event: Event) -> None:
        """Print one line where something new has begun or ended, or a while has passed."""
        match event:
            case RunBegan():
                self._say(began_line(event))
            case Step():
                self._step(event)
            case RoundDone():
                self._round(event)
            case ReplicaDone():
                for line in replica_lines(event):
                    self._say(line)
            case Notice():
                super().on(event)

    def _step(self, event: Step) -> None:
        due = time.monotonic() - self._reported > PLAIN_REPORT_S
        if event.stage != self._stage or due:
            share = f" {event.done / event.total:.0%}" if event.total and 0 < event.done < event.total else ""
            self._say(f"{event.stage}{share}{': ' + event.note if event.note else ''}")
            self._stage, self._reported = event.stage, time.monotonic()

    def _round(self, event: RoundDone) -> None:
        self._stage = ""
        if self._measuring != (event.cohort.cohort, event.replica):
            self._measuring = (event.cohort.cohort, event.replica)
            self._say(f"measuring {describe(event.cohort)}")

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)


class LiveScreen(QuietScreen):
    """A live display under the rows that are finished. Never refreshed by a thread: that would run during turns."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()
        self._drawn = 0.0
        self._done = self._total = 0

    def on(self, event: Event) -> None:
        """Redraw for what happened."""
        match event:
            case RunBegan():
                self._done, self._total = event.done, event.total
                self._above(Text(began_line(event), style="bold"))
            case Step():
                self._draw(self._step_view(event), force=event.done >= event.total)
            case RoundDone():
                self._draw(self._round_view(event), force=True)
            case ReplicaDone():
                self._done, self._total = event.done, event.total
                head, *rows = replica_lines(event)
                self._above(Text(head, style="bold"), *(Text(row, style=_style(row)) for row in rows))
            case Notice():
                self._above(Text(notice_line(event), style="yellow"))

    def close(self) -> None:
        """Take the live display away; what is finished stays."""
        self._live.stop()

    def _above(self, *lines: Text) -> None:
        for line in lines:
            self._live.console.print(line)
        self._live.refresh()

    def _draw(self, view: Any, force: bool) -> None:
        if force or time.monotonic() - self._drawn > REDRAW_S:
            self._live.update(view, refresh=True)
            self._drawn = time.monotonic()

    def _overall(self) -> Text:
        return Text(f"{self._done} of {self._total} cohort replicas done", style="dim") if self._total else Text()

    def _step_view(self, event: Step) -> Group:
        line = Table.grid(padding=(0, 1))
        line.add_row(event.stage, ProgressBar(total=event.total or 1, completed=event.done, width=30), event.note)
        return Group(line, self._overall())

    def _round_view(self, event: RoundDone) -> Group:
        left = f", about {max(0.0, event.left_s):.0f} s left" if event.left_s is not None else ""
        head = f"measuring {describe(event.cohort)}: round {event.rounds} done{left}"
        grid = Table.grid(padding=(0, 2))
        for name, speedup in event.speedups.items():
            grid.add_row(f"  {name}", f"{speedup.speedup:.2f}x [{speedup.low:.2f}, {speedup.high:.2f}] so far")
        return Group(Text(head), grid, self._overall())


def _style(line: str) -> str:
    word = line.rsplit(" ", 1)[-1]
    return {"faster": "green", "slower": "red"}.get(word, "")
