"""Claims about two runs: what became slower, what else is not the same, and when the gate stops."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
from measured import SPEEDUPS
from rich.console import Console
from several_runs import publish_run, run_name, store_of

from farm.cli.commands import run_app
from farm.cli.compare_text import gate, lines, to_rich
from farm.compare import Comparison, Measure, compare
from farm.errors import RequestError
from farm.sides import Side, pin, read_pinned, side_of_run
from farm.store import Store

SLOWER = {**SPEEDUPS, "quantized": 1.5}


def compared(store: Store, measure: Measure = "speedup", threshold: float = 0.0) -> Comparison:
    old, new = (side_of_run(store, run_name(number)) for number in (0, 1))
    return compare(old, new, measure=measure, threshold=threshold)


def sides(store: Store) -> tuple[Side, Side]:
    """Both runs of a store."""
    return side_of_run(store, run_name(0)), side_of_run(store, run_name(1))


def test_equal_runs_are_not_called_slower(tmp_path: Path) -> None:
    found = compared(store_of(tmp_path, {"replicas": 5}, {"replicas": 5}))
    assert found.slower == ()
    assert all((cell.p_holm or 0) >= 0.05 for cell in found.cells if cell.change)


def test_a_method_that_became_slower_is_named_with_its_interval(tmp_path: Path) -> None:
    found = compared(store_of(tmp_path, {"replicas": 5}, {"replicas": 5, "speedups": SLOWER}))
    assert {(cell.name, cell.length) for cell in found.slower} == {("quantized", 64), ("quantized", 128)}
    assert [cell.length for cell in found.cells if cell.name == "quantized"] == [64, 128]
    change = found.slower[-1].change
    assert change is not None and change.low < 1.5 / 1.9 < change.high


def test_a_threshold_lets_smaller_changes_pass(tmp_path: Path) -> None:
    store = store_of(tmp_path, {"replicas": 5}, {"replicas": 5, "speedups": SLOWER})
    assert compared(store, threshold=0.2).slower != ()
    assert compared(store, threshold=0.4).slower == ()


@pytest.mark.parametrize(("lost", "passes"), [(1.5, True), (2.5, False)])
def test_a_threshold_is_of_the_time_and_may_be_more_than_all_of_it(tmp_path: Path, lost: float, passes: bool) -> None:
    slow = {**SPEEDUPS, "quantized": SPEEDUPS["quantized"] / (1 + lost)}
    store_of(tmp_path, {"replicas": 5}, {"replicas": 5, "speedups": slow})
    compare_them = ["compare", run_name(0), run_name(1), "--results", str(tmp_path)]
    assert run_app([*compare_them, "--threshold", "200%"]) == (0 if passes else 3)
    assert run_app([*compare_them, "--threshold", "2"]) == 2, "2 % or 200 %?"


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
    assert "crashed" in gate(found)


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


def test_what_cells_load_how_right_it_is_and_how_large_is_told_where_it_changed(tmp_path: Path) -> None:
    old = {"artifact_key": "a", "accuracy": 0.9, "artifact_bytes": 139_000_000, "replicas": 1}
    store = store_of(tmp_path, old, old | {"artifact_key": "b", "accuracy": 0.89, "artifact_bytes": 69_000_000}, old)
    first, changed, same = (side_of_run(store, run_name(number)) for number in range(3))
    pin(first, tmp_path / "pinned.json")
    for before in (first, read_pinned(tmp_path / "pinned.json")):
        anew, accuracy, size = compare(before, changed).differences[-4:-1]
        assert anew.startswith("Prepared anew: ") and "quantized (64, 128)" in anew and "~twin" not in anew
        assert accuracy.startswith("Accuracy: ") and "quantized 90.00 % -> 89.00 % (64, 128)" in accuracy
        assert size.startswith("Size") and "quantized 139 MB -> 69.0 MB (64, 128)" in size
    assert not [line for line in compare(first, same).differences if "quantized" in line]


def test_other_timed_inputs_are_told_where_both_runs_name_theirs(tmp_path: Path) -> None:
    named = {"replicas": 1, "lengths": (64,)}
    store = store_of(tmp_path, named | {"inputs_sha256": "a"}, named | {"inputs_sha256": "b"}, named)
    first, other, unnamed = (side_of_run(store, run_name(number)) for number in range(3))
    assert "Timed inputs: other tokens at length 64." in compare(first, other).differences
    for new in (first, unnamed):
        assert not [line for line in compare(first, new).differences if line.startswith("Timed")]


def test_a_baseline_pinned_before_artifacts_were_told_says_nothing_of_them(tmp_path: Path) -> None:
    store = store_of(tmp_path, {"artifact_key": "a", "artifact_bytes": 1}, {"artifact_key": "b", "artifact_bytes": 2})
    old, new = sides(store)
    stored = old.model_dump(exclude={"cells": {"__all__": {"artifact_key", "artifact_bytes"}}})
    assert not [line for line in compare(Side.model_validate(stored), new).differences if "quantized" in line]


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
    assert run_app(["compare", run_name(1)]) == 2, "the newest run would be compared with itself"
    assert run_app(["compare", "--pin", "pinned.json", run_name(0)]) == 0
    assert run_app(["compare", "--baseline", "pinned.json"]) == 3
    assert run_app(["compare", "--pin", "newest.json"]) == 0
    assert run_app(["compare", "--baseline", "newest.json"]) == 2, "nothing was measured since it was pinned"
    assert run_app(["compare", "--pin", "pinned.json", run_name(0), run_name(1)]) == 2
    assert run_app(["compare", "--baseline", "pinned.json", run_name(0)]) == 0
    assert run_app(["compare", "results", "results"]) == 0
    assert run_app(["compare"]) == 2
    assert run_app(["compare", run_name(0), "--threshold", "much"]) == 2
    printed = capsys.readouterr()
    assert "Gate: slower: quantized (" in printed.out
    assert "Traceback" not in printed.err


def test_no_output_replaces_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = store_of(tmp_path / "results", {"replicas": 1, "lengths": (64,)})
    record = store.root / "runs" / f"{run_name(0)}.json"
    before = record.read_bytes()
    assert run_app(["compare", "--results", str(store.root), "--pin", str(record)]) == 2
    assert run_app(["compare", str(store.root), "--pin", str(record)]) == 2
    assert run_app(["report", str(store.root), "-o", str(store.root / "report.html")]) == 2
    assert run_app(["report", str(store.root), "--plot", "speedup", "-o", str(store.root / "speedup.png")]) == 2
    assert capsys.readouterr().err.count("is among the results") == 4
    assert record.read_bytes() == before
    assert not (store.root / "report.html").exists()


@pytest.mark.parametrize("changes", [{"name": "other"}, {"method": "onnxruntime-fp32"}, {"options": '{"spinning": 1}'}])
def test_speedups_over_different_baselines_are_not_compared(tmp_path: Path, changes: dict[str, str]) -> None:
    old, new = sides(store_of(tmp_path, {}, {}))
    cells = [cell.model_copy(update=changes if cell.role == "baseline" else {}) for cell in new.cells]
    other = new.model_copy(update={"cells": tuple(cells)})
    with pytest.raises(RequestError, match=r"different baselines .* --measure latency"):
        compare(old, other)
    assert compare(old, other, measure="latency").cells


def test_another_model_is_warned_of(tmp_path: Path) -> None:
    other = {"record": {"model": {"name": "larger", "sha256": "ef" * 32}}}
    found = compared(store_of(tmp_path, {}, other))
    assert any("different models (demo, larger)" in warning for warning in found.warnings)
    assert "Warning: the runs are of different models" in printed_of(found)


def printed_of(found: Comparison) -> str:
    console = Console(width=400, file=io.StringIO())
    with console.capture() as captured:
        console.print(to_rich(found))
    return captured.get()


def test_a_cell_that_is_asked_for_and_is_gone_stops_the_gate(tmp_path: Path) -> None:
    suite = {"name": "simulated", "methods": [{"name": name} for name in SPEEDUPS], "effort": "quick"}
    asking, dropped = (
        {"speedups": {"pytorch": 1.0, "quantized": 1.9}, "lengths": (64,), "record": {"suite": suite | also}}
        for also in ({"lengths": [64, 128]}, {"lengths": [64], "methods": [{"name": "pytorch"}, {"name": "quantized"}]})
    )
    missing = compared(store_of(tmp_path / "asking", {}, asking))
    assert {(cell.name, cell.length) for cell in missing.broken} == {
        *(("torchscript", 64), ("onnxruntime", 64)),
        *((name, 128) for name in SPEEDUPS),
    }
    assert "torchscript (64) not measured: its suite asks for it" in gate(missing)
    assert printed_of(missing).count("missing") == 6
    assert compared(store_of(tmp_path / "dropped", {}, dropped)).broken == ()


def test_a_cell_without_a_figure_is_said_not_to_be_judged(tmp_path: Path) -> None:
    old, new = sides(store_of(tmp_path, {}, {}))
    cells = [cell.model_copy(update={"log_speedup": None} if cell.name == "quantized" else {}) for cell in new.cells]
    found = compare(old, new.model_copy(update={"cells": tuple(cells)}))
    assert any("not judged" in warning and "quantized (64)" in warning for warning in found.warnings)


def test_several_kinds_of_hardware_are_not_matched_by_guessing(tmp_path: Path) -> None:
    old, new = sides(store_of(tmp_path, {}, {"hardware_class": "c"}))
    more = tuple(cell.model_copy(update={"hardware_class": "b"}) for cell in old.cells)
    with pytest.raises(RequestError, match="share no kind of hardware"):
        compare(old.model_copy(update={"cells": (*old.cells, *more)}), new)


def test_every_pack_counts_in_what_is_said_of_the_baseline(tmp_path: Path) -> None:
    old, new = sides(store_of(tmp_path, {}, {}))

    def packed(side: Side, slower: float) -> Side:
        yardsticks = [cell for cell in side.cells if cell.role in ("baseline", "twin")]
        second = [
            cell.model_copy(
                update={"log_latency_ns": figure.model_copy(update={"mean": figure.mean + math.log(slower)})}
            )
            for cell in yardsticks
            if (figure := cell.log_latency_ns)
        ]
        return side.model_copy(update={"cells": (*second, *side.cells)})

    alone, both = compare(old, new), compare(packed(old, 1.0), packed(new, 2.0))
    assert both.between.pairs == 2 * alone.between.pairs, "twins of both packs measure what lies between runs"
    assert both.baseline_moved == pytest.approx((alone.baseline_moved or 0) / math.sqrt(2))
    assert [cell.name for cell in both.cells].count("pytorch") == 2, "once a length"


def test_the_threshold_itself_is_held_against_the_noise(tmp_path: Path) -> None:
    """A slow-down estimated a little above the threshold does not show that it is above."""
    store = store_of(tmp_path, {"replicas": 5}, {"replicas": 5, "speedups": SLOWER})
    change = min(compared(store).slower, key=lambda cell: cell.change.speedup if cell.change else 1).change
    assert change is not None
    slow_down = 1 / change.speedup - 1
    assert compared(store, threshold=slow_down - 0.002).slower == ()
    assert compared(store, threshold=slow_down - 0.1).slower != ()


def test_brackets_in_a_table_are_printed_as_they_are(tmp_path: Path) -> None:
    found = compared(store_of(tmp_path, {"replicas": 1}, {"replicas": 1}))
    cell = next(cell for cell in found.cells if cell.change)
    assert cell.change is not None
    wild = replace(cell, name="[/tmp/x]", change=replace(cell.change, low=0.01, high=100.0))
    printed = printed_of(replace(found, cells=(wild,)))
    assert "[/tmp/x]" in printed and "[no telling]" in printed


def test_methods_that_one_run_has_are_named_once_and_are_no_settings(tmp_path: Path) -> None:
    old, new = sides(store_of(tmp_path, {"replicas": 2}, {"replicas": 2, "speedups": SPEEDUPS | {"extra": 3.0}}))
    suite = {"methods": [{"name": "pytorch", "options": {}}]}
    more = {"methods": [{"name": "pytorch", "options": {"x": 1}}, {"name": "extra", "options": {}}]}
    found = compare(old.model_copy(update={"suite": suite}), new.model_copy(update={"suite": more}))
    assert found.only_new == ("extra (64, 128)",)
    (settings,) = [line for line in found.differences if line.startswith("Settings")]
    assert settings == "Settings: methods.pytorch.options.x none -> 1."
