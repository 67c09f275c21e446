"""The way to a Ray cluster: one that is running, or a private one on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

import ray
from ray.exceptions import AuthenticationError

from farm.errors import RequestError
from farm.guardian import Guardian
from farm.reachable import require_listening
from tasks.native_output import STDERR, native_output

_TOKEN_HELP = (
    "the cluster asks for another token, or for one at all: RAY_AUTH_MODE=token, and in RAY_AUTH_TOKEN what "
    "`ray get-auth-token` prints on the head node"
)

OBJECT_STORE_BYTES = 200_000_000
"""For a private cluster: only token arrays and logits pass through it, and shared memory is memory."""

PRIVATE_CLUSTER = {
    # Ray runs workers at niceness 15, so that whatever else is awake on the machine would go before a timed call.
    "worker_niceness": 0,
    # Each of these wakes up several times a second to report what nobody reads here.
    "enable_metrics_collection": False,
    "task_events_report_interval_ms": 0,
    # Workers that nobody asked for would start beside the first cells.
    "prestart_worker_first_driver": False,
}


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to the cluster at `address`, or start a private one on this machine that ends with this block.

    The private one ends with this process too, however that ends.
    Raises RequestError where no cluster answers.
    """
    # Read by Ray at start: what it would print or report about itself does not belong on a benchmark's screen.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    require_listening(address)
    with ExitStack() as ends:
        said: Callable[[], list[str]] = list
        guardian = ends.enter_context(closing(Guardian())) if address is None else None
        try:
            # What Ray's own code says there is nothing to users, who would read it for as long as it tries.
            with native_output(STDERR) as said:
                if guardian is None:
                    ray.init(address=address, **quiet)
                else:
                    with guardian.marking():
                        ray.init(
                            address="local",
                            include_dashboard=False,
                            object_store_memory=OBJECT_STORE_BYTES,
                            _system_config=PRIVATE_CLUSTER,
                            **quiet,
                        )
        except AuthenticationError as error:  # a token is asked for and there is none
            raise RequestError(f"--address {address or 'local'}: {_TOKEN_HELP}") from error
        except (ValueError, RuntimeError, OSError) as error:
            raise RequestError(_why_not_connected(address, error, said())) from error
        ends.callback(ray.shutdown)
        yield


def _why_not_connected(address: str | None, error: Exception, said: Sequence[str]) -> str:
    """One line on what Ray's start, or the way to a cluster, met; `said` is what Ray printed meanwhile."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    if address is None:
        home = "; let HOME name a folder that can be written: Ray keeps its token there" if ".ray" in first else ""
        return f"Ray does not start on this machine: {first}{home}"
    if any("Unauthenticated" in line for line in said):
        return f"--address {address}: {_TOKEN_HELP}"
    return f"--address {address}: no Ray cluster answers there: {first}"
