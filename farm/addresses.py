"""Addresses of results: where one leads, and which cannot be one; credentials are refused, and stored of no command."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from farm.errors import RequestError

CONTAINER_SCHEMES = frozenset({"abfs", "abfss", "wasb", "wasbs"})
"""Azure's, which name a container of an account as `abfs://container@account...`."""

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
"""File systems that come with an extra of the farm's own; others are installed as their documentation says."""

LOST_WITH_THE_PROCESS = frozenset({"memory"})
"""File systems that keep nothing once the program has ended."""

_IN_BUCKETS = frozenset({*EXTRAS, *CONTAINER_SCHEMES, "az", "adl"})
"""File systems that have no folder without a bucket, or container, around it."""

_LOCAL = frozenset({"file", "local"})

_KNOWN = "Known: a folder, s3://, gs://, ..."

_WITHOUT_SLASHES = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*):(?P<rest>.*)", re.DOTALL)

_USER = re.compile(r"(?P<scheme>\w[\w+.-]*)://(?P<user>[^/]*)@")


def named_place(address: str) -> str:
    """Where an address of results leads: a path of this machine, also for `file://`, or `scheme://...` as it is.

    Raises RequestError where no results can be: an address that is mistyped, names a file system that is not known, not
    installed or forgets, or has credentials in it. Nothing is connected to.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        _require_no_scheme(address)
        return address
    require_no_credentials(address)
    if "::" in address:
        raise RequestError(f"{address}: results cannot be kept behind one file system in another; name one of them")
    if scheme in _LOCAL:
        if not rest.startswith("/"):
            raise RequestError(f"{address}: a folder is named as a path, or as file:///path from the root on")
        return rest
    if scheme in LOST_WITH_THE_PROCESS:
        raise RequestError(f"{address}: results there would be lost when the command ends. {_KNOWN}")
    _require_installed(address, scheme)
    if scheme in _IN_BUCKETS and rest[:1] in ("", "/"):
        raise RequestError(f"{address}: names no bucket: {scheme}://BUCKET/FOLDER")
    return address


def _require_no_scheme(address: str) -> None:
    """Refuse what was meant as an address and would make a local folder called `s3:`."""
    found = _WITHOUT_SLASHES.match(address)
    if found is None:
        return
    from fsspec.registry import known_implementations, registry

    if found["scheme"].lower() in {*known_implementations, *registry}:
        scheme, rest = found["scheme"].lower(), found["rest"].lstrip("/")
        meant = f"{scheme}://{'/' * (scheme in _LOCAL)}{rest}"
        raise RequestError(f"{address}: an address is written {meant}; a folder of this name is ./{address}")


def _require_installed(address: str, scheme: str) -> None:
    import fsspec

    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        extra = EXTRAS.get(scheme)
        install = f"pip install 'inference-farm[{extra}]'" if extra else " ".join(str(error).split())
        raise RequestError(f"{address}: this file system is not installed: {install}") from error
    except ValueError as error:
        raise RequestError(f"{address}: {str(error).splitlines()[0]}. {_KNOWN}") from error


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
