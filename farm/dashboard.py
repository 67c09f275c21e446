"""The way to a cluster's dashboard: its address, the token, how long it may take to answer, and what it refuses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobSubmissionClient

from farm.errors import RequestError

CONNECT_S = 10.0
"""A head node that is up takes a connection within a second, also from far away; one lost packet is sent again after
one, two and four."""

ANSWER_S = 60.0
"""How long the job server may be silent within an answer: it waits for its own parts for up to 10 s, and a busy head
node several times that."""

UPLOAD_S = 600.0
"""For what is sent along as a whole, at most 100 MiB, on a slow line."""

TOKEN_HELP = "`ray get-auth-token` on the head node prints it; put it in RAY_AUTH_TOKEN or in ~/.ray/auth_token here"

_ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"

_OWN_NAMES = ("auto", "local")
"""What Ray itself finds a cluster by."""


class UnansweredError(RequestError):
    """No job server answered as one does."""


class _RefusedError(RequestError):
    """The job server asks for a token, or for another one."""


class _Client(JobSubmissionClient):
    """Ray's client, every request of which ends: Ray's own waits for ever where a connection is half open."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        # While sending, requests counts by the limit for connecting, over the whole body.
        connect_s = CONNECT_S if options.get("data") is None else UPLOAD_S
        options.setdefault("timeout", (connect_s, ANSWER_S))
        return super()._do_request(method, endpoint, **options)


def connect(address: str) -> JobSubmissionClient:
    """A client, with the user's token only where the cluster asks for one.

    Raises RequestError where nothing answers there, or refuses the token.
    """
    if os.environ.get("RAY_AUTH_MODE") == "token":
        find_token()  # Ray sends it by itself, and would not say what is wrong with it
    try:
        return _client(address)
    except _RefusedError:
        token = find_token()
        if token is None:
            raise RequestError(f"--address {address}: this cluster asks for a token: {TOKEN_HELP}") from None
    try:
        return _client(address, headers={"Authorization": f"Bearer {token}"})
    except _RefusedError:
        raise RequestError(f"--address {address}: the token here is not this cluster's: {TOKEN_HELP}") from None


def _client(address: str, **options: Any) -> JobSubmissionClient:
    http = address if "://" in address or address in _OWN_NAMES else f"http://{address}"
    with answered(address):
        with _no_other(http):
            client = _Client(http, **options)
        client.list_jobs()  # the version, which is all that the client asks for by itself, is told to anybody
    return client


@contextmanager
def _no_other(address: str) -> Iterator[None]:
    """Let Ray go to this address: to it, one in the environment comes before the one that it is given."""
    before = os.environ.get(_ADDRESS_VARIABLE)
    os.environ[_ADDRESS_VARIABLE] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ADDRESS_VARIABLE]
        else:
            os.environ[_ADDRESS_VARIABLE] = before


def find_token() -> str | None:
    """The token of Ray's clusters, where Ray itself looks for it.

    Raises RequestError where it cannot be read, or cannot be one.
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return _sound(os.environ["RAY_AUTH_TOKEN"].strip(), "RAY_AUTH_TOKEN")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        text = path.read_bytes().decode() if path.is_file() else ""
    except OSError as error:
        why = error.strerror or error
        raise RequestError(f"{path}: the token in it cannot be read ({why}): mend the access to it") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: what is in it is no text, so no token: {TOKEN_HELP}") from error
    return _sound(text.strip(), str(path)) or None


def _sound(token: str, where: str) -> str:
    """A token as it was found; an HTTP header takes letters, digits and signs of ASCII only."""
    if not (token.isascii() and token.isprintable()):
        raise RequestError(f"{where}: what is in it is no token, which is of plain letters and digits: {TOKEN_HELP}")
    return token


@contextmanager
def answered(address: str) -> Iterator[None]:
    """Explain in one line what the job server, or the way to it, refuses."""
    try:
        yield
    except AuthenticationError as error:
        raise _RefusedError(f"--address {address}: the cluster refuses the token from here: {TOKEN_HELP}") from error
    except (RayError, RuntimeError, ValueError, OSError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnansweredError(
            f"--address {address}: no Ray dashboard takes jobs there: {why} "
            "(the address is the head node's, port 8265 unless it was started with another)"
        ) from error
