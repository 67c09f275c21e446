"""Credentials in addresses: results refuse them, and what is stored of a command leaves them out."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from farm.errors import RequestError

CONTAINER_SCHEMES = frozenset({"abfs", "abfss", "wasb", "wasbs"})
"""Azure's, which name a container of an account as `abfs://container@account...`."""

_USER = re.compile(r"(?P<scheme>\w[\w+.-]*)://(?P<user>[^/]*)@")


def require_no_credentials(address: str) -> None:
    """Raise RequestError, which does not repeat them, where an address of results has credentials in it."""
    if without_credentials(address) != address:
        raise RequestError(
            f"{urlsplit(address).scheme}://...: credentials do not belong in an address, which is stored with the "
            "results. Put them where the cloud's own tools find them, such as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY"
        )


def without_credentials(text: str) -> str:
    """A word of a command, with the user's name and password left out of the address in it."""
    return _USER.sub(_without_user, text)


def _without_user(found: re.Match[str]) -> str:
    names_container = found["scheme"].lower() in CONTAINER_SCHEMES and ":" not in found["user"]
    return found[0] if names_container else f"{found['scheme']}://"
