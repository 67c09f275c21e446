"""No credential of an address is stored, and no address without any is refused."""

from __future__ import annotations

import pytest

from farm.addresses import require_no_credentials, without_credentials
from farm.errors import RequestError

AZURE = "abfss://container@account.dfs.core.windows.net/results"


@pytest.mark.parametrize("address", ["s3://KEY:HIDDEN@bucket/x", "S3://HIDDEN@bucket", "abfs://KEY:SECRET@account/x"])
def test_credentials_in_the_address_of_results_are_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(RequestError, match="credentials do not belong") as refused:
        require_no_credentials(address)
    assert "HIDDEN" not in str(refused.value)


@pytest.mark.parametrize("address", [AZURE, "s3://bucket/a@b/c", "gs://bucket", "results"])
def test_what_is_no_credential_is_let_through(address: str) -> None:
    require_no_credentials(address)


def test_a_command_is_stored_without_the_credentials_in_its_addresses() -> None:
    words = ["--address=https://user:pass word@head:8265", "--results", AZURE, "--model", "org/name@v2"]
    assert [*map(without_credentials, words)] == ["--address=https://head:8265", *words[1:]]
