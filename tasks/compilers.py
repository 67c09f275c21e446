"""The C++ compiler of methods that compile: which it is, whether it is there, and what it calls itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache

from farm.errors import MethodUnsupportedError

VERSION_S = 10.0
"""A compiler that has not said its version by then hangs."""


def compiler() -> str:
    """The compiler's name, as Inductor chooses it."""
    return os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")


def needs_compiler(method_id: str) -> None:
    """Raise MethodUnsupportedError where the C++ compiler is not installed."""
    if shutil.which(compiler()) is None:
        raise MethodUnsupportedError(
            f"{method_id} needs the C++ compiler '{compiler()}', which is not installed (CXX names another)"
        )


def compiler_version() -> str:
    """What the compiler calls itself; empty where it is not there."""
    return _version_of(compiler())


@cache
def _version_of(name: str) -> str:
    try:
        said = subprocess.run([name, "--version"], capture_output=True, text=True, timeout=VERSION_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.stdout.partition("\n")[0]
