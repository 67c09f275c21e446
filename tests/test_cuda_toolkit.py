"""What compiling for a GPU needs: compilers and CUDA's headers, where they may be, and what is said without them."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from farm.errors import MethodUnsupportedError
from tasks import cuda_toolkit
from tasks.cuda_toolkit import HEADERS, needs_c_compiler, needs_cuda_headers, use_cuda_headers

PARTS = {"cuda_runtime": HEADERS[:3], "cuda_nvcc": HEADERS[3:4], "cuda_cccl": HEADERS[4:]}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a C++ compiler and nothing of CUDA's but what a test puts into the folder of its packages."""
    for name in ("CUDA_HOME", "CUDA_PATH", "CPATH", "CC", "CXX", "LIBRARY_PATH", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, "")  # so that what a test sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setattr(cuda_toolkit.shutil, "which", {"g++": "/usr/bin/g++"}.get)
    monkeypatch.setattr(cuda_toolkit, "SYSTEM", tmp_path / "no-toolkit")
    monkeypatch.setattr(cuda_toolkit, "torch_cuda", lambda: 13)
    monkeypatch.setattr(cuda_toolkit, "LINKERS_FOLDERS", [])
    monkeypatch.setattr(cuda_toolkit, "DRIVERS_FOLDERS", [])
    packages = tmp_path / "nvidia"
    packages.mkdir()
    found = SimpleNamespace(submodule_search_locations=[str(packages)])
    monkeypatch.setattr(cuda_toolkit, "find_spec", lambda _: found)
    return packages


def put(include: Path, *headers: str) -> None:
    for header in headers:
        (include / header).parent.mkdir(parents=True, exist_ok=True)
        (include / header).touch()


@pytest.mark.usefixtures("site")
def test_without_pythons_headers_triton_builds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_toolkit.shutil, "which", {"gcc": "/usr/bin/gcc"}.get)
    monkeypatch.setattr(cuda_toolkit.sysconfig, "get_path", lambda _: str(tmp_path / "include"))
    with pytest.raises(MethodUnsupportedError, match=r"needs Python's headers.*install them \(python3\."):
        needs_c_compiler("m")
    put(tmp_path / "include", "Python.h")
    needs_c_compiler("m")


def test_without_headers_it_is_said_which_packages_have_them(site: Path) -> None:
    with pytest.raises(
        MethodUnsupportedError, match=r"there are none: pip install 'nvidia-cuda-runtime==13\.\*' 'nvid"
    ):
        needs_cuda_headers("m")
    put(site / "cu13" / "include", *HEADERS[:3])
    with pytest.raises(MethodUnsupportedError, match=r"cu13 lacks crt/host_config\.h, nv/target: pip install"):
        needs_cuda_headers("m")


def test_packages_of_cuda_13_share_a_folder_that_becomes_cudas_home(site: Path) -> None:
    put(site / "cu13" / "include", *HEADERS[:4])
    put(site / "cu13" / "include" / "cccl", "nv/target")
    needs_cuda_headers("m")
    use_cuda_headers()
    assert os.environ["CUDA_HOME"] == str(site / "cu13")
    assert os.environ["CPATH"] == str(site / "cu13" / "include" / "cccl")


def test_a_driver_that_is_there_by_its_version_alone_is_linked_for_the_linker(
    site: Path, empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(site / "cu13" / "include", *HEADERS)
    use_cuda_headers()
    assert "LIBRARY_PATH" not in os.environ  # there is no driver at all
    put(tmp_path / "driver", "libcuda.so.1")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "driver"))
    link = empty_cache / "linker" / "libcuda.so"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "gone")
    use_cuda_headers()
    assert link.samefile(tmp_path / "driver" / "libcuda.so.1")
    assert os.environ["LIBRARY_PATH"] == str(link.parent)
    monkeypatch.setattr(cuda_toolkit, "LINKERS_FOLDERS", [tmp_path / "lib"])
    put(tmp_path / "lib", "libcuda.so")
    monkeypatch.setenv("LIBRARY_PATH", "")
    use_cuda_headers()
    assert not os.environ["LIBRARY_PATH"]


def test_packages_of_cuda_12_lie_side_by_side(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPATH", "/mine")
    for name, headers in PARTS.items():
        put(site / name / "include", *headers)
    needs_cuda_headers("m")
    use_cuda_headers()
    assert os.environ["CUDA_HOME"] == str(site / "cuda_runtime")
    added = [str(site / name / "include") for name in ("cuda_nvcc", "cuda_cccl")]
    assert os.environ["CPATH"].split(os.pathsep) == ["/mine", *added]


def test_a_home_that_the_user_names_is_the_only_one_looked_at(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(site / "cu13" / "include", *HEADERS)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "mine"))
    with pytest.raises(MethodUnsupportedError, match=r"mine lacks cuda\.h"):
        needs_cuda_headers("m")
    put(tmp_path / "mine" / "include", *HEADERS)
    needs_cuda_headers("m")


def test_compilers_are_looked_for(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del site
    with pytest.raises(MethodUnsupportedError, match=r"needs a C compiler, with which Triton .* install gcc"):
        needs_c_compiler("m")
    monkeypatch.setattr(cuda_toolkit.shutil, "which", {"my-cc": "/my-cc"}.get)
    monkeypatch.setenv("CC", "my-cc")
    needs_c_compiler("m")
    with pytest.raises(MethodUnsupportedError, match=r"needs a C\+\+ compiler: install g\+\+"):
        needs_cuda_headers("m")
