"""Claims about two runs: what became slower, what else is not the same, and when the gate stops."""

from __future__ import annotations

from pathlib import Path

import pytest
from measured import SPEEDUPS
from several_runs import publish_run, run_name, store_of

from farm.cli.commands import run_app
from farm.cli.compare_text import lines
from farm.compare import Comparison, Measure, compare
from farm.errors import RequestError
from farm.sides import pin, read_pinned, side_of_run
from farm.store import Store

SLOWER = {**SPEEDUPS, "quantized": 1.5}


def compared(store: Store, measure: Measure = "speedup", threshold: float = 0.0) -> Comparison:
    old, new = (side_of_run(store, run_name(number)) for number in (0, 1))
    return compare(old, new, measure=measure, threshold=threshold)


def test_equal_runs_are_not_called_slower(tmp_path: Path) -> None:
    found = compared(store_of(tmp_path, {"replicas": 5}, {"replicas": 5}))
    assert found.slower == ()
    assert all((cell.p_holm or 0) >= 0.05 for cell in found.cells if cell.change)


def test_a_method_that_became_slower_is_named_with_its_interval(tmp_path: Path) -> None:
    found = compared(store_of(tmp_path, {"replicas": 5}, {"replicas": 5, "speedups": SLOWER}))
    assert {(cell.name, cell.length) for cell in found.slower} == {("quantized", 64), ("quantized", 128)}
    change = found.slower[0].change
    assert change is not None and change.low < 1.5 / 1.9 < change.high


def test_a_threshold_lets_smaller_changes_pass(tmp_path: Path) -> None:
    store = store_of(tmp_path, {"replicas": 5}, {"replicas": 5, "speedups": SLOWER})
    assert compared(store, threshold=0.2).slower != ()
    assert compared(store, threshold=0.4).slower == ()


def test_a_slower_machine_changes_no_speedup_and_widens_every_latency(tmp_path: Path) -> None:
    store = store_of(tmp_path, {"replicas": 5}, {"replicas": 5, "slower": 1.4})
    by_speedup, by_latency = compared(store), compared(store, "latency")
    assert by_speedup.slower == ()
    assert by_latency.slower == (), "the baseline moved as far, so it says nothing of a method"
    assert by_latency.between.sd > 0.2
    assert by_latency.baseline_moved == pytest.approx(1 / 1.4, rel=0.05)
    assert any("ran 0.7" in line for line in lines(by_speedup))


def test_a_latency_that_grew_on_a_machine_that_stayed_is_slower(tmp_path: Path) -> None:
    store = store_of(tmp_path, {"replicas": 5}, {"replicas": 5, "speedups": {**SPEEDUPS, "quantized": 0.6}})
    assert {cell.name for cell in compared(store, "latency").slower} == {"quantized"}


def test_a_cell_without_a_result_any_more_stops_the_gate(tmp_path: Path) -> None:
    store = Store(tmp_path)
    publish_run(store, 0, lengths=(64,))
    publish_run(store, 1, lengths=(64,), status="failed", reasons=["crashed"])
    found = compared(store)
    assert {cell.name for cell in found.broken} == set(SPEEDUPS)
    assert "crashed" in list(lines(found))[-1]


def test_cells_of_one_run_alone_are_named(tmp_path: Path) -> None:
    found = compared(store_of(tmp_path, {"lengths": (64, 128)}, {"lengths": (128, 256)}))
    assert "quantized (64)" in found.only_old
    assert "quantized (256)" in found.only_new


def test_runs_that_share_nothing_are_a_mistake_of_the_request(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="share no method"):
        compared(store_of(tmp_path, {"lengths": (64,)}, {"lengths": (128,)}))


def test_other_hardware_is_compared_and_said(tmp_path: Path) -> None:
    found = compared(store_of(tmp_path, {}, {"hardware_class": "another"}))
    assert any(cell.change for cell in found.cells)
    assert any(line.startswith("Hardware: class") and "another" in line for line in found.differences)


def test_libraries_settings_and_the_state_of_the_machine_are_told(tmp_path: Path) -> None:
    suite = {"name": "simulated", "methods": [{"name": "quantized", "options": {}}], "effort": "quick"}
    other = {**suite, "methods": [{"name": "quantized", "options": {"spinning": False}}]}
    old = {"record": {"suite": suite, "environment": {"libraries": {"torch": "2.12"}}}}
    new = {"record": {"suite": other, "environment": {"libraries": {"torch": "2.13"}}}}
    store = store_of(tmp_path, old | {"round_fp32_gflops": [200.0] * 20}, new | {"round_fp32_gflops": [100.0] * 20})
    told = "\n".join(compared(store).differences)
    assert "torch 2.12 -> 2.13" in told
    assert "methods.quantized.options.spinning none -> False" in told
    assert "fp32 products, GFLOP/s 200 -> 100 (-50 %)" in told


def test_a_pinned_baseline_says_the_same_as_the_run_it_was_made_of(tmp_path: Path) -> None:
    store = store_of(tmp_path / "results", {"replicas": 2}, {"replicas": 2, "speedups": SLOWER})
    old, new = (side_of_run(store, run_name(number)) for number in (0, 1))
    pin(old, tmp_path / "pinned.json")
    assert read_pinned(tmp_path / "pinned.json") == old
    assert compare(read_pinned(tmp_path / "pinned.json"), new) == compare(old, new)
    assert (tmp_path / "pinned.json").stat().st_size < 20_000, "small enough to be committed"


def test_a_file_that_is_no_pinned_baseline_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"run": "x"}')
    for name in ("other.json", "missing.json"):
        with pytest.raises(RequestError, match="not a pinned baseline") as refused:
            read_pinned(tmp_path / name)
        assert len(str(refused.value).splitlines()) == 1


def test_the_gate_is_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store_of(tmp_path / "results", {"replicas": 5}, {"replicas": 5, "speedups": SLOWER})
    assert run_app(["compare", run_name(0), run_name(0)]) == 0
    assert run_app(["compare", run_name(0)]) == 3
    assert run_app(["compare", run_name(0), "--threshold", "40%"]) == 0
    assert run_app(["compare", "--pin", "pinned.json", run_name(0)]) == 0
    assert run_app(["compare", "--baseline", "pinned.json"]) == 3
    assert run_app(["compare", "--baseline", "pinned.json", run_name(0)]) == 0
    assert run_app(["compare", "results", "results"]) == 0
    assert run_app(["compare"]) == 2
    assert run_app(["compare", run_name(0), "--threshold", "much"]) == 2
    printed = capsys.readouterr()
    assert "Gate: slower: quantized (" in printed.out
    assert "Traceback" not in printed.err
