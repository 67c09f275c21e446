"""Which CUDA the installed runtimes are built for, read without importing them, and whether they go together."""

from __future__ import annotations

import re
from contextlib import suppress
from ctypes.util import find_library
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from farm.errors import MethodUnsupportedError
from farm.records import Machine


@cache
def torch_cuda() -> int | None:
    """The major version of CUDA that PyTorch is built for; None for a CPU build, or without PyTorch."""
    return _noted("torch", "version.py", "cuda")


@cache
def onnxruntime_cuda() -> int | None:
    """The same of ONNX Runtime."""
    return _noted("onnxruntime", "capi/build_and_package_info.py", "cuda_version")


@cache
def provided_cuda() -> frozenset[int]:
    """Major versions of CUDA whose libraries are installed as packages, told by cuDNN's, which names its own."""
    found = set()
    for major in range(11, 20):
        with suppress(PackageNotFoundError):
            version(f"nvidia-cudnn-cu{major}")
            found.add(major)
    return frozenset(found)


def needs_driver(method: str, machine: Machine, package: str, built_for: int | None) -> None:
    """Raise MethodUnsupportedError where a package is built for a newer CUDA than the machine's driver serves."""
    for gpu in machine.gpu_devices[:1]:
        if built_for is not None and gpu.driver_cuda is not None and gpu.driver_cuda < built_for:
            raise MethodUnsupportedError(
                f"{method}: {package} is built for CUDA {built_for}, but this driver serves CUDA {gpu.driver_cuda} at "
                f"most. Install a newer driver, or a release of it for CUDA {gpu.driver_cuda}"
            )


def needs_matching_cuda(method: str) -> None:
    """Raise MethodUnsupportedError where ONNX Runtime is built for a CUDA whose libraries PyTorch did not bring.

    Both load the libraries that came with PyTorch's packages, and those of one major version do not serve the other.
    """
    wanted, brought = onnxruntime_cuda(), torch_cuda()
    if wanted is None or wanted == brought or wanted in provided_cuda():
        return
    if brought is None:
        if find_library("cudnn") is None:
            raise MethodUnsupportedError(
                f"{method} needs CUDA {wanted}'s libraries and cuDNN, and nothing here brought them: install a PyTorch "
                f"built for CUDA {wanted}, or pip install 'onnxruntime-gpu[cuda,cudnn]'"
            )
        return
    raise MethodUnsupportedError(
        f"{method}: the installed onnxruntime-gpu is built for CUDA {wanted}, but PyTorch is built for CUDA {brought} "
        f"and brought its libraries. Install a PyTorch for CUDA {wanted}, or an onnxruntime-gpu for CUDA {brought} "
        "(its releases name the version they are built for), or the libraries themselves: "
        f"pip install 'onnxruntime-gpu[cuda,cudnn]'"
    )


def _noted(package: str, file: str, name: str) -> int | None:
    """A major version from a line such as `cuda: Optional[str] = '13.0'` in a file of the package."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    try:
        text = (Path(spec.origin).parent / file).read_text()
    except OSError:
        return None
    return cuda_major(text, name)


def cuda_major(text: str, name: str) -> int | None:
    """The major version that `text`, a Python file, assigns to `name`; None where it assigns none."""
    match = re.search(rf"^{name}\b[^=\n]*=\s*['\"](\d+)", text, re.MULTILINE)
    return int(match[1]) if match else None
