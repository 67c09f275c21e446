"""Which package index the user's pip is set up for, read through pip's own command line."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_INDEX = "https://pypi.org/simple"

# pip's own default, in seconds.
_DEFAULT_TIMEOUT_S = 15.0

# Later ones win, as in pip: files' general section, the commands that download, then PIP_* variables.
_SECTIONS = ("global", "install", "download", ":env:")


@dataclass(frozen=True, slots=True)
class PipSettings:
    """Where pip looks for packages, and how it connects."""

    index_urls: tuple[str, ...] = (DEFAULT_INDEX,)
    find_links: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    certificates: str | None = None
    proxy: str | None = None
    timeout_s: float = _DEFAULT_TIMEOUT_S


def read_pip_settings() -> PipSettings:
    """The settings of this interpreter's pip; PyPI alone where the interpreter has no pip."""
    try:
        listing = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return PipSettings()
    return parse_pip_settings(listing)


def parse_pip_settings(listing: str) -> PipSettings:
    """Read the output of `pip config list`: lines like global.index-url='https://…'."""
    values = _effective_values(listing)
    without_index = values.get("no-index", "").lower() in ("1", "true", "yes", "on", "y", "t")
    index_urls = (values.get("index-url", DEFAULT_INDEX), *values.get("extra-index-url", "").split())
    timeout = values.get("timeout", values.get("default-timeout"))
    return PipSettings(
        index_urls=() if without_index else index_urls,
        find_links=tuple(values.get("find-links", "").split()),
        trusted_hosts=tuple(values.get("trusted-host", "").split()),
        certificates=values.get("cert") or None,
        proxy=values.get("proxy") or None,
        timeout_s=float(timeout) if timeout else _DEFAULT_TIMEOUT_S,
    )


def _effective_values(listing: str) -> Mapping[str, str]:
    by_section: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in listing.splitlines():
        name, separator, value = line.partition("=")
        section, _, key = name.partition(".")
        if separator and section in by_section:
            by_section[section][key] = str(ast.literal_eval(value))
    return {key: value for section in _SECTIONS for key, value in by_section[section].items()}
