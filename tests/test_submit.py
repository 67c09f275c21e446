"""A suite submitted to a real cluster: its job outlives whoever follows it, and its results come home."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from buckets import BUCKET, SECRET, outside, served
from control_suites import Place, new_place
from ray_clusters import TOKEN, RayCluster, head_node

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(600)]

LENGTHS = [8, 12]
BUCKET_RESULTS = f"s3://{BUCKET}/results"
METHODS = ["control-null", "control-work"]


@dataclass(frozen=True, slots=True)
class Story:
    """A job whose first follower is killed and whose second sees it through; one that is stopped; a run in a bucket."""

    place: Place
    without_token: tuple[int, str]
    with_wrong_token: tuple[int, str]
    job: str
    listed_after_kill: str
    standing: str
    attached: tuple[int, str]
    stopped: tuple[int, str]
    follower_of_stopped: tuple[int, str]
    in_bucket: tuple[int, str]
    table_of_bucket: tuple[int, str]
    objects: dict[str, bytes]


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with served() as bucket, pytest.MonkeyPatch.context() as patch, new_place() as place:
        for name, value in bucket.items():
            patch.setenv(name, value)
        with head_node(place) as cluster:
            yield _tell(place, cluster, bucket, patch)


def _tell(place: Place, cluster: RayCluster, bucket: dict[str, str], patch: pytest.MonkeyPatch) -> Story:
    at = ("--address", cluster.dashboard)
    patch.setenv("HOME", str(place.root / "nobody"))
    suite = str(place.suite(methods=METHODS, lengths=LENGTHS, budget_s=3))
    without_token = place.farm("submit", suite, *at)
    patch.setenv("RAY_AUTH_TOKEN", "another")
    with_wrong_token = place.farm("submit", suite, *at)
    patch.setenv("RAY_AUTH_TOKEN", TOKEN)

    following, job = _submitted(place, suite, *at)
    following.kill()
    following.wait(60)
    standing = place.farm("status", *at)[1]
    listed_after_kill = place.farm("submit", "--list", *at)[1]
    attached = place.farm("submit", "--attach", job, *at)

    slow = str(place.suite("slow.yaml", methods=METHODS, lengths=LENGTHS, budget_s=30))
    following, stopping = _submitted(place, slow, *at)
    stopped = place.farm("submit", "--stop", stopping, *at)
    said = following.communicate(timeout=120)[0]

    patch.setenv("RAY_AUTH_MODE", "token")
    short = str(place.suite("short.yaml", methods=METHODS))
    in_bucket = place.farm("submit", short, *at, "--results", BUCKET_RESULTS)
    return Story(
        place=place,
        without_token=without_token,
        with_wrong_token=with_wrong_token,
        job=job,
        listed_after_kill=listed_after_kill,
        standing=standing,
        attached=attached,
        stopped=stopped,
        follower_of_stopped=(following.returncode, said),
        in_bucket=in_bucket,
        table_of_bucket=place.farm("table", BUCKET_RESULTS),
        objects=_objects(bucket),
    )


def _objects(bucket: dict[str, str]) -> dict[str, bytes]:
    files = outside(bucket)
    return {name: files.cat_file(name) for name in files.find(BUCKET)}


def _submitted(place: Place, *arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A `farm submit` that follows its job, by now at the first length; the job's id."""
    following = place.start("submit", *arguments)
    assert following.stdout is not None
    job, said = "", []
    for line in following.stdout:
        said.append(line)
        job = job or (line.split()[1].rstrip(";") if line.startswith("job farm-") else "")
        if f"measuring length {LENGTHS[0]}" in line:
            return following, job
    raise AssertionError(f"the job ended before it measured: {said}")


def _finished(results: Path) -> str:
    """The run of which every replica was measured: the oldest."""
    return min(path.stem for path in (results / "runs").glob("*.json"))


def _frame(results: Path) -> pd.DataFrame:
    return pd.read_parquet(results / "measurements")


def test_a_missing_or_wrong_token_is_one_line_that_says_what_to_do(story: Story) -> None:
    for (code, said), words in (
        (story.without_token, "asks for a token"),
        (story.with_wrong_token, "not this cluster"),
    ):
        assert code == 2
        (line,) = said.strip().splitlines()
        assert words in line and "RAY_AUTH_TOKEN" in line


def test_a_job_goes_on_when_its_follower_is_killed(story: Story) -> None:
    (line,) = [line for line in story.listed_after_kill.splitlines() if story.job in line]
    assert "RUNNING" in line


def test_the_status_of_a_job_tells_what_is_done(story: Story) -> None:
    assert story.job in story.standing
    assert f"of {len(LENGTHS)} cohort replicas" in story.standing


def test_who_attaches_sees_the_whole_run_and_gets_its_results(story: Story) -> None:
    code, said = story.attached
    assert code == 0, said
    for words in ("new run ", *(f"measuring length {length}" for length in LENGTHS), "control-work", "A/A twin"):
        assert words in said
    frame = _frame(story.place.results)
    # The stopped job's results came home, too.
    assert sorted(frame[frame["run"] == _finished(story.place.results)]["length"].unique()) == LENGTHS
    assert not frame.duplicated(["run", "cell", "replica"]).any()


def test_what_is_brought_home_is_what_was_measured(story: Story) -> None:
    home, on_the_head = story.place.results, story.place.root / "home" / "farm-results"
    run = _finished(home)
    for kind in (f"measurements/{run}/*.parquet", f"runs/{run}.json", f"speedups/{run}.parquet"):
        original = {path.name: path.read_bytes() for path in on_the_head.glob(kind)}
        assert original
        assert {path.name: path.read_bytes() for path in home.glob(kind)} == original


def test_a_stopped_job_says_so_and_keeps_what_it_has(story: Story) -> None:
    assert story.stopped[0] == 0
    code, said = story.follower_of_stopped
    assert code == 130, said
    assert "the job was stopped; everything published is kept" in said


def test_a_run_on_a_node_of_the_cluster_puts_its_results_into_a_bucket(story: Story) -> None:
    assert story.in_bucket[0] == 0, story.in_bucket[1]
    assert story.table_of_bucket[0] == 0
    assert "control-work" in story.table_of_bucket[1]
    assert {"measurements", "runs", "speedups"} <= {name.split("/")[2] for name in story.objects}


def test_credentials_are_neither_stored_nor_logged(story: Story) -> None:
    logs = [path.read_bytes() for path in (story.place.root / "ray").rglob("job-driver-*.log")]
    assert logs
    for secret in (SECRET, TOKEN):
        for content in (
            *story.objects.values(),
            *logs,
            *(path.read_bytes() for path in story.place.results.rglob("*.json")),
        ):
            assert secret.encode() not in content
