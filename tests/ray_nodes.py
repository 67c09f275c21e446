"""A Ray cluster of several real raylets on this machine, each with cores of its own, for runs that lose some."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from control_suites import Place, new_place
from ray.cluster_utils import Cluster
from ray_clusters import free_port

HEAD = {
    # A raylet that was killed is known to be gone within two seconds instead of half a minute.
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
    "health_check_timeout_ms": 5000,  # of one that is only slow, on a busy machine; one that is gone refuses at once
}
STORE_BYTES = 80_000_000
"""The least object store that Ray allows, so that many fit."""


@dataclass
class RayNodes:
    """The cluster of one place; `taken` are the cores of each node that is up."""

    place: Place
    cluster: Cluster
    cores: list[int]
    taken: list[tuple[Any, set[int]]] = field(default_factory=list)

    @property
    def address(self) -> str:
        """What `--address` of a run takes."""
        return str(self.cluster.address)

    @property
    def dashboard(self) -> str:
        """What `--address` of a submission takes, where the head has a dashboard."""
        return f"http://{self.cluster.head_node.webui_url}"

    def join(self, cpus: int = 1, env: Mapping[str, str] | None = None, **labels: str) -> Any:
        """Start another raylet, on cores of its own as long as there are any: where its affinity is what it has."""
        uses = Counter(core for _, cores in self.taken for core in cores)
        own = set(sorted(self.cores, key=lambda core: uses[core])[:cpus])
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, own)
        try:
            node = self.cluster.add_node(
                num_cpus=cpus,
                labels=labels,
                env_vars=dict(env or {}),
                object_store_memory=STORE_BYTES,
                include_dashboard=False,
            )
        finally:
            os.sched_setaffinity(0, before)
        self.taken.append((node, own))
        return node

    def kill(self, node: Any) -> None:
        """Kill a raylet as a power cut would: it says goodbye to nobody."""
        raylet = node.all_processes["raylet"][0].process.pid
        psutil.Process(raylet).kill()
        self.cluster.remove_node(node, allow_graceful=False)
        self.taken = [(other, cores) for other, cores in self.taken if other is not node]

    def run(self, *arguments: str, timeout_s: float = 240) -> tuple[int, str]:
        """A `farm run` on this cluster, to its end: exit code and words."""
        return self.place.farm("run", *arguments, "--address", self.address, timeout_s=timeout_s)


@contextmanager
def ray_nodes(settings: Mapping[str, Any] = HEAD, *, dashboard: bool = False) -> Iterator[RayNodes]:
    """A head without CPUs, to be joined by nodes; everything is gone afterwards. Only a `dashboard` takes jobs."""
    with new_place() as place, _environment(place.environment | _of_jobs(place) if dashboard else place.environment):
        head = {"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": dashboard}
        if dashboard:
            head["dashboard_port"] = free_port()
        cluster = Cluster(initialize_head=True, head_node_args={**head, "_system_config": dict(settings)})
        try:
            yield RayNodes(place, cluster, sorted(os.sched_getaffinity(0)))
        finally:
            cluster.shutdown()


def _of_jobs(place: Place) -> dict[str, str]:
    """A home, where jobs keep results, and this Python as the one that a job's command finds."""
    home = place.root / "home"
    home.mkdir()
    return {"HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
