"""A bucket that speaks S3 on loopback, served by moto, with the environment that leads there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import s3fs
from moto.server import ThreadedMotoServer

BUCKET = "farm-results"
SECRET = "the-key-that-nobody-may-see"


@contextmanager
def served(port: int = 0) -> Iterator[dict[str, str]]:
    """Serve a bucket; the environment of whoever is to use it. Within one process it comes back as it was."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "farm",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        if not outside(environment).exists(BUCKET):
            outside(environment).mkdir(BUCKET)
        yield environment
    finally:
        server.stop()


def outside(environment: dict[str, str]) -> s3fs.S3FileSystem:
    """The bucket as somebody sees it who is not the farm."""
    return s3fs.S3FileSystem(
        key=environment["AWS_ACCESS_KEY_ID"],
        secret=environment["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        use_listings_cache=False,
        skip_instance_cache=True,
    )
