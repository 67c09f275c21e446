"""The benchmarks' own arithmetic, and that each script says how it is used. No timing is looked at."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import typer
import yaml

FOLDER = Path(__file__).parent / "benchmarks"

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Import a benchmark by its name, with its neighbours in reach as when it is run as a script."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.mark.parametrize(
    "script",
    [
        *("aa_spread", "peer", "harness_overhead", "query_scale", "report_scale", "scheduling_scale", "raylets"),
        *("chaos", "gpu_matrix"),
    ],
)
def test_a_script_says_how_it_is_used(script: str) -> None:
    ran = subprocess.run(
        [sys.executable, str(FOLDER / f"{script}.py"), "--help"],
        check=False,
        cwd=FOLDER.parents[1],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert f"usage: {script}.py [" in ran.stdout.replace("Usage", "usage")


def _repetition(aa_spread: ModuleType, **changes: Any) -> Any:
    values = {
        "started": "2026-01-01T12:00:00Z",
        "hardware_class": aa_spread.describe_machine().hardware_class,
        "length": 128,
        "calls": 80,
        "farm_speedup": 1.01,
        "farm_low": 0.99,
        "farm_high": 1.03,
        "farm_interval": "one-replica",
        "farm_wall_s": 35.5,
        "first_ms": 110.0,
        "second_ms": 100.0,
        "sequential_wall_s": 28.25,
    }
    return aa_spread.Repetition(**(values | changes))


def test_spread_is_measured_from_one_and_not_from_the_mean(load: Load) -> None:
    found = load("aa_spread").spread([1.1, 0.8, 1.1])
    assert found.mean == pytest.approx(1.0)
    assert found.deviation == pytest.approx(0.03**0.5)
    assert found.worst == pytest.approx(0.2)


def test_an_interval_that_only_touches_one_holds_it(load: Load) -> None:
    aa_spread = load("aa_spread")
    ends = [(0.9, 1.0), (1.0, 1.1), (0.9, 1.1), (1.001, 1.1), (0.9, 0.999)]
    repetitions = [_repetition(aa_spread, farm_low=low, farm_high=high) for low, high in ends]
    assert aa_spread.holding_one(repetitions) == 3


def test_repetitions_are_read_back_as_they_were_appended(load: Load, tmp_path: Path) -> None:
    aa_spread = load("aa_spread")
    written = [_repetition(aa_spread, first_ms=first) for first in (101.5, 99.25)]
    for repetition in written:
        aa_spread.append_repetition(tmp_path / "aa.csv", repetition)
    assert aa_spread.read_repetitions(tmp_path / "aa.csv") == written


def test_a_file_of_something_else_is_not_appended_to(load: Load, tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text("text,label\ngood,1\n")
    with pytest.raises(typer.BadParameter, match="not a file of repetitions"):
        load("aa_spread").read_repetitions(tmp_path / "reviews.csv")


@pytest.mark.parametrize("changes", [{"length": 64}, {"hardware_class": "another-machine"}])
def test_repetitions_of_another_question_are_not_added_to(load: Load, tmp_path: Path, changes: dict[str, Any]) -> None:
    aa_spread = load("aa_spread")
    done = [_repetition(aa_spread), _repetition(aa_spread, **changes)]
    with pytest.raises(typer.BadParameter, match="name another --output"):
        aa_spread.check_same_question(done, 128, tmp_path / "aa.csv")


def test_the_sequential_process_is_called_with_the_batches_that_were_saved(load: Load, tmp_path: Path) -> None:
    batches = [{name: np.full((1, 3), n + k) for k, name in enumerate(("input_ids", "mask"))} for n in (1, 5)]
    load("aa_spread").save_batches(tmp_path / "inputs.npz", batches)
    read = load("sequential").read_batches(tmp_path / "inputs.npz")
    assert [{name: array.tolist() for name, array in batch.items()} for batch in read] == [
        {"input_ids": [[1, 1, 1]], "mask": [[2, 2, 2]]},
        {"input_ids": [[5, 5, 5]], "mask": [[6, 6, 6]]},
    ]


def test_the_clock_of_a_batched_sample_is_shared_out_among_its_calls(load: Load) -> None:
    harness = load("harness_overhead")
    added = harness.added(harness.Cost(0.06, 0.08), harness.Cost(0.1, 0.2), batch=10)
    assert (added.sample_us, added.whole_us) == (pytest.approx(0.05), pytest.approx(0.06))


def test_the_farms_loop_is_timed_call_by_call_and_in_batches(load: Load) -> None:
    harness = load("harness_overhead")
    assert len(harness.compare(turns=2, samples=3, batch=1)) == 2
    assert len(harness.compare(turns=3, samples=3, batch=5)) == 3


def _row(role: str, length: int, samples: int, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"role": role, "length": length, "calls_per_sample": 1, "latency_ns": [2e9] * samples}
    return row | {"round_turn_ns": [10e9, 12e9]} | changes


def test_only_calls_of_methods_count_as_timed(load: Load) -> None:
    rows = [_row("baseline", 64, 10), _row("twin", 64, 10), _row("candidate", 64, 0), _row("sentinel", 64, 10)]
    assert load("peer").measured_rows(rows) == rows[:2]


def test_the_farms_time_is_divided_into_timed_calls_rewarm_and_the_rest(load: Load) -> None:
    rows = [_row("baseline", 64, 10, round_rewarm_ns=[1e9, 2e9]), _row("candidate", 64, 5, calls_per_sample=4)]
    side = load("peer").farm_side(rows, wall_s=100.0, prepare_s=100.0)
    assert side.calls == 10 + 20
    assert side.timed_share == pytest.approx(0.44)
    # Recorded: 3 s. Not recorded: a call of 2 s in each of two turns.
    assert side.turns_share == pytest.approx(0.44 + 0.03 + 0.04)
    assert side.everything_share == pytest.approx(0.22)
    assert side.wall_per_call_ms == pytest.approx(100e3 / 30)


def test_the_peer_gets_the_farms_number_of_calls_in_all_or_in_one_process(load: Load) -> None:
    peer = load("peer")
    rows = [_row("baseline", 64, 10), _row("baseline", 64, 12), _row("candidate", 64, 40), _row("baseline", 128, 6)]
    assert peer.calls_by_length(rows, peer.CallsAs.length) == {64: 62, 128: 6}
    assert peer.calls_by_length(rows, peer.CallsAs.process) == {64: 11, 128: 6}


def test_the_peers_number_of_calls_is_decided_by_iterations_alone(load: Load, tmp_path: Path) -> None:
    load("peer_tool").write_configuration(tmp_path, tmp_path / "model", {64: 62, 512: 6})
    scenario = yaml.safe_load((tmp_path / "scenario" / "length512.yaml").read_text())
    assert (scenario["iterations"], scenario["duration"]) == (6, 0)
    assert scenario["input_shapes"] == {"batch_size": 1, "sequence_length": 512}


def test_lengths_that_are_no_numbers_are_refused(load: Load) -> None:
    assert load("peer").parse_lengths("128,64") == [64, 128]
    with pytest.raises(typer.BadParameter, match="whole numbers"):
        load("peer").parse_lengths("64,long")


def test_the_peers_model_spells_any_english_text(load: Load) -> None:
    encoding = load("peer_model").spelling_tokenizer().encode("Great camera, isn't it? 10/10!")
    assert encoding.tokens[:3] == ["[CLS]", "g", "##r"]
    assert encoding.tokens[-1] == "[SEP]"
    assert "[UNK]" not in encoding.tokens


def test_a_simulated_run_with_failures_publishes_every_planned_cell(load: Load) -> None:
    cost = load("scheduling_scale").measure(cells=400, nodes=8)
    assert cost.cells == 400
    assert cost.nodes > 0
    assert cost.attempts >= 40


def test_a_simulated_schedule_is_never_shorter_than_its_lower_bound(load: Load) -> None:
    scale = load("scheduling_scale")
    assert all(scale.measure(400, nodes, failures=False).above_bound >= -1e-9 for nodes in (4, 8, 24))
