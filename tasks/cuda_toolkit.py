"""What compiling for a GPU needs beside PyTorch: compilers, and CUDA's headers, which may have come as packages.

Triton compiles its launchers with a C compiler. AOTInductor compiles C++ against CUDA's headers and looks for them in
CUDA_HOME alone, which PyTorch reads once, while it is imported.
"""

from __future__ import annotations

import os
import platform
import shutil
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from farm.errors import MethodUnsupportedError
from tasks.cache import cache_folder
from tasks.cuda_versions import torch_cuda

HEADERS = ("cuda.h", "cuda_runtime.h", "cuda_fp16.h", "crt/host_config.h", "nv/target")
"""One of each part that AOTInductor's generated source includes: driver, runtime, FP16, compiler, CCCL."""

SYSTEM = Path("/usr/local/cuda")

LINKERS_FOLDERS = tuple(
    Path(folder) for folder in ("/usr/lib", f"/usr/lib/{platform.machine()}-linux-gnu", "/usr/lib64", "/usr/local/lib")
)
"""Where a linker looks by itself."""

DRIVERS_FOLDERS = (*LINKERS_FOLDERS, Path("/usr/local/nvidia/lib64"), Path("/usr/lib/wsl/lib"))
"""Where containers and Windows put the driver's library, often by its versioned name alone."""


def needs_c_compiler(method: str) -> None:
    """Raise MethodUnsupportedError where Triton would find no C compiler, or not Python's headers."""
    if not any(shutil.which(name) for name in (os.environ.get("CC", ""), "gcc", "clang") if name):
        raise MethodUnsupportedError(
            f"{method} needs a C compiler, with which Triton builds what launches its kernels: install gcc, or name "
            "another in CC"
        )
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        raise MethodUnsupportedError(
            f"{method} needs Python's headers, against which Triton builds what launches its kernels: install them "
            f"(python{sysconfig.get_python_version()}-dev of most Linux distributions)"
        )


def needs_cuda_headers(method: str) -> None:
    """Raise MethodUnsupportedError where AOTInductor would find no C++ compiler, or not all of CUDA's headers."""
    if shutil.which(os.environ.get("CXX") or "g++") is None:
        raise MethodUnsupportedError(f"{method} needs a C++ compiler: install g++, or name another in CXX")
    homes = list(_homes())
    if any(not missing_headers(home) for home in homes):
        return
    missing = f"{homes[0]} lacks {', '.join(missing_headers(homes[0]))}" if homes else "there are none"
    major = torch_cuda() or 13
    names = ("runtime", "crt", "cccl") if major >= 13 else ("runtime-cu12", "nvcc-cu12", "cccl-cu12")
    packages = " ".join(f"'nvidia-cuda-{name}=={major}.*'" for name in names)
    raise MethodUnsupportedError(
        f"{method} compiles against CUDA's headers, and {missing}: pip install {packages}, or install the CUDA "
        "toolkit and set CUDA_HOME to its folder"
    )


def use_cuda_headers() -> None:
    """Tell PyTorch, before it is imported, and the compiler where CUDA's headers are, and the linker the driver."""
    home = next((home for home in _homes() if not missing_headers(home)), None)
    if home is None:
        return
    os.environ["CUDA_HOME"] = str(home)
    more = [str(folder) for folder in _includes(home)[1:] if folder.is_dir()]
    _add_to("CPATH", more)
    _let_the_linker_find_the_driver()


def _let_the_linker_find_the_driver() -> None:
    """AOTInductor links against `libcuda.so`; a machine that only runs CUDA may have no more than `libcuda.so.1`."""
    if any((folder / "libcuda.so").exists() for folder in (*LINKERS_FOLDERS, *_listed("LIBRARY_PATH"))):
        return
    places = (folder / "libcuda.so.1" for folder in (*_listed("LD_LIBRARY_PATH"), *DRIVERS_FOLDERS))
    driver = next((place for place in places if place.exists()), None)
    if driver is None:
        return
    link = cache_folder() / "linker" / "libcuda.so"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():  # or it leads nowhere any more
        link.unlink(missing_ok=True)
        with suppress(FileExistsError):
            link.symlink_to(driver)
    _add_to("LIBRARY_PATH", [str(link.parent)])


def _listed(variable: str) -> list[Path]:
    return [Path(folder) for folder in os.environ.get(variable, "").split(os.pathsep) if folder]


def _add_to(variable: str, folders: Sequence[str]) -> None:
    os.environ[variable] = os.pathsep.join([*map(str, _listed(variable)), *folders])


def missing_headers(home: Path) -> list[str]:
    """Those of the headers that are in none of a home's folders."""
    return [name for name in HEADERS if not any((folder / name).exists() for folder in _includes(home))]


def _includes(home: Path) -> list[Path]:
    """A toolkit's folders of headers. Packages of CUDA 12 have one each, side by side."""
    beside = [home.parent / name / "include" for name in ("cuda_nvcc", "cuda_cccl")]
    return [home / "include", home / "include" / "cccl", *beside]


def _homes() -> Iterator[Path]:
    """Where a toolkit may be, in PyTorch's order, and then where packages put theirs."""
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if named:
        yield Path(named)
        return
    if (compiler := shutil.which("nvcc")) is not None:
        yield Path(compiler).parents[1]
    if SYSTEM.exists():
        yield SYSTEM
    packages = find_spec("nvidia")
    for place in (packages.submodule_search_locations or ()) if packages else ():
        homes = (Path(place) / name for name in (f"cu{torch_cuda()}", "cuda_runtime"))
        yield from (home for home in homes if home.is_dir())
