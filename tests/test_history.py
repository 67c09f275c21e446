"""Claims about one cell over many runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from measured import RUN, SPEEDUPS, measured_row
from several_runs import run_name, store_of

from farm.cli.commands import run_app
from farm.cli.history_text import lines
from farm.errors import RequestError
from farm.history import Selection, history_of
from farm.store import Store

RUNS = 12
CHANGED = 7


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A dozen runs; from the eighth on another library, and quantization gains less."""
    old = {"lengths": (64,), "replicas": 1, "record": {"environment": {"libraries": {"torch": "2.12"}}}}
    new = {
        "lengths": (64,),
        "replicas": 1,
        "speedups": {**SPEEDUPS, "quantized": 1.6},
        "record": {"environment": {"libraries": {"torch": "2.13"}}},
    }
    return store_of(tmp_path_factory.mktemp("results"), *[old] * CHANGED, *[new] * (RUNS - CHANGED))


def test_a_step_is_marked_where_it_began_with_what_changed_there(store: Store) -> None:
    found = history_of(store, Selection("quantized", 64), "speedup")
    assert [entry.run for entry in found.entries] == [run_name(number) for number in range(RUNS)]
    (step,) = found.steps
    assert step.run == run_name(CHANGED)
    assert step.ratio == pytest.approx(1.6 / 1.9, rel=0.03)
    assert step.differences == ("Libraries: torch 2.12 -> 2.13.",)
    assert any("slower, 0.8" in line for line in lines(found))


def test_a_cell_that_stayed_shows_no_step(store: Store) -> None:
    assert history_of(store, Selection("onnxruntime", 64), "speedup").steps == ()


def test_a_latency_that_grew_is_slower(store: Store) -> None:
    (step,) = history_of(store, Selection("quantized", 64), "latency").steps
    assert step.ratio < 1


def test_a_run_without_a_result_keeps_its_line(tmp_path: Path) -> None:
    broken = {"lengths": (64,), "replicas": 1, "status": "failed", "reasons": ["crashed"]}
    store = store_of(tmp_path, {"lengths": (64,), "replicas": 1}, broken)
    found = history_of(store, Selection("quantized"), "speedup")
    assert [entry.why for entry in found.entries] == [None, "failed: crashed"]
    assert any("Too few runs" in line for line in lines(found))


def test_brackets_in_a_reason_are_printed_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = {"lengths": (64,), "replicas": 1, "status": "failed", "reasons": ["cannot read [/tmp/x/model]"]}
    store_of(tmp_path, broken)
    assert run_app(["history", "quantized", str(tmp_path)]) == 0
    assert "cannot read [/tmp/x/model]" in capsys.readouterr().out


def test_several_cells_of_a_name_are_asked_about(tmp_path: Path) -> None:
    store = store_of(tmp_path, {"replicas": 1})
    with pytest.raises(RequestError, match="--length: 64, 128"):
        history_of(store, Selection("quantized"), "speedup")
    with pytest.raises(RequestError, match="methods there: onnxruntime"):
        history_of(store, Selection("nothing"), "speedup")


def test_what_no_run_has_is_answered_with_what_there_is(tmp_path: Path) -> None:
    store = store_of(tmp_path, {"replicas": 1})
    with pytest.raises(RequestError, match=r"has quantized with --length 99; there are: 64, 128$"):
        history_of(store, Selection("quantized", 99), "speedup")
    with pytest.raises(RequestError, match=r"quantized with --length 64 with --device cuda; there are: cpu$"):
        history_of(store, Selection("quantized", 64, device="cuda"), "speedup")
    with pytest.raises(RequestError) as refused:
        history_of(store, Selection("nothing"), "speedup")
    assert "twin" not in str(refused.value), "no history is told of those"


def test_speedups_over_other_baselines_are_series_of_their_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number, baseline in enumerate(("pytorch", "onnxruntime", "quantized")):
        run = run_name(number)
        rows = [
            measured_row("c", 0, name, latency_ms)
            | {"run": run, "role": "baseline" if name == baseline else "candidate"}
            for name, latency_ms in (("pytorch", 10.0), ("onnxruntime", 8.0), ("quantized", 5.0))
        ]
        store.publish_replica(run, "c", 0, rows)
    with pytest.raises(RequestError, match="--baseline: onnxruntime, pytorch, quantized"):
        history_of(store, Selection("quantized"), "speedup")
    (entry,) = history_of(store, Selection("quantized", baseline="onnxruntime"), "speedup").entries
    assert entry.value == pytest.approx(1.6, rel=0.01)
    assert len(history_of(store, Selection("quantized"), "latency").entries) == 3, "a latency is over no baseline"
    assert run_app(["history", "quantized", str(tmp_path), "--baseline", "pytorch"]) == 0


def test_of_the_baselines_own_speedup_nothing_is_judged(store: Store) -> None:
    found = history_of(store, Selection("pytorch", 64), "speedup")
    assert [line for line in lines(found) if "--measure latency" in line] == list(lines(found))
    assert not history_of(store, Selection("pytorch", 64), "latency").is_yardstick


def test_the_command_prints_a_line_for_each_run(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(["history", "quantized", str(store.root), "--length", "64"]) == 0
    printed = capsys.readouterr().out
    assert all(run_name(number) in printed for number in range(RUNS))
    assert "E-divisive" in printed


def test_other_inputs_and_other_models_are_series_of_their_own(tmp_path: Path) -> None:
    one = {"replicas": 1, "lengths": (64,)}
    store = store_of(tmp_path, one, one | {"model": "larger"}, one | {"inputs": "padded"})
    with pytest.raises(RequestError, match="--inputs: full, padded"):
        history_of(store, Selection("quantized"), "speedup")
    with pytest.raises(RequestError, match="--model: demo, larger"):
        history_of(store, Selection("quantized", inputs="full"), "speedup")
    found = history_of(store, Selection("quantized", inputs="full", model="larger"), "speedup")
    assert [entry.run for entry in found.entries] == [run_name(1)]
    flags = ["--inputs", "full", "--model", "larger"]
    assert run_app(["history", "quantized", str(tmp_path), *flags]) == 0


def test_a_run_without_a_record_keeps_its_place(tmp_path: Path) -> None:
    store_of(tmp_path, *[{"replicas": 1, "lengths": (64,)}] * 3)
    (tmp_path / "runs" / f"{run_name(1)}.json").unlink()
    found = history_of(Store(tmp_path, read_only=True), Selection("quantized"), "speedup")
    assert [entry.run for entry in found.entries] == [run_name(number) for number in range(3)]


def test_a_baseline_of_several_packs_is_one_entry_a_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for pack, latency_ms in (("a", 10.0), ("b", 40.0)):
        rows = [measured_row(pack, 0, "pytorch", latency_ms), measured_row(pack, 0, f"method-{pack}", 5.0)]
        store.publish_replica(RUN, pack, 0, rows)
    (entry,) = history_of(store, Selection("pytorch"), "latency").entries
    assert entry.value == pytest.approx(20.0, rel=0.01)
    assert entry.replicas == 2
