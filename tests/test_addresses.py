"""No credential of an address is stored, and no address without any is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from farm.addresses import named_place, require_no_credentials, without_credentials
from farm.cli.output import require_elsewhere
from farm.errors import RequestError
from farm.folders import open_folder

AZURE = "abfss://container@account.dfs.core.windows.net/results"


@pytest.mark.parametrize("address", ["s3://KEY:HIDDEN@bucket/x", "S3://HIDDEN@bucket", "abfs://KEY:SECRET@account/x"])
def test_credentials_in_the_address_of_results_are_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(RequestError, match="credentials do not belong") as refused:
        require_no_credentials(address)
    assert "HIDDEN" not in str(refused.value)


@pytest.mark.parametrize("address", [AZURE, "s3://bucket/a@b/c", "gs://bucket", "results"])
def test_what_is_no_credential_is_let_through(address: str) -> None:
    require_no_credentials(address)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("s3:/bucket/x", "an address is written s3://bucket/x; a folder of this name is ./s3:/bucket/x"),
        ("S3:bucket", "an address is written s3://bucket"),
        ("file:/x", "an address is written file:///x"),
        ("s3:///x", "names no bucket: s3://BUCKET/FOLDER"),
        ("gs://", "gs"),
        ("s33://bucket/x", "Protocol not known: s33. Known: a folder, s3://, gs://"),
        ("file://x/y", "file:///path"),
        ("memory://x", "would be lost"),
        ("simplecache::s3://bucket", "one file system in another"),
    ],
)
def test_an_address_where_no_results_can_be_is_one_line_that_says_what_to_do(address: str, words: str) -> None:
    with pytest.raises(RequestError) as refused:
        open_folder(address)
    assert words in str(refused.value) and str(refused.value).startswith(address)
    assert "\n" not in str(refused.value)


def test_a_file_system_that_is_not_installed_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise ImportError("Please install adlfs\nto access Azure")

    monkeypatch.setattr("fsspec.get_filesystem_class", missing)
    with pytest.raises(RequestError, match="not installed: pip install 'inference-farm\\[s3\\]'"):
        named_place("s3://bucket/x")
    with pytest.raises(RequestError, match="not installed: Please install adlfs to access Azure"):
        named_place("abfs://container/x")


@pytest.mark.parametrize("address", ["results", "./s3:/bucket", "/tmp/a:/b", "a:b/c", "s3://bucket", AZURE])
def test_an_address_where_results_can_be_is_as_it_was_given(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsspec.get_filesystem_class", lambda _: None)
    assert named_place(address) == address


def test_a_file_address_is_the_folder_it_names(tmp_path: Path) -> None:
    assert open_folder(f"file://{tmp_path}").root == tmp_path
    with pytest.raises(RequestError, match="among the results"):
        require_elsewhere(tmp_path / "table.csv", "-o", f"file://{tmp_path}")


def test_a_command_is_stored_without_the_credentials_in_its_addresses() -> None:
    words = ["--address=https://user:pass word@head:8265", "--results", AZURE, "--model", "org/name@v2"]
    assert [*map(without_credentials, words)] == ["--address=https://head:8265", *words[1:]]
