"""Compiling the kernels for AMX, and opening what was compiled."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from filelock import FileLock

from farm.errors import MethodUnsupportedError
from tasks.cache import cache_folder, publish_folder
from tasks.compilers import compiler, compiler_version

SOURCES = Path(__file__).parent

INSTRUCTION_SETS = frozenset({"amx_tile", "amx_int8", "amx_bf16", "avx512f", "avx512_bf16"})
"""What tells that a CPU can run the kernels: each that has AMX has all of AVX-512 that they use beside it."""

COMPILED_FOR = ("amx-tile", "amx-int8", "amx-bf16", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512bf16", "fma")
"""As compilers spell what the kernels use."""

COMPILE_S = 300.0
"""A compiler that takes longer for a file of this size hangs."""

TILE_PRODUCTS = {
    "tdpbssd": rb"\xc4\xe2[\x03\x0b\x13\x1b\x23\x2b\x33\x3b\x43\x4b\x53\x5b\x63\x6b\x73\x7b]\x5e[\xc0-\xff]",
    "tdpbf16ps": rb"\xc4\xe2[\x02\x0a\x12\x1a\x22\x2a\x32\x3a\x42\x4a\x52\x5a\x62\x6a\x72\x7a]\x5c[\xc0-\xff]",
}
"""How the two instructions that multiply tiles are encoded (Intel SDM, volume 2: VEX.128.F2.0F38.W0 5E and
VEX.128.F3.0F38.W0 5C), whichever tiles they name."""


def compile_library(source: str, target: Path) -> None:
    """Compile one of the sources to a shared library.

    Raises MethodUnsupportedError, with the compiler's first error, where it cannot.
    """
    flags = [f"-m{name}" for name in COMPILED_FOR]
    command = [compiler(), "-std=c++17", "-O3", "-fopenmp", "-shared", "-fPIC", *flags, "-o", str(target)]
    try:
        ran = subprocess.run(
            [*command, str(SOURCES / source)], capture_output=True, text=True, timeout=COMPILE_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise MethodUnsupportedError(f"{compiler()} has not compiled kernels for AMX in {COMPILE_S:.0f} s") from None
    if ran.returncode != 0:
        errors = [line for line in ran.stderr.splitlines() if "error" in line] or [f"exit code {ran.returncode}"]
        raise MethodUnsupportedError(
            f"{compiler()} cannot compile kernels for AMX: {errors[0]} (GCC 11 and later can; CXX names another)"
        )


def cached_library(source: str) -> Path:
    """The library of one of the sources, compiled by this compiler; made if it is not in the cache."""
    key = hashlib.sha256(f"{source} {compiler_version()} {sources_sha256()}".encode()).hexdigest()[:24]
    folder = cache_folder() / "kernels" / key
    name = Path(source).with_suffix(".so").name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            scratch = Path(mkdtemp(dir=folder.parent))
            try:
                compile_library(source, scratch / name)
                publish_folder(scratch, folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return folder / name


def tile_products(library: Path) -> dict[str, int]:
    """How often each instruction that multiplies tiles stands in a compiled library."""
    code = library.read_bytes()
    return {name: len(re.findall(pattern, code, re.DOTALL)) for name, pattern in TILE_PRODUCTS.items()}


@cache
def sources_sha256() -> str:
    """Digest of all that decides what is compiled, and how weights lie for it."""
    sources = sorted(path for path in SOURCES.iterdir() if path.suffix in (".cpp", ".hpp", ".py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
