"""Folders appear in the cache all at once, and digests are remembered only while a file is the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.cache import cache_folder, publish_folder
from tasks.digests import file_sha256, remembered_sha256


def _folder(path: Path, content: str) -> Path:
    path.mkdir(parents=True)
    (path / "file").write_text(content)
    return path


def test_the_cache_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARM_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path


def test_a_published_folder_is_complete_and_the_temporary_one_gone(tmp_path: Path) -> None:
    temporary = _folder(tmp_path / ".temporary", "mine")
    final = publish_folder(temporary, tmp_path / "deep" / "final")
    assert (final / "file").read_text() == "mine"
    assert not temporary.exists()


def test_the_first_to_publish_wins(tmp_path: Path) -> None:
    final = publish_folder(_folder(tmp_path / ".first", "first"), tmp_path / "final")
    second = _folder(tmp_path / ".second", "second")
    assert publish_folder(second, final) == final
    assert (final / "file").read_text() == "first"
    assert not second.exists()


@pytest.mark.usefixtures("empty_cache")
def test_a_changed_file_has_another_digest(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    assert remembered_sha256(path) == remembered_sha256(path) == file_sha256(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert remembered_sha256(path) == file_sha256(path)


@pytest.mark.usefixtures("empty_cache")
def test_an_unchanged_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    before = remembered_sha256(path)
    monkeypatch.setattr("tasks.digests.file_sha256", lambda _: pytest.fail("read again"))
    assert remembered_sha256(path) == before
