"""What a job takes along, and how its results come home, without a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from measured import RUN, run_record, simulated_cohort

from farm import delivery, speedups
from farm.delivery import at_home, lines_of, unpack
from farm.errors import RequestError, ResultsError
from farm.staging import SUITE_FILE, staged
from farm.store import Store
from farm.submit import _Lines
from farm.suite import Suite, load_suite, parse_suite


def suite_with(**keys: object) -> Suite:
    return parse_suite({"name": "shipped", "methods": ["control-null"], "accuracy": None, **keys})


def test_the_code_that_runs_there_is_the_code_that_runs_here() -> None:
    program = "import farm, tasks; print(farm.__file__); print(tasks.__file__); print(farm.__version__)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with staged(suite_with()) as folder:
        command = [sys.executable, "-c", program]
        ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        farm_file, tasks_file, version = ran.stdout.split()
        assert Path(farm_file).is_relative_to(folder) and Path(tasks_file).is_relative_to(folder)
        assert version == __import__("farm").__version__
    assert not folder.exists()


def test_files_that_the_suite_names_travel_and_are_found_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my-model").mkdir()
    (tmp_path / "my-model" / "config.json").write_text("{}")
    (tmp_path / "texts.csv").write_text("text,label\n")
    monkeypatch.chdir(tmp_path)
    with staged(suite_with(model="./my-model", accuracy={"dataset": "texts.csv"})) as folder:
        monkeypatch.chdir(folder)
        there = load_suite(SUITE_FILE)
        assert (Path(there.model) / "config.json").read_text() == "{}"
        assert there.accuracy is not None and Path(there.accuracy.dataset).is_file()
        assert not Path(there.model).is_absolute()


def test_what_is_no_local_file_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("demo", "somebody/some-model"):
        with staged(suite_with(model=name)) as folder:
            assert load_suite(str(folder / SUITE_FILE)).model == name


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for inner in ("one", "two"):
        (tmp_path / inner / "same").mkdir(parents=True)
    (tmp_path / "two" / "same").rmdir()
    (tmp_path / "two" / "same").write_text("text,label\n")
    suite = suite_with(model=str(tmp_path / "one" / "same"), accuracy={"dataset": str(tmp_path / "two" / "same")})
    with pytest.raises(RequestError, match="same name"), staged(suite):
        pass


def test_every_line_of_a_log_is_passed_on_once_however_it_is_read() -> None:
    seen: list[str] = []
    lines = _Lines(seen.append)
    lines.feed("one\ntw")
    lines.feed("o\nthr")
    assert seen == ["one", "two"]
    lines.restart()  # the connection was lost in the middle of a line
    lines.feed("one\ntwo\nthree\n")
    lines.restart()
    lines.feed("one\ntwo\nthree\nfour\n")
    assert seen == ["one", "two", "three", "four"]


@pytest.fixture
def source(tmp_path: Path) -> Store:
    store = Store(tmp_path / "there")
    store.write_run(run_record())
    for replica in range(3):
        store.publish_replica(RUN, "cpu-b1-l64", replica, simulated_cohort(64, replica, rounds=4))
    return store


def test_a_run_comes_home_byte_for_byte(source: Store, tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    assert not unpack(lines_of(str(source.root), RUN, ()), home, RUN).more
    assert Store(home).read_measurements().equals(source.read_measurements())
    assert Store(home).runs() == source.runs()
    part = source.part_path(RUN, "cpu-b1-l64", 0)
    assert Store(home).part_path(RUN, "cpu-b1-l64", 0).read_bytes() == part.read_bytes()  # type: ignore[union-attr]


def test_the_logs_of_a_run_come_home_and_grow_there(source: Store, tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    for content in (b"one\n", b"one\ntwo\n"):
        source.write_log(RUN, "start-head-1.jsonl", content)
        source.write_log("another-run", "start-head-1.jsonl", b"")
        unpack(lines_of(str(source.root), RUN, at_home(home, RUN)), home, RUN)
        (log,) = (tmp_path / "home" / "logs").rglob("*.jsonl")
        assert (log.parent.name, log.read_bytes()) == (RUN, content)


def test_much_comes_home_in_several_deliveries_and_nothing_twice(
    source: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "MOST_BYTES", 1)
    speedups.rebuild(source, RUN)
    home, names = str(tmp_path / "home"), at_home(str(tmp_path / "home"), RUN)
    for _ in range(5):  # three parts, the speedups, the run's record
        log = list(lines_of(str(source.root), RUN, names))
        brought = unpack(log, home, RUN)
        assert len(brought.names) == 1
        assert not set(brought.names) & set(names)
        names += brought.names
    assert not brought.more
    assert len(Store(home).published(RUN)) == 3
    assert Store(home).runs() == source.runs()


def test_a_line_that_was_cut_or_changed_is_refused(source: Store, tmp_path: Path) -> None:
    line = next(lines_of(str(source.root), RUN, ()))
    mark, name, sha256, data = line.split()
    wrongs = [f"{mark} {name} {sha256} {data[:-8]}", f"{mark} {name} {'0' * 64} {data}"]
    wrongs += [line[:length] for length in (len(mark) + 1, len(mark) + len(name) + 1, line.index(data) - 9, -1, -2, -3)]
    for wrong in wrongs:
        with pytest.raises(ResultsError, match="did not arrive"):
            unpack([wrong], str(tmp_path / "home"), RUN)
    assert Store(tmp_path / "home").measured_runs() == []


@pytest.mark.parametrize(
    "name", ["../escaped.parquet", "/etc/escaped.json", f"measurements/{RUN}/../../x.parquet", "runs/.hidden.json"]
)
def test_a_log_cannot_write_anything_but_results_of_its_run(source: Store, tmp_path: Path, name: str) -> None:
    mark, _, sha256, data = next(lines_of(str(source.root), RUN, ())).split()
    with pytest.raises(ResultsError, match="did not arrive"):
        unpack([f"{mark} {name} {sha256} {data}"], str(tmp_path / "home"), RUN)
    assert not list(tmp_path.rglob("*escaped*"))
