"""A Ray cluster with a dashboard and a token, of this machine alone, beside whatever else runs here."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from control_suites import Place

TOKEN = "a-token-that-only-this-cluster-knows-" + "0" * 27


@dataclass(frozen=True, slots=True)
class RayCluster:
    """Where a cluster is: `address` for who is on one of its nodes, `dashboard` for everybody else."""

    address: str
    dashboard: str
    environment: dict[str, str]


@contextmanager
def head_node(
    place: Place, cpus: int = 2, *options: str, more_environment: Mapping[str, str] | None = None
) -> Iterator[RayCluster]:
    """Start a head node in a place; its processes end with the place, by whose environment they are found."""
    home = place.root / "home"
    home.mkdir()
    port = free_port()
    environment = (
        os.environ
        | place.environment
        | {
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        | (more_environment or {})
    )
    # The program by its module, as `ray` itself is not on every path.
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--port=0", f"--num-cpus={cpus}"]
    command += [f"--dashboard-port={port}", "--dashboard-agent-listen-port=0", f"--temp-dir={place.root / 'ray'}"]
    command += ["--object-store-memory=100000000", *options]
    started = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=120
    )
    found = re.search(r"ray start --address='([^']+)'", started.stdout)
    assert found, started.stdout
    yield RayCluster(found[1], f"http://127.0.0.1:{port}", {"RAY_AUTH_TOKEN": TOKEN, "HOME": str(home)})


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
