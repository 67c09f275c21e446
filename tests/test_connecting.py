"""A cluster that cannot be reached, or a private one that cannot start, is one line that says what to do."""

from __future__ import annotations

import errno
import os

import pytest
from ray.exceptions import AuthenticationError

from farm.errors import RequestError
from farm.slots import connected


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
    said = _refusal(monkeypatch, "10.0.0.9:6379", ConnectionError("Could not find any running Ray instance\nat all"))
    assert "no Ray cluster answers there: Could not find" in said
