"""The command line: a mistake is one clear line and exit code 2, before anything is measured."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from control_suites import Place, new_place

from farm import cli
from farm.cli.commands import own_command, run_app
from farm.machine import describe_machine
from tasks.method import known_methods

SUITE = ("control-null", "control-work")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A place to run commands in; no test here starts Ray."""
    with new_place() as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(made.root)
        yield made


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong request must be refused before a cluster is started."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("ray.init", refuse)


def _refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = run_app(list(arguments))
    captured = capsys.readouterr()
    said = captured.err.strip()
    assert code == 2, said
    assert captured.out == ""
    assert said.startswith("farm: ")
    assert "\n" not in said
    return said


def test_an_unknown_method_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    said = _refusal(capsys, "run", str(place.suite(methods=["control-nul"])))
    assert "suite.yaml: methods[0]: unknown method 'control-nul'. Did you mean 'control-null'?" in said


def test_an_unknown_method_in_a_flag_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    said = _refusal(capsys, "run", str(place.suite(methods=list(SUITE))), "--methods", "control-wrok")
    assert "unknown method 'control-wrok'. Did you mean 'control-work'?" in said


def test_an_unknown_key_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    said = _refusal(capsys, "run", str(place.suite(methods=list(SUITE), lenghts=[8])))
    assert "suite.yaml: unknown key 'lenghts'. Did you mean 'lengths'?" in said


def test_a_length_beyond_the_models_positions_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    said = _refusal(capsys, "run", str(place.suite(methods=list(SUITE))), "--lengths", "8,33")
    assert "lengths: 33 is over the 32 positions of model" in said


def test_a_model_folder_without_a_tokenizer_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    (place.root / "model" / "tokenizer.json").unlink()
    said = _refusal(capsys, "run", str(place.suite(methods=list(SUITE))))
    assert "has no tokenizer.json; make one with" in said


def test_a_results_folder_that_cannot_be_written_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.results.write_text("a file, not a folder")
    said = _refusal(capsys, "run", str(place.suite(methods=list(SUITE))))
    assert "results" in said


def test_a_gpu_that_is_not_there_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    if describe_machine().gpus:
        pytest.skip("this machine has a GPU")
    said = _refusal(capsys, "run", str(place.suite(methods=list(SUITE))), "--device", "cuda")
    assert "no node has a CUDA GPU" in said
    assert "--device cpu" in said


def test_an_unknown_device_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert "devices[0]" in _refusal(capsys, "run", str(place.suite(methods=list(SUITE))), "--device", "tpu")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "budget_s"], "--set budget_s: write it as key=value, such as --set budget_s=600"),
        (["--set", "=3"], "--set =3: write it as key=value"),
        (["--set", "lengths=[8"], "the value is not valid YAML"),
        (["--set", "budget=3"], "unknown key 'budget'. Did you mean 'budget_s'?"),
        (["--lengths", "8,long"], "--lengths: 'long' is not a whole number"),
        (["--threads", "two"], "--threads: 'two' is not a whole number"),
    ],
)
def test_a_malformed_flag_is_refused(
    place: Place, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert words in _refusal(capsys, "run", str(place.suite(methods=list(SUITE))), *arguments)


def test_a_suite_that_does_not_exist_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.root.is_dir()
    said = _refusal(capsys, "run", "foundling")
    assert (
        "foundling: No such file or directory. Give a YAML file or a built-in suite (cpu-full, founding, gpu, gpu-full)"
        in said
    )


def test_a_dataset_that_does_not_exist_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    suite = str(place.suite(methods=list(SUITE), accuracy={"dataset": "gone.csv"}))
    assert "dataset gone.csv: not known" in _refusal(capsys, "run", suite)


def test_nothing_is_written_for_a_wrong_request(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    _refusal(capsys, "run", str(place.suite(methods=["control-nul"])))
    assert not place.results.exists()


@pytest.mark.parametrize("command", [["run", "--efort", "quick"], ["run", "--effort", "heroic"], ["measure"]])
def test_a_flag_or_command_that_does_not_exist_gives_exit_code_2(
    capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert run_app(command) == 2
    assert command[-1] in capsys.readouterr().err or "--efort" in command


@pytest.mark.parametrize("command", [["query", "SELECT 1"], ["table"]])
def test_asking_for_results_that_are_not_there_is_refused(
    place: Place, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    said = _refusal(capsys, *command)
    assert "no results in results: `farm run` makes them" in said
    assert not place.results.exists()


def test_a_query_without_sql_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.root.is_dir()
    assert "give one SELECT" in _refusal(capsys, "query")


def test_the_plan_shows_cohorts_and_cells(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_app(["plan", str(place.suite(methods=list(SUITE), lengths=[12, 8]))])
    shown = capsys.readouterr().out
    assert code == 0
    assert "controls: 2 cohorts, 6 cells of model" in shown
    assert shown.index("-b1-l8-") < shown.index("-b1-l12-")
    assert shown.count("control-null, control-null~twin, control-work") == 2
    assert "effort quick: 1 replica of each cohort, at most" in shown


@pytest.mark.parametrize(("order", "said"), [("blocked", True), ("interleaved", False)])
def test_the_plan_says_where_the_order_is_blocked(
    place: Place, capsys: pytest.CaptureFixture[str], order: str, said: bool
) -> None:
    assert run_app(["plan", str(place.suite(methods=list(SUITE), order=order))]) == 0
    assert ("order blocked: all turns of one cell, then of the next" in capsys.readouterr().out) == said


def test_the_plan_refuses_what_a_run_would(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    said = _refusal(capsys, "plan", str(place.suite(methods=list(SUITE), threads=[999])))
    assert "threads: 999 is more than the" in said


def test_flags_change_the_plan_and_the_baseline_comes_along(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    suite = str(place.suite(methods=[*SUITE, "control-wrong"]))
    assert run_app(["plan", suite, "--methods", "control-work", "--lengths", "16", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert "-t1-b1-l16-" in shown
    assert "control-null, control-null~twin, control-work" in shown
    assert "control-wrong" not in shown


def test_all_methods_are_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    assert run_app(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    listed = [line.split()[0] for line in lines if line and not line[0].isspace()]
    assert listed == known_methods()
    assert {"pytorch-fp32", "torchscript-fp32", "onnxruntime-fp32", "openvino-int8", "control-null"} <= set(listed)


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("arguments", "left"), [((), "nothing is kept"), (("--keep", "checks"), "what was measured is in checks")]
)
def test_an_interrupted_check_says_that_there_is_no_verdict_and_that_it_starts_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], left: str
) -> None:
    monkeypatch.setattr("farm.selfcheck.check", _interrupt)
    assert run_app(["selfcheck", *arguments]) == 130
    assert capsys.readouterr().err == f"farm: interrupted; no verdict; {left}. The same command starts over\n"


def test_a_command_that_keeps_nothing_promises_nothing_when_it_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("farm.machine.describe_machine", _interrupt)
    assert run_app(["methods"]) == 130
    assert capsys.readouterr().err == "farm: interrupted\n"


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(["--version"]) == 0
    assert capsys.readouterr().out.startswith("farm ")


def test_our_own_tasks_are_not_taken_for_a_stranger() -> None:
    assert cli.shadowed_tasks(Path(cli.__file__).parents[2]) is None


def test_another_module_named_tasks_is_explained(tmp_path: Path) -> None:
    said = cli.shadowed_tasks(tmp_path)
    assert said is not None
    assert "another module named 'tasks'" in said
    assert "PYTHONPATH" in said


def test_the_command_stops_where_another_tasks_hides_ours(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("raise SystemExit('the wrong module was imported')\n")
    root = Path(cli.__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-P", "-c", "from farm.cli import main; main()", "methods"],
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith("farm: another module named 'tasks'")
    assert str(tmp_path) in ran.stderr
    assert "Traceback" not in ran.stderr


def test_credentials_in_the_address_of_results_are_refused_before_a_cluster_hears_of_them(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farm.submit.Jobs", _refuse_to_connect)
    said = _refusal(capsys, "submit", str(place.suite(methods=list(SUITE))), "--results", "s3://KEY:HIDDEN@bucket/x")
    assert "credentials do not belong" in said and "HIDDEN" not in said


@pytest.mark.parametrize("results", ["s33://bucket/x", "s3:/bucket/x", "memory://x"])
def test_a_mistyped_address_of_results_is_refused_before_a_cluster_hears_of_it(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, results: str
) -> None:
    monkeypatch.setattr("farm.submit.Jobs", _refuse_to_connect)
    assert results in _refusal(capsys, "submit", str(place.suite(methods=list(SUITE))), "--results", results)


def test_a_job_whose_results_go_to_a_file_address_has_them_come_home(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []

    class Sending:
        def __init__(self, _: str) -> None: ...

        def submit(self, _: object, results: str, *__: object) -> str:
            sent.append(results)
            return "farm-1"

    monkeypatch.setattr("farm.submit.Jobs", Sending)
    home = place.root / "at home"
    assert run_app(["submit", str(place.suite(methods=list(SUITE))), "--detach", "--results", f"file://{home}"]) == 0
    assert sent == [""]  # they come home, rather than to that path of the head node
    assert home.is_dir()


def _refuse_to_connect(address: str) -> None:
    raise AssertionError(f"{address} was asked")


def test_a_command_is_stored_without_the_password_of_its_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["farm", "submit", "suite.yaml", "--address", "https://user:pass@head:8265"])
    assert own_command() == "farm submit suite.yaml --address https://head:8265"
