"""A self-check on a real machine, what it tells while it works, and the model that needs no model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from control_suites import new_place
from made_up import MODEL, plan_of

from farm import selfcheck
from farm.errors import RequestError
from farm.events import Event, Notice, ReplicaDone, RoundDone, RunBegan, Step
from farm.machine import describe_machine
from farm.records import Cohort, Workload
from farm.selfcheck import KNOWN, StageProgress
from farm.stopping import LEAST_ROUNDS
from tasks.control_model import LENGTH, write_control_model, write_control_texts
from tasks.inputs import build_inputs
from tasks.method import find_method
from tasks.models import resolve_model
from tasks.progress import SilentProgress

TRUE = {known.name: known.slowdown for known in KNOWN}


def test_the_control_model_is_a_model_with_inputs(tmp_path: Path) -> None:
    model = resolve_model(str(write_control_model(tmp_path / "model")), SilentProgress())
    texts = pd.read_csv(write_control_texts(tmp_path / "texts.csv"))["text"].tolist()
    (inputs,) = build_inputs(model, texts, length=LENGTH, batch_size=1, kind="full", count=1)
    assert inputs["attention_mask"].sum() == LENGTH


def test_on_a_gpu_the_same_ratios_are_of_work_that_keeps_it_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    suite = selfcheck.known_suite(tmp_path, "blocked", "cuda")
    assert suite.devices == ("cuda",)
    spun: list[int] = []
    monkeypatch.setattr(torch.cuda, "_sleep", spun.append)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    for entry in suite.methods:
        workload = Workload("cuda", 1, 1, LENGTH, entry.options)
        find_method(entry.method).load(MODEL, workload, tmp_path)({})
    assert [cycles / spun[0] for cycles in spun] == [1.0, 1.02, 1.05, 1.2]


def test_a_check_of_a_gpu_that_is_not_there_says_what_is_missing(tmp_path: Path) -> None:
    if describe_machine().gpus:
        pytest.skip("this machine has a GPU")
    with pytest.raises(RequestError, match="no node has a CUDA GPU"):
        selfcheck.check(device="cuda", keep=tmp_path / "results")


class Heard:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on(self, event: Event) -> None:
        self.events.append(event)


def progress() -> tuple[StageProgress, Heard, Cohort]:
    heard = Heard()
    return StageProgress(heard, "blocked order", selfcheck.AMOUNTS["quick"].interleaved), heard, plan_of().cohorts[0]


def test_progress_is_one_stage_over_all_replicas() -> None:
    told, heard, cohort = progress()
    told.on(RunBegan("r", False, 0, 5, (cohort,)))
    told.on(Step("load", 3, 5, "work+2 at length 8"))
    told.on(RoundDone(cohort, 0, 6, {}, None))
    told.on(ReplicaDone(cohort, 0, 5, 1, 5, ()))
    told.on(Step("load", 0, 5))
    assert heard.events == [
        Step("blocked order", 0.0, 5, "load"),
        Step("blocked order", 0.5, 5, "measuring"),
        Step("blocked order", 1.0, 5, "load"),
    ]


def test_warnings_pass_but_for_the_one_that_names_a_setting_of_runs() -> None:
    told, heard, _ = progress()
    told.on(Notice("another farm is measuring on here", "waiting until it is done"))
    told.on(Notice("the time budget ended before every replica was measured", "--set budget_s=SECONDS"))
    assert heard.events == [Notice("another farm is measuring on here", "waiting until it is done")]


SHORT = """
import dataclasses, json, sys
from farm.selfcheck import Amount, check
from farm.stopping import Effort
least = Effort(replicas=1, most_replicas=1, most_rounds=4, half_width=0.02, budget_s=1, turn_calls=5)
found = check(Amount(least, least), keep=sys.argv[1])
print(json.dumps(dataclasses.asdict(found) | {"honest": found.honest, "resolution": found.resolution}))
"""


@dataclass(frozen=True, slots=True)
class Short:
    """A real self-check of the least that can be measured: its judgement, its rows, and what it left behind."""

    check: dict[str, Any]
    rows: pd.DataFrame
    left: set[str]


@pytest.fixture(scope="module")
def short() -> Iterator[Short]:
    with new_place() as place:
        environment = {"PYTHONPATH": str(Path(selfcheck.__file__).parents[1])} | place.environment
        ran = subprocess.run(
            [sys.executable, "-c", SHORT, str(place.results)],
            check=False,
            cwd=place.root,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert ran.returncode == 0, ran.stderr
        left = {path.name for path in (place.root / "tmp").iterdir()}
        yield Short(json.loads(ran.stdout), pd.read_parquet(place.results / "measurements"), left)


@pytest.mark.timeout(400)
def test_a_real_check_finds_every_known_cell(short: Short) -> None:
    recoveries = short.check["recoveries"]
    assert [each["known"]["name"] for each in recoveries] == list(TRUE)
    assert all(each["low"] < each["found"] < each["high"] for each in recoveries)
    assert short.check["resolution"] > 0
    assert isinstance(short.check["honest"], bool)


def test_a_real_check_counts_its_rounds_and_replicas(short: Short) -> None:
    assert short.check["conditions"]["rounds"] >= LEAST_ROUNDS
    assert (short.check["replicas"], short.check["wanted"]) == (1, 1)


def test_a_real_check_compares_the_orders(short: Short) -> None:
    assert short.check["orders"]["interleaved_ratios"] == short.check["orders"]["blocked_ratios"] == len(KNOWN)


def test_a_real_check_leaves_nothing_but_what_was_asked_for(short: Short) -> None:
    assert short.left <= {"inference-farm.lock", "ray"}
    assert set(short.rows["suite"]) == {"selfcheck-interleaved", "selfcheck-blocked"}


def test_in_blocked_order_a_cell_has_the_same_place_in_every_round(short: Short) -> None:
    blocked = short.rows[short.rows["suite"] == "selfcheck-blocked"]
    places = [set(positions) for positions in blocked["round_position"]]
    assert sorted(min(each) for each in places) == list(range(5))
    assert all(len(each) == 1 for each in places)
    assert all(list(numbers[:1]) == [0] and len(set(numbers)) == LEAST_ROUNDS for numbers in blocked["round"])
