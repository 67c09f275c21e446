"""A data set on the hub is read from the files it converts, and every refusal is one line that says what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import fake_hub, parquet

from farm.errors import RequestError
from tasks.hub_datasets import HubName, choose, parse_hub_name

PROGRAM = """
import json, sys
from farm.errors import RequestError
from tasks.accuracy import load_dataset
answers = {}
for name in sys.argv[1:]:
    try:
        loaded = load_dataset(name, ("negative", "positive"))
        answers[name] = [list(loaded.texts), list(loaded.labels)]
    except RequestError as error:
        answers[name] = str(error)
print(json.dumps(answers))
"""

REVIEWS = {
    "default/train/0000.parquet": parquet(["learned"], [1]),
    "default/test/0000.parquet": parquet(["fine", "awful"], [1, 0]),
    "default/test/0001.parquet": parquet(["good"], [1]),
}
DATASETS = {
    "some/reviews": REVIEWS,
    "some/tasks": {f"{config}/validation/0000.parquet": parquet([config], [0]) for config in ("sst", "mnli")},
    "some/turned": {"default/test/0000.parquet": parquet(["fine", "awful"], [0, 1], names=["Positive", "Negative"])},
    "some/hidden": {"default/test/0000.parquet": parquet(["fine"], [-1])},
    "some/other": {"default/test/0000.parquet": parquet(["fine"], [1], text="review")},
}
REFUSALS = {"some/gated": "GatedRepo", "some/images": "RevisionNotFound"}


def ask(home: Path, endpoint: str, *names: str, **environment: str) -> dict[str, Any]:
    """What loading each data set gives, or how it is refused, in a process that knows only this hub."""
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names],
        env=os.environ | own | environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=200,
    )
    answers: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return answers


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def answers(home: Path) -> Iterator[dict[str, Any]]:
    names = ["hub:some/reviews", "hub:some/reviews@train", "hub:some/reviews@dev", "hub:some/reviews/default@dev"]
    names += ["hub:some/tasks", "hub:some/tasks/mnli", "hub:some/turned", "hub:some/hidden", "hub:some/other"]
    names += ["hub:some/gated", "hub:some/images", "hub:some/where", "hub:reviews"]
    with fake_hub(DATASETS, REFUSALS) as endpoint:
        yield ask(home, endpoint, *names)


def test_a_split_is_read_from_all_of_its_files(answers: dict[str, Any]) -> None:
    assert answers["hub:some/reviews"] == [["fine", "awful", "good"], [1, 0, 1]]


def test_a_split_can_be_named(answers: dict[str, Any]) -> None:
    assert answers["hub:some/reviews@train"] == [["learned"], [1]]


def test_a_configuration_can_be_named_and_its_validation_split_stands_in_for_a_test_split(
    answers: dict[str, Any],
) -> None:
    assert answers["hub:some/tasks/mnli"] == [["mnli"], [0]]


def test_labels_follow_their_names_where_data_and_model_count_them_differently(answers: dict[str, Any]) -> None:
    assert answers["hub:some/turned"] == [["fine", "awful"], [1, 0]]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hub:some/tasks", "has more than one configuration; name one of mnli, sst, as in hub:some/tasks/mnli"),
        ("hub:some/reviews@dev", "has no split 'dev'; name one of test, train, as in hub:some/reviews@test"),
        ("hub:some/reviews/default@dev", "as in hub:some/reviews/default@test"),
        ("hub:some/hidden", "unknown label '-1'; the model's labels are negative, positive"),
        ("hub:some/other", "has no column text, but review, label; name them with accuracy.text_column"),
        ("hub:some/gated", "is gated; accept its terms"),
        ("hub:some/images", "has made no Parquet files of it"),
        ("hub:some/where", "has no such data set"),
        ("hub:reviews", "write hub:OWNER/NAME"),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_line(answers: dict[str, Any], name: str, words: str) -> None:
    said = answers[name]
    assert isinstance(said, str)
    assert name in said
    assert words in said
    assert "\n" not in said


def test_without_a_network_what_was_fetched_is_found_by_its_full_name(answers: dict[str, Any], home: Path) -> None:
    names = ["hub:some/reviews/default@test", "hub:some/reviews/default@train", "hub:some/tasks/sst@validation"]
    offline = ask(home, "http://127.0.0.1:9", *names, "hub:some/reviews", HF_HUB_OFFLINE="1")
    assert offline[names[0]] == answers["hub:some/reviews"]
    assert offline[names[1]] == answers["hub:some/reviews@train"]
    for name in (names[2], "hub:some/reviews"):
        assert "the Hugging Face hub did not give it" in offline[name]
        assert "check the network" in offline[name]
        assert "\n" not in offline[name]


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("hub:o/n", HubName("o/n")),
        ("hub:o/n@test", HubName("o/n", split="test")),
        ("hub:o-1/n.2/conf ig", HubName("o-1/n.2", "conf ig")),
        ("hub:o/n/20220301.en@partial-train", HubName("o/n", "20220301.en", "partial-train")),
    ],
)
def test_a_name_is_taken_apart_and_written_back(name: str, parsed: HubName) -> None:
    assert parse_hub_name(name) == parsed
    assert str(parsed) == name


@pytest.mark.parametrize("name", ["hub:", "hub:n", "hub:o/", "hub:o/n/", "hub:o/n@", "hub:o/n/c/d", "hub:o/n@a@b"])
def test_a_malformed_name_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="write hub:OWNER/NAME"):
        parse_hub_name(name)


def test_the_usual_configuration_and_the_test_split_are_taken_where_several_are_there() -> None:
    files = ["a/test/0000.parquet", "default/validation/0000.parquet", "default/test/0000.parquet", "README.md"]
    assert choose(HubName("o/n"), files) == HubName("o/n", "default", "test")
    assert choose(HubName("o/n", "a"), files) == HubName("o/n", "a", "test")


def test_a_split_that_a_model_may_have_learned_is_taken_only_where_it_is_the_only_one() -> None:
    assert choose(HubName("o/n"), ["default/train/0000.parquet"]).split == "train"
    with pytest.raises(RequestError, match="more than one split; name one of extra, train, as in hub:o/n@extra"):
        choose(HubName("o/n"), ["default/train/0000.parquet", "default/extra/0000.parquet"])


def test_of_hundreds_of_configurations_a_dozen_are_named() -> None:
    with pytest.raises(RequestError, match=r"c011, \.\.\., as in hub:o/n/c000"):
        choose(HubName("o/n"), [f"c{number:03}/test/0000.parquet" for number in range(300)])
