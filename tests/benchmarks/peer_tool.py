"""The peer itself, optimum-benchmark: its environment, its configuration, one sweep of it, and what that reports."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

WARM_UP_CALLS = 5
"""The peer's warm-up before each length; its own default is 10."""


def make_environment(folder: Path, release: str) -> Path:
    """Make the peer's virtual environment, with the farm's release of PyTorch; its `optimum-benchmark` command."""
    if not (folder / "pyvenv.cfg").is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    torch_release = version("torch").partition("+")[0]
    packages = [f"optimum-benchmark=={release}", "transformers==4.57.*", f"torch=={torch_release}"]
    subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", *packages], check=True)
    return folder / "bin" / "optimum-benchmark"


def describe_peer(command: Path) -> str:
    """The releases that pip chose."""
    code = "from importlib.metadata import version as v; print(*(f'{p} {v(p)}' for p in PACKAGES), sep=', ')"
    packages = ("optimum-benchmark", "torch", "transformers")
    interpreter = str(command.with_name("python"))
    arguments = [interpreter, "-c", code.replace("PACKAGES", repr(packages))]
    return subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def write_configuration(folder: Path, model: Path, calls: Mapping[int, int]) -> Path:
    """Write the peer's configuration: a scenario for each length, as their numbers of calls differ. Returns `folder`.

    A `duration` of 0 lets the iterations alone decide.
    """
    (folder / "scenario").mkdir(parents=True, exist_ok=True)
    for length, count in calls.items():
        scenario = {
            "defaults": ["inference"],
            "warmup_runs": WARM_UP_CALLS,
            "iterations": count,
            "duration": 0,
            "input_shapes": {"batch_size": 1, "sequence_length": length},
        }
        (folder / "scenario" / f"{_scenario(length)}.yaml").write_text(yaml.safe_dump(scenario))
    first = _scenario(next(iter(calls)))
    whole = {
        "defaults": ["benchmark", {"launcher": "process"}, {"backend": "pytorch"}, {"scenario": first}, "_self_"],
        "name": "peer",
        "backend": {
            "model": str(model),
            "task": "text-classification",
            "library": "transformers",
            "model_type": "bert",
            "device": "cpu",
        },
        "hydra": {"job": {"chdir": True}, "sweep": {"subdir": "${hydra:runtime.choices.scenario}"}},
    }
    (folder / "peer.yaml").write_text(yaml.safe_dump(whole))
    return folder


def run_sweep(command: Path, configuration: Path, lengths: Sequence[int], output: Path, threads: int) -> float:
    """One sweep over the lengths, its reports in `output`; the seconds it took. Raises SystemExit where it fails."""
    arguments = [str(command), "--config-dir", str(configuration), "--config-name", "peer", "--multirun"]
    arguments += [f"scenario={','.join(map(_scenario, lengths))}", f"hydra.sweep.dir={output}"]
    # It would otherwise ask the hub about a folder; that would be the network's time, not its own.
    changes = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    return run_timed(arguments, output.with_suffix(".log"), changes)


def read_latency(output: Path, length: int) -> dict[str, Any]:
    """The peer's report of one length: `count`, `total`, `p50` and more, in seconds."""
    report = json.loads((output / _scenario(length) / "benchmark_report.json").read_text())
    latency: dict[str, Any] = report["forward"]["latency"]
    return latency


def _scenario(length: int) -> str:
    return f"length{length}"


def run_timed(command: Sequence[str], log: Path, changes: Mapping[str, str] | None = None) -> float:
    """Run a command with its output in a file; the seconds it took. Raises SystemExit, naming the log, if it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("w") as file:
        ran = subprocess.run(
            command, check=False, stdout=file, stderr=subprocess.STDOUT, env=os.environ | dict(changes or {})
        )
    wall_s = time.monotonic() - started
    if ran.returncode:
        raise SystemExit(f"failed with exit code {ran.returncode}: {shlex.join(command)}\nits output is in {log}")
    return wall_s
