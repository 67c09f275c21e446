"""Which processes of this node are the farm's and Ray's own, seen from a process that Ray started."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePath

import psutil

SESSION = re.compile(r"\bsession_[\d-]+_[\d-]+_\d+_(\d+)\b")
"""The name of a Ray cluster's folder, which its services carry in their command lines. It ends with the id of the
process that started the cluster: for a private cluster that is the driver."""

INFRASTRUCTURE = (
    *("ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray-dashboard-"),
    *("ray::IDLE", "ray::SPILL_", "ray::RESTORE_", "ray::DELETE_"),
)
"""How Ray titles the processes that do its own work or none, as opposed to somebody's task or actor."""


@dataclass(frozen=True, slots=True)
class Process:
    """An entry of the node's process table."""

    parent: int
    command: str


def own_pids(me: int | None = None, exclude: Collection[int] = ()) -> tuple[int, ...]:
    """Ids of this process (or `me`), its raylet, Ray's services and idle workers on this node, and a private driver.

    Other tasks and actors of the cluster are somebody's work and not among them; nor are `exclude`, the cells. A
    driver that joined a running cluster cannot be told from other programs: add its id where it is known. Reads the
    whole process table, some milliseconds: between rounds, not beside a turn.
    """
    return choose_own(_process_table(), os.getpid() if me is None else me, exclude)


def choose_own(table: Mapping[int, Process], me: int, exclude: Collection[int] = ()) -> tuple[int, ...]:
    """Choose from a process table as `own_pids` does; without a raylet above `me` that is `me` alone."""
    raylet = _raylet_above(table, me)
    session = SESSION.search(table[raylet].command) if raylet is not None else None
    if raylet is None or session is None:
        return (me,)
    titled = {pid for pid, each in table.items() if each.parent == raylet and each.command.startswith(INFRASTRUCTURE)}
    own = titled | {pid for pid, each in table.items() if session[0] in each.command}
    # What Ray's services start works for them; what the raylet starts is somebody's work unless it is titled so.
    while found := {pid for pid, each in table.items() if each.parent in own - {raylet}} - own:
        own |= found
    driver = table[raylet].parent
    if driver == int(session[1]):
        own.add(driver)
    return tuple(sorted((own | {me}) - set(exclude)))


def _raylet_above(table: Mapping[int, Process], pid: int) -> int | None:
    """The nearest raylet among a process's ancestors; a runtime environment may put others in between."""
    seen: set[int] = set()
    while pid in table and pid not in seen:
        command = table[pid].command.split(maxsplit=1)
        if command and PurePath(command[0]).stem == "raylet":
            return pid
        seen.add(pid)
        pid = table[pid].parent
    return None


def _process_table() -> dict[int, Process]:
    """Every process of this node; what ends meanwhile or may not be looked at has no command line."""
    listed = psutil.process_iter(["pid", "ppid", "cmdline"])
    return {each.info["pid"]: Process(each.info["ppid"] or 0, " ".join(each.info["cmdline"] or ())) for each in listed}
