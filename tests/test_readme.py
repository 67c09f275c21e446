"""What the README shows can be done."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
import yaml
from measured import RUN, measured_row, run_record, simulated_cohort

from farm.cli.commands import run_app
from farm.columns import chosen
from farm.limits import parse_bytes, parse_mix, parse_ns
from farm.query import query
from farm.store import Store

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
MARKER = "<!-- ten worked examples"
EXAMPLES = re.findall(r"```sql\n(.*?)```", README[README.index(MARKER) :], re.DOTALL)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two lengths, two replicas, and a cell that failed."""
    store = Store(tmp_path_factory.mktemp("results"))
    store.write_run(run_record(environment={"libraries": {"torch": "2.13.0"}}))
    for length in (64, 128):
        for replica in range(2):
            store.publish_replica(RUN, f"cpu-b1-l{length}", replica, simulated_cohort(length, replica))
    failed = measured_row("odd", 0, "broken", 9.0, status="failed", reasons=["crashed"], round=None, latency_ns=None)
    store.publish_replica(RUN, "odd", 0, [measured_row("odd", 0, "pytorch", 9.0), failed])
    return store


def test_there_are_ten_worked_examples() -> None:
    assert len(EXAMPLES) == 10
    assert all(example.startswith("-- ") for example in EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.splitlines()[0][3:] for example in EXAMPLES])
def test_a_worked_example_answers(results: Store, example: str) -> None:
    answer = query(results, example)
    assert answer.num_rows >= 1
    assert all(column.null_count < answer.num_rows for column in answer.columns), "a column of nothing teaches nothing"


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.splitlines()[0][3:] for example in EXAMPLES])
def test_a_worked_example_can_be_pasted_into_a_command(
    results: Store, example: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_app(["query", example, str(results.root)]) == 0
    argument = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO(example))
    assert run_app(["query", "-", str(results.root)]) == 0
    assert sorted(capsys.readouterr().out) == sorted(argument)


def test_the_pipeline_is_a_workflow_with_the_gate_as_a_step() -> None:
    (pipeline,) = re.findall(r"```yaml\n# .github/workflows.*?\n(.*?)```", README, re.DOTALL)
    steps = yaml.safe_load(pipeline)["jobs"]["latency"]["steps"]
    assert any("farm compare --baseline" in step.get("run", "") for step in steps)


def test_flags_of_the_examples_can_be_read() -> None:
    assert set(parse_mix(re.findall(r"--lengths (\d+:\S+)", README)[0])) == {64, 256}
    assert parse_bytes(re.findall(r"--max-size (\S+)", README)[0], "") == 150_000_000
    assert parse_ns(re.findall(r"--p90 (\S+)", README)[0], "") == 150_000_000
    assert chosen(re.findall(r"--columns (\S*,\S*?)`", README)[0]).asked


@pytest.mark.parametrize("command", ["table", "query", "compare", "history", "best"])
def test_commands_explain_themselves(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app([command, "--help"]) == 0
    assert f" {command} [OPTIONS]" in capsys.readouterr().out
