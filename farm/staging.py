"""The working directory of a cluster job: the suite, the files it names, and exactly the code that is running here."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from farm.errors import RequestError
from farm.suite import Suite, parse_suite

SUITE_FILE = "suite.yaml"
FILES_FOLDER = "files"
DISTRIBUTION = "inference-farm"

BUILT_IN = "demo"
"""Model and texts of this name come with the farm, whatever lies in the current folder."""

MOST_BYTES = 96 * 2**20
"""What may travel along: Ray's dashboard takes 100 MiB at once, code included; packing hardly makes weights smaller."""

_CODE = ("*.py", "*.yaml", "py.typed", "*.cpp", "*.hpp", "*.html", "*.css", "*.js")


@contextmanager
def staged(suite: Suite) -> Iterator[Path]:
    """A folder with everything a job needs but the installed libraries; gone afterwards.

    Local files and folders that the suite names travel along and are named as they lie there. Raises RequestError
    where two of them have the same name, or one cannot be read.
    """
    with TemporaryDirectory(prefix="farm-job-") as temporary:
        folder = Path(temporary)
        stage_code(folder)
        try:
            shipped = parse_suite(_ship(suite.resolved(), folder / FILES_FOLDER))
        except OSError as error:
            raise RequestError(f"{error.filename}: cannot be sent along ({error.strerror or error})") from error
        (folder / SUITE_FILE).write_text(yaml.safe_dump(shipped.resolved(), sort_keys=False))
        yield folder


def stage_code(folder: Path) -> None:
    """Copy the farm's packages as they are imported here, and what says which release they are."""
    home = Path(__file__).parents[1]
    for package in ("farm", "tasks"):
        for pattern in _CODE:
            for source in sorted((home / package).rglob(pattern)):
                target = folder / source.relative_to(home)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
    _stage_release(folder)


def _stage_release(folder: Path) -> None:
    """Release number and entry points: Python looks beside the code first, and the cluster may have another release."""
    try:
        installed = distribution(DISTRIBUTION)
    except PackageNotFoundError:
        return
    about = folder / f"{DISTRIBUTION.replace('-', '_')}-{installed.version}.dist-info"
    about.mkdir()
    # A checkout that was installed in place says the first in PKG-INFO.
    for name, also in (("METADATA", "PKG-INFO"), ("entry_points.txt", "entry_points.txt")):
        text = installed.read_text(name) or installed.read_text(also)
        if text is not None:
            (about / name).write_text(text)


def _size_bytes(source: Path) -> int:
    return sum(path.stat().st_size for path in [source, *source.rglob("*")] if path.is_file())


def _ship(data: dict[str, Any], files: Path) -> dict[str, Any]:
    """Copy the local files that a suite names: the model's folder, texts to judge on, texts to calibrate with."""
    taken: dict[str, Path] = {}
    sizes: dict[str, int] = {}

    def shipped(name: str) -> str:
        source = Path(name).expanduser()
        if name == BUILT_IN or not source.exists():
            return name
        source = source.resolve()
        if taken.setdefault(source.name, source) != source:
            raise RequestError(f"{source} and {taken[source.name]} have the same name; rename one to send both along")
        sizes[source.name] = _size_bytes(source)
        if sum(sizes.values()) > MOST_BYTES:
            raise RequestError(
                f"{name}: {sum(sizes.values()) / 2**20:.0f} MiB are too much to send along (at most "
                f"{MOST_BYTES / 2**20:.0f} MiB). Name a model of the hub, or copy the folder to the head node, under a "
                "path that is not there on this machine, and name that"
            )
        target = files / source.name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
        else:
            shutil.copyfile(source, target)
        return f"{FILES_FOLDER}/{source.name}"

    data["model"] = shipped(data["model"])
    if data["accuracy"]:
        data["accuracy"]["dataset"] = shipped(data["accuracy"]["dataset"])
    for method in data["methods"]:
        if "calibration" in method["options"]:
            method["options"]["calibration"] = shipped(method["options"]["calibration"])
    return data
