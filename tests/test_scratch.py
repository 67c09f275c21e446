"""What a cell leaves in its temporary folder goes away with the cell, the cohort, or whoever comes after a kill."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import SLOT

from farm.records import Workload
from farm.residents import Residents
from farm.scratch import CLAIMED_S, OWNED, Scratch

WORKLOAD = Workload("cpu", 1, 1, 8)
HERE = replace(SLOT, cores=tuple(sorted(os.sched_getaffinity(0))[:1]))


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for temporary files of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def _make_older(folder: Path) -> None:
    since = (folder / OWNED).stat().st_mtime - 2 * CLAIMED_S
    os.utime(folder / OWNED, (since, since))


def test_every_cell_has_a_folder_of_its_own_that_goes_with_it(temporary: Path) -> None:
    residents = Residents(HERE)
    try:
        nursery = residents.open_nursery("cells", WORKLOAD)
        for name in ("one", "two"):
            residents.fork(nursery, "cell", name).call("peaks", timeout_s=60)
        (scratch,) = temporary.iterdir()
        (scratch / "one" / "left").write_text("a package that was unpacked")
        residents.kill("one")
        assert not (scratch / "one").exists()
        assert (scratch / "two").is_dir()
    finally:
        residents.close()
    assert list(temporary.iterdir()) == []


def test_a_folder_whose_owner_was_killed_is_removed_by_the_next(temporary: Path) -> None:
    program = (
        "import os, signal, sys, tempfile; from farm.scratch import Scratch\n"
        "tempfile.tempdir = sys.argv[1]; Scratch(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(temporary)], check=False)
    (abandoned,) = temporary.iterdir()
    young = Scratch()
    assert abandoned.exists()
    for folder in (abandoned, young.folder):
        _make_older(folder)
    other = Scratch()
    assert sorted(temporary.iterdir()) == sorted([young.folder, other.folder])
    young.remove()
    other.remove()
    assert list(temporary.iterdir()) == []
