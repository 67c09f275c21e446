"""A cluster that cannot be reached, or a private one that cannot start, is one line that says what to do."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from ray.exceptions import AuthenticationError

from farm.connecting import connected
from farm.errors import RequestError
from farm.reachable import require_listening


def _refusal(monkeypatch: pytest.MonkeyPatch, address: str | None, error: Exception) -> str:
    def refuse(**_: object) -> None:
        raise error

    monkeypatch.setattr("ray.init", refuse)
    with pytest.raises(RequestError) as refused, connected(address):
        raise AssertionError("connected")
    (line,) = str(refused.value).splitlines()
    return line


def test_a_token_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    said = _refusal(monkeypatch, "auto", AuthenticationError("Token authentication is enabled\nbut no token was found"))
    assert "--address auto" in said and "RAY_AUTH_TOKEN" in said


def test_a_home_that_cannot_be_written_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/home/nobody/.ray")
    said = _refusal(monkeypatch, None, denied)
    assert "Permission denied" in said and "HOME" in said


def test_a_cluster_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = ConnectionError("Could not find any running Ray instance\nat all")
    with _other_server(b"") as address:
        said = _refusal(monkeypatch, address, lost)
    assert "no Ray cluster answers there: Could not find" in said


@contextmanager
def _other_server(answer: bytes) -> Iterator[str]:
    """Answers a first connection, and ends it."""

    def serve() -> None:
        connection = server.accept()[0]
        with connection:
            connection.recv(1000)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_the_port_of_a_dashboard_is_said_before_ray_asks_it_for_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    with _other_server(b"HTTP/1.0 400 Bad Request\r\n\r\n") as address:
        said = _refusal(monkeypatch, address, AssertionError("Ray was asked"))
    assert f"--address {address}: no Ray cluster answers there: a web server does" in said and "6379" in said


@pytest.fixture
def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def test_a_port_where_nothing_listens_is_said_before_ray_asks_it_for_minutes(
    monkeypatch: pytest.MonkeyPatch, closed_port: str
) -> None:
    said = _refusal(monkeypatch, closed_port, AssertionError("Ray was asked"))
    assert said.startswith(f"--address {closed_port}: no Ray cluster answers there: Connection refused. ")
    monkeypatch.setenv("RAY_ADDRESS", closed_port)
    said = _refusal(monkeypatch, "auto", AssertionError("Ray was asked"))
    assert said.startswith(f"--address auto (RAY_ADDRESS is {closed_port}): no Ray cluster answers there: ")


@pytest.mark.parametrize("address", [None, "auto", "local", "ray://127.0.0.1:1", "head", "::1", "head:port"])
def test_an_address_without_host_and_port_is_left_to_ray(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("socket.create_connection", lambda *_: pytest.fail("was probed"))
    require_listening(address)


def test_a_head_that_listens_on_the_network_only_is_found_by_the_machines_own_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def connect(place: tuple[str, int], _: float) -> socket.socket:
        asked.append(place[0])
        if place[0] == "localhost":
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        return here

    monkeypatch.setattr("farm.reachable.get_node_ip_address", lambda: "192.0.2.7")
    monkeypatch.setattr("socket.create_connection", connect)
    here, there = socket.socketpair()
    there.close()
    require_listening("localhost:6379")
    assert asked == ["localhost", "192.0.2.7"]
