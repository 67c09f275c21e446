"""What a job takes along, and how its results come home, without a cluster."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from measured import RUN, run_record, simulated_cohort
from ray.job_submission import JobDetails, JobStatus

from farm import delivery, speedups, staging
from farm.delivery import at_home, lines_of, unpack
from farm.errors import FarmError, RequestError, ResultsError
from farm.staging import SUITE_FILE, staged
from farm.store import Store
from farm.submit import Jobs, _Lines
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


def test_all_files_of_the_code_travel() -> None:
    here = Path(__file__).parents[1]
    packages = [path for name in ("farm", "tasks") for path in (here / name).rglob("*")]
    kept = {str(path.relative_to(here)) for path in packages if path.is_file() and "__pycache__" not in path.parts}
    with staged(suite_with()) as folder:
        sent = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert kept - sent <= {"tasks/native/.clang-format"}


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


def test_more_than_ray_takes_is_refused_before_anything_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, texts = tmp_path / "my-model", tmp_path / "texts.csv"
    model.mkdir()
    with (model / "model.safetensors").open("wb") as file:
        file.truncate(staging.MOST_BYTES)
    texts.write_text("text,label\n")
    monkeypatch.setattr("shutil.copyfile", lambda *_: pytest.fail("was copied"))
    monkeypatch.setattr("shutil.copytree", lambda *_, **__: pytest.fail("was copied"))
    monkeypatch.setattr(staging, "stage_code", lambda _: None)
    (model / "config.json").write_text("{}")
    suite = suite_with(model=str(model), accuracy={"dataset": str(texts)})
    with pytest.raises(RequestError, match="96 MiB are too much to send along"), staged(suite):
        pass


class FlakyClient:
    """A job server that loses every second connection."""

    def __init__(self) -> None:
        self.asked = 0
        self.sent: list[str] = []

    def _answer(self) -> None:
        self.asked += 1
        if self.asked % 2:
            raise ConnectionError("Failed to connect to Ray\nat all")

    async def tail_job_logs(self, _: str) -> AsyncIterator[str]:
        yield "one\n"

    def list_jobs(self) -> list[object]:
        self._answer()
        return [JobDetails(type="SUBMISSION", submission_id="job-1", status="SUCCEEDED", entrypoint="")]

    def get_job_logs(self, _: str) -> str:
        return "one\ntwo\n"

    def submit_job(self, **about: object) -> None:
        self.sent.append(str(about["submission_id"]))

    def get_job_status(self, _: str) -> JobStatus:
        self._answer()
        return JobStatus.SUCCEEDED

    def delete_job(self, _: str) -> None:
        raise RuntimeError("busy")


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> tuple[Jobs, FlakyClient]:
    client = FlakyClient()
    monkeypatch.setattr("farm.submit.connect", lambda _: client)
    monkeypatch.setattr("farm.submit.POLL_S", 0.0)
    return Jobs("http://head:8265"), client


def test_a_line_that_is_bad_for_a_moment_does_not_end_following(flaky: tuple[Jobs, FlakyClient]) -> None:
    lines: list[str] = []
    silences: list[str] = []
    assert flaky[0].follow("job-1", lines.append, silences.append).status == "SUCCEEDED"
    assert lines == ["one", "two"]
    (silence,) = silences
    assert "Failed to connect to Ray" in silence


class HalfOpenClient:
    """A job server whose first connection for a log falls silent; the job ends meanwhile."""

    def __init__(self) -> None:
        self.tails = 0

    async def tail_job_logs(self, _: str) -> AsyncIterator[str]:
        self.tails += 1
        yield "one\n"
        if self.tails == 1:
            await asyncio.Event().wait()
        yield "two\n"

    def list_jobs(self) -> list[object]:
        status = "RUNNING" if self.tails < 2 else "SUCCEEDED"
        return [JobDetails(type="SUBMISSION", submission_id="job-1", status=status, entrypoint="")]

    def get_job_logs(self, _: str) -> str:
        return "one\ntwo\nthree\n"


def test_a_connection_that_falls_silent_is_made_anew_and_no_line_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    client = HalfOpenClient()
    monkeypatch.setattr("farm.submit.connect", lambda _: client)
    monkeypatch.setattr("farm.submit.POLL_S", 0.0)
    monkeypatch.setattr("farm.submit.SILENCE_S", 0.05)
    lines: list[str] = []
    followed = Jobs("http://head:8265").follow("job-1", lines.append, pytest.fail)
    assert followed.status == "SUCCEEDED"
    assert client.tails == 2
    assert lines == ["one", "two", "three"]


def test_stopping_a_job_that_has_ended_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    client = HalfOpenClient()
    client.tails = 2
    monkeypatch.setattr("farm.submit.connect", lambda _: client)
    with pytest.raises(RequestError, match=r"has ended already \(SUCCEEDED\)"):
        Jobs("http://head:8265").stop("job-1")


def test_a_job_that_is_not_there_is_refused_at_once(flaky: tuple[Jobs, FlakyClient]) -> None:
    with pytest.raises(RequestError, match="no job job-2"):
        flaky[0].follow("job-2", lambda _: None, lambda _: None)


def test_a_line_that_is_bad_for_a_moment_does_not_keep_results_away(
    flaky: tuple[Jobs, FlakyClient], tmp_path: Path
) -> None:
    flaky[0].bring_home(RUN, str(tmp_path))
    assert len(flaky[1].sent) == 1


def test_a_cluster_that_is_gone_when_results_are_to_come_home_is_one_line(
    flaky: tuple[Jobs, FlakyClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(**_: object) -> None:
        raise ConnectionError("Failed to connect to Ray")

    monkeypatch.setattr(flaky[1], "submit_job", gone)
    with pytest.raises(FarmError, match="Failed to connect") as told:
        flaky[0].bring_home(RUN, str(tmp_path))
    assert not isinstance(told.value, RequestError)


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
