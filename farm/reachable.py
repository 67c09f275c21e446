"""Whether anything that may be a cluster answers at an address, before Ray is asked to go there."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from ray.util import get_node_ip_address

from farm.errors import RequestError

PROBE_S = 8.0
"""How long a connection or an answer may take: a lost first packet is sent again after one second, two and four."""

_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How every gRPC client begins (RFC 9113, 3.4). A web server, such as the dashboard on port 8265, refuses it."""

_OWN_NAMES = ("localhost", "127.0.0.1", "::1")


def require_listening(address: str | None) -> None:
    """Raise RequestError where nothing or a web server listens at `HOST:PORT`: Ray would ask for a quarter of an hour.

    Every other address (none, `auto`, `ray://...`) is Ray's to judge; `auto` is what RAY_ADDRESS says, where it does.
    """
    named = os.environ.get("RAY_ADDRESS") if address == "auto" else address
    reached = _host_and_port(named or "")
    if reached is None:
        return
    host, port = reached
    try:
        # To Ray a machine's own names mean its address on the network, which may be all that its head listens on.
        with _connected([host, get_node_ip_address()] if host in _OWN_NAMES else [host], port) as connection:
            why = "a web server does" if _is_web_server(connection) else ""
    except OSError as error:
        why = error.strerror or str(error)
    if why:
        through = f" (RAY_ADDRESS is {named})" if named != address else ""
        raise RequestError(
            f"--address {address}{through}: no Ray cluster answers there: {why}. It is the head node's HOST:PORT, port "
            "6379 unless it was started with another"
        )


def _connected(hosts: Sequence[str], port: int) -> socket.socket:
    """A connection to the first of the hosts that takes one; raises OSError where none does."""
    try:
        return socket.create_connection((hosts[0], port), PROBE_S)
    except OSError:
        if not hosts[1:]:
            raise
        return _connected(hosts[1:], port)


def _is_web_server(connection: socket.socket) -> bool:
    """Whether the other end speaks as a web server does; one that ends the connection or is silent is Ray's to judge,
    as a cluster with TLS is."""
    try:
        connection.sendall(_GREETING)
        return connection.recv(5) == b"HTTP/"
    except OSError:
        return False


def _host_and_port(address: str) -> tuple[str, int] | None:
    """None where an address has another form."""
    if "://" in address:
        return None
    try:
        parts = urlsplit(f"//{address}")
        return (parts.hostname, parts.port) if parts.hostname and parts.port else None
    except ValueError:
        return None
