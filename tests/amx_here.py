"""Whether the kernels for AMX can be compiled and run on this machine; tests of them are skipped elsewhere."""

from __future__ import annotations

import subprocess

import pytest

from farm.errors import MethodUnsupportedError
from tasks.compilers import compiler, needs_compiler
from tasks.instruction_sets import cpu_flags
from tasks.native.building import COMPILED_FOR, INSTRUCTION_SETS


def _missing() -> str:
    """Why not; empty where they can."""
    lacking = sorted(INSTRUCTION_SETS - cpu_flags())
    if lacking:
        return f"this CPU lacks {', '.join(lacking)}"
    try:
        needs_compiler("amx-int8")
    except MethodUnsupportedError as error:
        return str(error)
    flags = [f"-m{name}" for name in COMPILED_FOR]
    tried = subprocess.run([compiler(), *flags, "-E", "-x", "c++", "-"], input=b"", capture_output=True, check=False)
    return "" if tried.returncode == 0 else f"{compiler()} does not know AMX"


needs_amx = pytest.mark.skipif(bool(_missing()), reason=_missing() or "AMX is here")
