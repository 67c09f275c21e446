"""Two farms never measure on the same cores, nor one beside another that needs the machine to itself."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from farm.cores import CoreClaim


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_a_machine_taken_whole_excludes_everybody() -> None:
    first = CoreClaim((0, 1), whole_machine=True)
    assert first.take()
    assert first.take()
    assert not CoreClaim((2,), whole_machine=True).take()
    packed = CoreClaim((2,), whole_machine=False)
    assert not packed.take()
    first.give_up()
    assert packed.take()


def test_packed_slots_exclude_one_another_only_where_cores_overlap() -> None:
    first = CoreClaim((0, 1), whole_machine=False)
    assert first.take()
    assert CoreClaim((2, 3), whole_machine=False).take()
    overlapping = CoreClaim((1, 4), whole_machine=False)
    assert not overlapping.take()
    assert not CoreClaim((5,), whole_machine=True).take()
    first.give_up()
    assert overlapping.take()


def test_a_claim_that_fails_holds_nothing() -> None:
    first, between = CoreClaim((3,), whole_machine=False), CoreClaim((2, 3), whole_machine=False)
    assert first.take()
    assert not between.take()
    assert CoreClaim((2,), whole_machine=False).take()


def test_a_claim_ends_with_its_process() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"1" if CoreClaim((0,), whole_machine=True).take() else b"0")
        signal.pause()
    assert os.read(reading, 1) == b"1"
    claim = CoreClaim((0,), whole_machine=True)
    assert not claim.take()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert claim.take()


def test_the_lock_files_of_another_user_are_opened_and_those_made_here_are_open_to_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = os.umask(0o077)
    first = CoreClaim((0,), whole_machine=False)
    try:
        assert first.take()
    finally:
        first.give_up()
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}
    open_ordinarily = os.open

    def protected(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and not flags & os.O_EXCL and Path(path).exists():
            raise PermissionError(13, "Permission denied", str(path))
        return open_ordinarily(path, flags, mode)

    monkeypatch.setattr(os, "open", protected)
    assert CoreClaim((0,), whole_machine=False).take()
