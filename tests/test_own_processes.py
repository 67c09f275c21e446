"""The farm's and Ray's own processes are told from somebody's work: in a made-up process table, in a live cluster."""

from __future__ import annotations

import os
from dataclasses import replace

import psutil
import pytest
import ray

from farm.connecting import connected
from farm.own_processes import Process, choose_own, own_pids

SESSION = "/tmp/ray/session_2026-01-31_10-20-30_123456_10"
TABLE = {
    1: Process(0, "/sbin/init"),
    10: Process(1, "python farm run"),
    11: Process(10, f"/ray/gcs/gcs_server --log_dir={SESSION}/logs"),
    12: Process(10, f"python /ray/dashboard.py --session-dir={SESSION}"),
    13: Process(12, "python -c from multiprocessing.spawn import spawn_main"),
    14: Process(10, f"/ray/raylet/raylet --raylet_socket_name={SESSION}/sockets/raylet"),
    15: Process(10, "python a program of the driver's"),
    20: Process(14, "ray::DashboardAgent"),
    21: Process(14, "ray::IDLE"),
    22: Process(14, f"python default_worker.py --temp-dir={SESSION}"),
    23: Process(20, "pip install"),
    30: Process(14, "ray::CohortProcess.round"),
    31: Process(14, "ray::CellProcess.turn"),
    32: Process(31, "a compiler that the cell started"),
    40: Process(14, "ray::train_something_else"),
    60: Process(1, "/ray/raylet/raylet --raylet_socket_name=/tmp/ray/session_2026-01-31_10-20-30_123456_59/raylet"),
    61: Process(60, "ray::IDLE"),
}


def test_own_are_the_driver_rays_services_and_idle_workers_of_this_cluster() -> None:
    assert choose_own(TABLE, me=30) == (10, 11, 12, 13, 14, 20, 21, 22, 23, 30)


def test_excluded_processes_are_not_own() -> None:
    assert choose_own(TABLE, me=30, exclude=[22, 31]) == (10, 11, 12, 13, 14, 20, 21, 23, 30)


def test_a_cluster_that_somebody_else_started_has_no_driver_to_find() -> None:
    started_by_command = {**TABLE, 14: replace(TABLE[14], parent=1)}
    assert 10 not in choose_own(started_by_command, me=30)
    assert 1 not in choose_own(started_by_command, me=30)


def test_outside_ray_a_process_knows_only_itself() -> None:
    assert choose_own(TABLE, me=15) == (15,)
    assert own_pids() == (os.getpid(),)


@pytest.mark.real
def test_in_a_live_cluster_every_service_of_ray_is_found() -> None:
    with connected(None):
        found = ray.get(ray.remote(own_pids).options(num_cpus=0).remote())
        services = {each.pid for each in psutil.Process().children() if "ray" in " ".join(each.cmdline())}
        raylet = next(each for each in psutil.Process().children() if each.name() == "raylet")
        agents = {each.pid for each in raylet.children() if "Agent" in each.cmdline()[0]}
    assert len(services) >= 4
    assert len(agents) >= 2
    assert services | agents | {os.getpid()} <= set(found)
