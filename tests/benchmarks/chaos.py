"""Faults at random moments of a run on several real raylets: is every cell there once, with the status it deserves?

Processes are found and killed from outside, as a machine's own troubles would do it: cells, baselines, the process that
forks them, cohorts, raylets (another one joins later), the driver (the same command is given again), a second driver
on the same results, a published file damaged on the disk. The run must end with every planned cell published exactly
once, failed only where something was done to it, and with no process left.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

sys.path.append(str(Path(__file__).parents[1]))

from aftermath import CRASHING, Aftermath, Done, aftermath, title
from provenance import where_and_when
from ray_nodes import RayNodes, ray_nodes

BASELINE = "control-null"
METHODS = (BASELINE, "control-work", {"method": "control-crash", "name": CRASHING, "options": {"at": "load"}})
CLASSES = ("blue", "red")
"""Values of the label that makes two raylets of one machine different hardware classes."""

KINDS = (
    *("cell killed", "cell segfaults", "baseline killed", "nursery killed", "cohort killed", "raylet killed"),
    *("driver killed", "second driver", "part damaged"),
)

MOST_TRIED = 60
"""Where no kind left in the deck was possible at so many looks, all are shuffled anew; near the end at once."""

SOON_DONE = 3
"""So many replicas before the end the run is left to one driver, which may be done before another one has started."""

MOST_RESTARTS = 2
"""A replica whose tries were ended so often is left alone: the next time it would rightly be published as failed."""

PATIENCE_S = 3600.0
REJOIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Victim:
    """A process of the farm on some node: a cell, or the nursery that forked it.

    `home` is the folder of its cohort's try, `replica` what that try is of: a shape, on cores.
    """

    process: psutil.Process
    home: str
    name: str
    replica: str = ""

    @property
    def is_cell(self) -> bool:
        """Whether it is measured, rather than helping."""
        return not self.name.startswith(("nursery-", "prepare-", "evaluate-"))

    @property
    def is_baseline(self) -> bool:
        """Whether others are compared with it."""
        return self.name.startswith(f"{BASELINE}-")


@dataclass
class Chaos:
    """A run on a cluster, and what was done to it so far."""

    nodes: RayNodes
    suite: Path
    cohorts: int
    chance: random.Random
    submitted: bool = False
    drivers: list[subprocess.Popen[str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    moments_s: list[float] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    raylets: dict[str, Any] = field(default_factory=dict)
    hurt: set[str] = field(default_factory=set)
    """Names of cells that something was done to."""
    restarts: Counter[str] = field(default_factory=Counter)
    damaged: set[Path] = field(default_factory=set)
    _deck: list[str] = field(default_factory=list)
    _tried: int = 0

    def run(self, faults: int) -> None:
        """Start the run, inject so many faults spread over it, and let it end."""
        for label in CLASSES:
            self.raylets[label] = self.nodes.join(hardware=label)
        self._start()
        until = time.monotonic() + PATIENCE_S
        while self._keep_going() and len(self.done) < faults and time.monotonic() < until:
            if len(self.nodes.place.measured()) >= len(self.done) * self.cohorts / faults - 2:
                self._inject()
            time.sleep(self.chance.uniform(0.1, 1.0))
        while self._keep_going() and time.monotonic() < until:
            time.sleep(0.2)

    def _start(self) -> None:
        """A driver of this machine's; of a job, who follows it stands for it."""
        command = ("run", str(self.suite), "--address", self.nodes.address)
        if self.submitted:
            command = ("submit", str(self.suite), "--address", self.nodes.dashboard, "--results", str(self._home))
        self.drivers.append(self.nodes.place.start(*command, output=subprocess.DEVNULL))

    @property
    def _home(self) -> Path:
        return self.nodes.place.root / "brought-home"

    def _keep_going(self) -> bool:
        """Give the command again where no driver is left and something is missing; whether anything still runs."""
        self.drivers = [driver for driver in self.drivers if driver.poll() is None]
        if not self.drivers and len(self.nodes.place.measured()) < self.cohorts:
            self._start()
        return bool(self.drivers)

    def _inject(self) -> None:
        """The first kind of fault of a shuffled deck that is possible now; the others wait there for their turn."""
        if not self._deck or self._tried > MOST_TRIED:
            self._deck = self.chance.sample(KINDS, len(KINDS))
            self._tried = 0
        possible = dict(self._possible())
        kind = next((kind for kind in self._deck if kind in possible), None)
        if kind is None:
            ending = len(self.nodes.place.measured()) > self.cohorts - SOON_DONE
            self._tried = MOST_TRIED + 1 if ending else self._tried + 1
            return
        with suppress(psutil.NoSuchProcess):  # it ended by itself a moment ago
            possible[kind]()
            self._deck.remove(kind)
            self._tried = 0
            self.done.append(kind)
            self.moments_s.append(time.monotonic() - self.started)

    def _possible(self) -> Iterator[tuple[str, Callable[[], None]]]:
        victims = [victim for victim in self._victims() if self.restarts[victim.replica] < MOST_RESTARTS]
        cells = [victim for victim in victims if victim.is_cell and not victim.is_baseline]
        for kind, how in (("cell killed", signal.SIGKILL), ("cell segfaults", signal.SIGSEGV)):
            if cells:
                yield kind, lambda how=how: self._hurt_cell(self.chance.choice(cells), how)
        for kind, chosen in (
            ("baseline killed", [victim for victim in victims if victim.is_baseline]),
            ("nursery killed", [victim for victim in victims if victim.name == "nursery-cells"]),
        ):
            if chosen:
                yield kind, lambda chosen=chosen: self._restart(self.chance.choice(chosen))
        if victims:
            yield "cohort killed", lambda: self._kill_cohort(self.chance.choice(victims))
        yield "raylet killed", self._kill_raylet
        measured = self.nodes.place.measured()
        if not self.drivers or len(measured) > self.cohorts - SOON_DONE:
            return  # a run that ends meanwhile is not continued, and should not be
        yield "driver killed", self._kill_drivers
        if len(self.drivers) == 1:
            yield "second driver", self._start
        if intact := [path for path in measured if path not in self.damaged]:
            yield "part damaged", lambda: self._damage(self.chance.choice(intact))

    def _victims(self) -> list[Victim]:
        found = []
        for process in self.nodes.place.processes():
            with suppress(psutil.Error, OSError):
                if "farm.nursery" in process.cmdline():
                    log = Path(f"/proc/{process.pid}/fd/1").readlink()
                    found.append(Victim(process, log.parent.name, log.stem))
        shapes = {victim.home: _replica(victim) for victim in found if victim.is_baseline}
        return [replace(victim, replica=shapes[victim.home]) for victim in found if victim.home in shapes]

    def _hurt_cell(self, victim: Victim, how: signal.Signals) -> None:
        self.hurt.add(victim.name)
        victim.process.send_signal(how)
        victim.process.send_signal(signal.SIGCONT)  # a parked one dies only when it is continued, unless killed

    def _restart(self, victim: Victim) -> None:
        self.restarts[victim.replica] += 1
        self.hurt |= {other.name for other in self._victims() if other.home == victim.home}
        victim.process.kill()

    def _kill_cohort(self, victim: Victim) -> None:
        cohort = next(each for each in victim.process.parents() if "CohortProcess" in title(each))
        self.restarts[victim.replica] += 1
        cohort.kill()

    def _kill_raylet(self) -> None:
        label = self.chance.choice(CLASSES)
        self.nodes.kill(self.raylets[label])
        time.sleep(REJOIN_S)
        self.raylets[label] = self.nodes.join(hardware=label)

    def _kill_drivers(self) -> None:
        if self.submitted:
            for process in self.nodes.place.processes():
                if "farm.cli.job run" in title(process):
                    process.kill()
        for driver in self.drivers:
            if not self.submitted:
                driver.kill()
            driver.wait()

    def _damage(self, path: Path) -> None:
        """Flip a byte in the middle; whoever begins next finds it and measures that replica again."""
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
        self.damaged.add(path)
        self._kill_drivers()


def _replica(baseline: Victim) -> str:
    """Which replica a try is of. Classes differ in their cores here, and their cells' names are the same."""
    return f"{baseline.name} on {baseline.process.cpu_affinity()}"


def run_chaos(
    nodes: RayNodes, faults: int, seed: int, lengths: int, submitted: bool = False
) -> tuple[Chaos, Aftermath]:
    """A whole run of controls on two classes of nodes, with so many faults."""
    if submitted:  # what jobs keep on the head node is looked at, as if it had been written here
        nodes.place.results.mkdir()
        Path(os.environ["HOME"], "farm-results").symlink_to(nodes.place.results)
    suite = nodes.place.suite(
        methods=list(METHODS),
        lengths=[4 + number % 28 for number in range(min(28, lengths))],
        batch_sizes=list(range(1, 1 + max(1, lengths // 28))),
        hardware="all",
        exclusive="slot",
        limits={"load_s": 60, "call_s": 3, "node_s": 120},
    )
    cohorts = len(CLASSES) * min(28, lengths) * max(1, lengths // 28)
    chaos = Chaos(nodes, suite, cohorts, random.Random(seed), submitted)
    chaos.run(faults)
    done = Done(chaos.done, frozenset(chaos.hurt), cohorts, cells=len(METHODS) + 1)
    return chaos, aftermath(nodes.place, done)


def main(
    faults: Annotated[int, typer.Option(help="How many faults.")] = 100,
    seed: Annotated[int, typer.Option(help="Of their kinds and moments.")] = 1,
    lengths: Annotated[int, typer.Option(help="Cohorts for each of the two hardware classes.")] = 28,
    submitted: Annotated[bool, typer.Option("--submitted", help="Through `farm submit`, as jobs.")] = False,
) -> None:
    """Run a suite of controls through faults and say what is left."""
    started = time.monotonic()
    with ray_nodes(dashboard=submitted) as nodes:
        chaos, left = run_chaos(nodes, faults, seed, lengths, submitted)
    took_s = time.monotonic() - started
    print(f"{len(chaos.done)} faults in {took_s:.0f} s: {dict(Counter(chaos.done))}")
    print(", ".join(f"{kind} at {at_s:.0f} s" for kind, at_s in zip(chaos.done, chaos.moments_s, strict=True)))
    print(f"{len(left.rows)} rows of {chaos.cohorts} cohorts: {dict(Counter(left.rows['status']))}")
    print(f"tries at a replica: {dict(Counter(left.rows.groupby('cohort')['attempt'].max()))}")
    print(f"log: {dict(left.events)}")
    print("\n".join(left.problems) or "every cell is there once, with the status it deserves; no process is left")
    print(f"\n{where_and_when()}")
    raise typer.Exit(1 if left.problems else 0)


if __name__ == "__main__":
    typer.run(main)
