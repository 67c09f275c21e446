"""A dashboard that is not there, does not answer, or wants another token is one line that says what to do."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ray.exceptions import RpcError

from farm import dashboard
from farm.dashboard import connect, find_token
from farm.errors import RequestError


class _JobServer(BaseHTTPRequestHandler):
    """Has no jobs, and asks for a token where `token` says which."""

    token = ""

    def do_GET(self) -> None:
        refused = self.path != "/api/version" and self.token not in self.headers.get("Authorization", "")
        content = json.dumps({"ray_version": "2.60.0", "version": "4"} if self.path == "/api/version" else []).encode()
        self.send_response(401 if refused else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a token; the file for one in it."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    return tmp_path / ".ray" / "auth_token"


@pytest.fixture
def job_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _JobServer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _refusal(address: str) -> str:
    with pytest.raises(RequestError) as refused:
        connect(address)
    (line,) = str(refused.value).splitlines()
    return line


def test_a_host_and_a_port_are_enough(job_server: str) -> None:
    assert connect(job_server).get_address() == f"http://{job_server}"


def test_the_address_that_was_given_goes_before_one_in_the_environment(
    job_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.9:6379")
    assert connect(f"http://{job_server}").get_address() == f"http://{job_server}"


def test_a_dashboard_that_takes_the_connection_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        said = _refusal(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "no Ray dashboard takes jobs there" in said and "timed out" in said


def test_what_ray_raises_of_its_own_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RpcError("failed to connect\nto all addresses")

    monkeypatch.setattr(dashboard, "_Client", fail)
    assert "no Ray dashboard takes jobs there: failed to connect (" in _refusal("auto")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", "schlüssel".encode(), b"two\nlines"])
def test_a_file_that_holds_no_token_is_named(
    job_server: str, nobody: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(_JobServer, "token", "secret")
    nobody.write_bytes(content)
    said = _refusal(job_server)
    assert str(nobody) in said and "ray get-auth-token" in said


def test_a_token_file_that_may_not_be_read_is_named(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    nobody.write_text("secret")
    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(RequestError, match="auth_token: the token in it cannot be read \\(Permission denied\\)"):
        find_token()


@pytest.mark.parametrize("mode", ["", "token"])
def test_a_token_that_no_request_can_carry_is_not_taken_for_a_missing_dashboard(
    job_server: str, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(_JobServer, "token", "secret")
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "pass—word")
    said = _refusal(job_server)
    assert said.startswith("RAY_AUTH_TOKEN: ") and "dashboard" not in said
