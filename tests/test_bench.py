"""What methods are judged on: labels that fit the model, and no text that a method was calibrated with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from control_suites import Place, new_place
from made_up import MACHINE

from farm.bench import check_calibration, inputs_sha256, lay_out
from farm.cli.commands import run_app
from farm.errors import RequestError
from farm.events import Silent
from farm.judging import Evaluation
from farm.records import Machine
from farm.suite import parse_suite
from tasks import method as registry
from tasks.calibration import CalibrationOptions, check_disjoint
from tasks.control_model import write_control_model
from tasks.controls import Null
from tasks.models import resolve_model
from tasks.progress import SilentProgress


def test_the_hash_of_inputs_is_of_names_shapes_and_bytes_in_order() -> None:
    tokens = np.arange(6).reshape(1, 6)
    mask = np.ones_like(tokens)
    one = [{"input_ids": tokens, "attention_mask": mask}]
    assert inputs_sha256(one) == inputs_sha256([{"attention_mask": mask.copy(), "input_ids": tokens.copy()}])
    others = [
        [{"input_ids": tokens, "mask": mask}],
        [{"input_ids": mask, "attention_mask": tokens}],
        [{"input_ids": tokens.reshape(2, 3), "attention_mask": mask}],
        [{"input_ids": tokens.astype(np.int32), "attention_mask": mask}],
        one * 2,
        [],
    ]
    assert len({inputs_sha256(each) for each in [one, *others]}) == 1 + len(others)


class Calibrated(Null):
    """A control with the option of a method that calibrates."""

    id: ClassVar[str] = "control-calibrated"
    Options: ClassVar[type] = CalibrationOptions


@dataclass(frozen=True)
class DefaultOptions:
    """Calibrates with the texts beside the suite unless told otherwise."""

    calibration: str = "seen.csv"


class CalibratedByDefault(Null):
    """The same, where the option is left at its default."""

    id: ClassVar[str] = "control-calibrated-default"
    Options: ClassVar[type] = DefaultOptions


@pytest.fixture(autouse=True)
def calibrating_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two methods that calibrate, known for as long as a test runs."""
    for each in (Calibrated, CalibratedByDefault):
        monkeypatch.setitem(registry.BUILT_IN, each.id, f"{__name__}:{each.__name__}")  # type: ignore[arg-type]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A place to run commands in, with texts to calibrate with: `seen.csv` shares some with those judged on."""
    with new_place() as made:
        monkeypatch.chdir(made.root)
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        Path("seen.csv").write_text("text\ngood camera number 0\nbad camera number 1\nnot judged on\n")
        Path("unseen.csv").write_text("text\nnot judged on\n")
        yield made


def texts(folder: Path, *labels: object, columns: str = "text,label") -> Path:
    """A data set of one text for each label."""
    path = folder / "texts.csv"
    path.write_text(f"{columns}\n" + "".join(f"good camera {at},{label}\n" for at, label in enumerate(labels)))
    return path


def evaluated(folder: Path, dataset: Path, label_names: tuple[str, ...], **keys: Any) -> Evaluation:
    """What a suite on that data set judges a model with these labels on."""
    model = write_control_model(folder / "model")
    config = json.loads((model / "config.json").read_text()) | {"id2label": dict(enumerate(label_names))}
    (model / "config.json").write_text(json.dumps(config))
    accuracy = {"dataset": str(dataset), **keys}
    suite = parse_suite({"methods": ["control-null"], "lengths": [8], "accuracy": accuracy})
    evaluation = lay_out(suite, resolve_model(str(model), SilentProgress()), Silent()).evaluation
    assert evaluation is not None
    return evaluation


def labels_of(evaluation: Evaluation) -> list[int]:
    assert evaluation.labels is not None
    return [int(label) for label in evaluation.labels]


def test_a_model_with_one_logit_is_judged_on_noes_and_yeses(tmp_path: Path) -> None:
    found = evaluated(tmp_path, texts(tmp_path, 1, 0, 1), ("LABEL_0",))
    assert labels_of(found) == [1, 0, 1]


@pytest.mark.parametrize("label", ["2", "0.5", "LABEL_0", "-1"])
def test_one_logit_knows_no_other_labels(tmp_path: Path, label: str) -> None:
    with pytest.raises(RequestError, match=f"unknown label '{label}'; the model's labels are 0, 1$"):
        evaluated(tmp_path, texts(tmp_path, label, 0), ("LABEL_0",))


def test_texts_need_not_show_every_label_of_a_model_with_many(tmp_path: Path) -> None:
    found = evaluated(tmp_path, texts(tmp_path, "four", "zero"), ("zero", "one", "two", "three", "four"))
    assert labels_of(found) == [4, 0]


def test_columns_go_by_the_names_the_suite_gives(tmp_path: Path) -> None:
    path = texts(tmp_path, 1, 0, columns="review,stars")
    found = evaluated(tmp_path, path, ("no", "yes"), text_column="review", label_column="stars")
    assert labels_of(found) == [1, 0]


def test_a_fixed_sample_is_judged_where_the_suite_asks_for_fewer_texts(tmp_path: Path) -> None:
    path = texts(tmp_path, *[at % 2 for at in range(100)])
    first, again = (evaluated(tmp_path / place, path, ("no", "yes"), max_texts=10) for place in ("a", "b"))
    assert len(labels_of(first)) == len(first.encoded["input_ids"]) == 10
    assert first.sha256 == again.sha256
    assert set(labels_of(first)) == {0, 1}


def test_calibrating_with_texts_that_are_judged_on_is_refused(place: Place) -> None:
    with pytest.raises(RequestError, match=r"calibration: 2 texts of '.*seen.csv' are in the accuracy data set too"):
        check_disjoint(str(place.root / "seen.csv"), ["good camera number 0", "bad camera number 1", "another"])
    check_disjoint(str(place.root / "unseen.csv"), ["good camera number 0"])


@pytest.mark.parametrize(
    "chosen",
    [
        {"method": "control-calibrated", "options": {"calibration": "seen.csv"}},
        "control-calibrated-default",
    ],
)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_suite_that_calibrates_with_what_it_judges_on_is_one_line_and_exit_code_2(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, chosen: Any, command: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("ray.init", refuse)
    assert run_app([command, str(place.suite(methods=["control-null", chosen]))]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("farm: calibration: 2 texts of 'seen.csv' are in the accuracy data set too")
    assert "\n" not in said
    assert not place.results.exists() or not list(place.results.rglob("*.parquet"))


def checked(method: Any, dataset: str = "texts.csv", machine: Machine = MACHINE) -> None:
    suite = {"methods": ["control-null", method], "lengths": [8], "accuracy": {"dataset": dataset}}
    check_calibration(parse_suite(suite), resolve_model("model", SilentProgress()), [machine], Silent())


def test_a_suite_that_calibrates_with_other_texts_is_accepted(place: Place) -> None:
    unseen = str(place.root / "unseen.csv")
    checked({"method": "control-calibrated", "options": {"calibration": unseen}})
    with pytest.raises(RequestError, match=r"2 texts of 'seen\.csv'"):
        checked("control-calibrated-default")


@pytest.mark.usefixtures("place")
def test_texts_are_not_read_for_a_method_that_cannot_run_nor_for_the_demos_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("texts were read")

    monkeypatch.setattr("farm.bench.check_disjoint", refuse)
    checked("control-calibrated", dataset="demo")
    monkeypatch.setattr(CalibratedByDefault, "devices", ("cuda",))
    checked("control-calibrated-default")


@pytest.mark.usefixtures("place")
def test_texts_are_padded_further_for_artifacts_of_longer_lengths() -> None:
    suite = {"methods": ["control-null"], "lengths": [8, 16, 24], "accuracy": {"dataset": "texts.csv"}}
    evaluation = lay_out(parse_suite(suite), resolve_model("model", SilentProgress()), Silent()).evaluation
    assert evaluation is not None
    padded = evaluation.padded(evaluation.sample, 24)
    for name, fill in (("input_ids", 0), ("attention_mask", 0)):
        judged, longer = evaluation.encoded[name][evaluation.sample], padded[name]
        assert longer.shape == (len(evaluation.sample), 24)
        assert (longer[:, :8] == judged).all()
        assert (longer[:, 8:] == fill).all()
