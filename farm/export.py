"""Writes a method's artifacts as they were measured beside a program that runs them without the farm."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

from farm.best import Verdict
from farm.errors import FarmError, RequestError, ResultsError
from farm.machine import describe_machine
from farm.nursery import Nursery, ProcessDiedError, TooLateError
from farm.ratios import Row
from farm.records import Cell, ModelInfo, Workload
from farm.results import Results
from tasks.artifacts import MANIFEST, Artifact, find_artifact
from tasks.cache import publish_folder
from tasks.deployment import PROGRAMS, Deployment, deployment_of, requirements
from tasks.inputs import encode_sentences, padding_settings
from tasks.method import Method, find_method
from tasks.models import resolve_model
from tasks.progress import SilentProgress

PREPARE_S = 1800.0
"""Making an artifact again may take what it may in a run: the default of `limits.prepare_s`."""

LOAD_S = 300.0
"""Loading, proving and answering the texts, which takes seconds."""

CHECK_TEXTS = (
    "Works as it should. I would buy it again.",
    "It broke after two days and nobody answered my letters.",
    "The picture is sharp, but the battery is empty within an hour.",
    "Not bad at all for the price, although the manual is useless.",
)
"""What the stored logits are of: short enough for every length, in two classes and between them."""


@dataclass(frozen=True, slots=True)
class Exported:
    """Where an export is, and what is to be known about it."""

    folder: Path
    told: str


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is exported: a method in one block, a measured row for each of its lengths."""

    name: str
    method: Method
    model: ModelInfo
    rows: Mapping[int, Row]

    def workload(self, length: int) -> Workload:
        """What the row was measured at."""
        row = self.rows[length]
        options = json.loads(row["options"] or "{}")
        return Workload(row["device"], row["threads"], row["batch_size"], length, options)


def export_method(
    results: Results, verdicts: Sequence[Verdict], folder: Path, name: str | None = None, block: int | None = None
) -> Exported:
    """Write the winner of this machine's block (or the method called `name`) into `folder`, which must be new or empty.

    Of several blocks of this machine, `block` picks one: its number among all `verdicts`, from 1.

    Artifacts come from the cache by the key they were measured under, or are made again. The logits that are stored
    for checking are those of a process set up as a measured cell is, its proof included. Raises RequestError where
    nothing can be exported, FarmError where an artifact cannot be made or loaded, ResultsError where the folder cannot
    be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(f"--export {folder}: is there already; name a new folder")
    subject = _subject(results, _here(verdicts, block), name)
    workload = subject.workload(min(subject.rows))
    deployment = deployment_of(subject.method, workload)
    if deployment is None:
        raise RequestError(
            f"--export: there is no program yet that runs {subject.method.id} on {workload.device} with these options "
            "without the farm; name another method with --method, or a CPU's answer with --block"
        )
    logs = Path(mkdtemp(prefix="farm-export-"))
    with closing(_nursery(workload, subject, logs)) as nursery:
        artifacts = {length: _artifact(nursery, subject, length, logs) for length in subject.rows}
        expected = _expected(nursery, subject, artifacts, logs)
    shutil.rmtree(logs, ignore_errors=True)  # kept where something failed, for the message names them
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(mkdtemp(prefix=".exporting-", dir=folder.parent))
        scratch.chmod(0o755)  # a temporary folder is its maker's alone; an export is for others
        try:
            _copy(scratch, subject, deployment, artifacts)
            _describe(scratch, results.run, subject, deployment, artifacts)
            (scratch / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
            publish_folder(scratch, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise ResultsError(f"--export {folder}: cannot be written ({error.strerror or error})") from error
    return Exported(folder, _told(folder, subject, artifacts))


def _here(verdicts: Sequence[Verdict], block: int | None) -> Verdict:
    """The block that was measured on hardware like this machine's: artifacts are made for a processor."""
    here = describe_machine().hardware_class
    mine = {number: each for number, each in enumerate(verdicts, 1) if each.rows[0]["hardware_class"] == here}
    if not mine:
        raise RequestError(f"--export: this machine ({here}) is not of the hardware that was measured; export there")
    listed = "; ".join(f"{number}: {each.title}" for number, each in mine.items())
    if block is not None and block not in mine:
        raise RequestError(f"--block {block}: is no answer for this machine, which has {listed}")
    if block is None and len(mine) > 1:
        raise RequestError(f"--export: this machine has several answers in this run; name one with --block ({listed})")
    return mine[block] if block is not None else next(iter(mine.values()))


def _subject(results: Results, verdict: Verdict, name: str | None) -> _Subject:
    winner = verdict.choice.winner
    chosen = name or (winner.name if winner else None)
    if chosen is None:
        raise RequestError("--export: no method keeps the limits; name one with --method, or loosen them")
    wanted = {
        (row["cohort"], row["cell"]): row for row in verdict.rows if row["name"] == chosen and row["role"] != "twin"
    }
    columns = ["cohort", "cell", "role", "method", "options", "status", "artifact_key", "cores"]
    measured = results.store.read_measurements(results.run, [*columns, "length", "batch_size", "device", "threads"])
    rows = {
        row["length"]: row
        for row in measured.to_pylist()
        if (row["cohort"], row["cell"]) in wanted
        and row["role"] != "twin"
        and row["status"] == "ok"
        and row["length"] in verdict.shares
    }
    if not rows:
        with_result = [row for row in verdict.rows if row["role"] != "twin" and row["status"] == "ok"]
        known = ", ".join(sorted({row["name"] for row in with_result})) or "none"
        raise RequestError(f"--export: {chosen} has no result in this run; methods that have one: {known}")
    return _Subject(
        chosen, find_method(next(iter(rows.values()))["method"]), _model(results), dict(sorted(rows.items()))
    )


def _model(results: Results) -> ModelInfo:
    record = results.record
    if record is None:
        raise RequestError(f"--export: run {results.run} has no record, so its model is not known")
    model = resolve_model(str(record.suite.get("model", record.model["name"])), SilentProgress())
    if model.sha256 != record.model["sha256"]:
        raise RequestError(f"--export: model {model.name} is not the one that was measured: its files have changed")
    return model


def _nursery(workload: Workload, subject: _Subject, logs: Path) -> Nursery:
    """Where cells are forked, on the measured cores as far as this process may use them."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    measured = [core for core in subject.rows[workload.length]["cores"] or () if core in allowed]
    return Nursery(measured or allowed, workload.threads, "", logs / "nursery.log")


def _artifact(nursery: Nursery, subject: _Subject, length: int, logs: Path) -> Artifact:
    workload = subject.workload(length)
    found = find_artifact(subject.method, subject.model, workload)
    if found is not None:
        return found
    asked = ("workshop", "prepare", subject.method.id, subject.model, workload)
    made: Artifact = _ask(nursery, logs / f"prepare-{length}.log", *asked, limit_s=PREPARE_S)
    return made


def _ask(nursery: Nursery, log: Path, kind: Any, name: str, *arguments: Any, limit_s: float) -> Any:
    """One question to a process of its own."""
    resident = nursery.fork(kind, log)
    try:
        return resident.call(name, *arguments, timeout_s=limit_s)
    except (ProcessDiedError, TooLateError) as error:
        raise FarmError(f"--export: {name} did not end well; its output is in {log}") from error
    finally:
        resident.kill()


def _expected(
    nursery: Nursery, subject: _Subject, artifacts: Mapping[int, Artifact], logs: Path
) -> list[dict[str, Any]]:
    """The logits of the texts at each length they are checked at, from processes set up as cells are."""
    cases = []
    for length, texts in _by_length(subject, artifacts).items():
        workload = subject.workload(length)
        batches = [
            {name: np.repeat(array, workload.batch_size, axis=0) for name, array in one.items()}
            for one in (encode_sentences(subject.model, [text], length) for text in texts)
        ]
        cell = Cell("export", "candidate", subject.name, subject.method.id, subject.method.precision, workload)
        log = logs / f"cell-{length}.log"
        logits = _answers(nursery, cell, subject.model, artifacts[length].folder, batches, log=log)
        cases += [
            {"text": text, "length": length, "logits": list(row)} for text, row in zip(texts, logits, strict=True)
        ]
    return cases


def _answers(
    nursery: Nursery, cell: Cell, model: ModelInfo, folder: str, batches: Sequence[Any], *, log: Path
) -> list[Any]:
    temporary = log.with_suffix("")
    resident = nursery.fork("cell", log, temporary=temporary)
    try:
        resident.call("import_runtime", cell.method, model, timeout_s=LOAD_S)
        resident.call("load", cell, model, folder, batches, timeout_s=LOAD_S)
        ready = resident.call("warm_up", timeout_s=LOAD_S)
    except (ProcessDiedError, TooLateError) as error:
        raise FarmError(f"--export: {cell.name} could not be loaded; its output is in {log}") from error
    finally:
        resident.kill()
        shutil.rmtree(temporary, ignore_errors=True)
    return [batch[0] for batch in ready.logits]


def _by_length(subject: _Subject, artifacts: Mapping[int, Artifact]) -> dict[int, list[str]]:
    """The texts to check at each length: where it has an artifact of its own, all that it holds, so that none goes
    unchecked; else those of which it is the shortest that holds them. A length too short for all gets all, cut."""
    whole = encode_sentences(subject.model, CHECK_TEXTS, max(subject.rows))["attention_mask"].sum(axis=1)
    tokens = dict(zip(CHECK_TEXTS, map(int, whole), strict=True))
    found: dict[int, list[str]] = {}
    seen: set[str] = set()
    shorter = 0
    for length in sorted(subject.rows):
        own = artifacts[length].key not in seen
        held = [text for text in CHECK_TEXTS if tokens[text] <= length and (own or tokens[text] > shorter)]
        if held or own:
            found[length] = held or list(CHECK_TEXTS)
        seen.add(artifacts[length].key)
        shorter = length
    return found


def _place(artifact: Artifact) -> str:
    """The artifact's folder in the export; lengths that share an artifact share it."""
    return f"artifact-{artifact.key[:8]}"


def _copy(folder: Path, subject: _Subject, deployment: Deployment, artifacts: Mapping[int, Artifact]) -> None:
    for artifact in {artifact.key: artifact for artifact in artifacts.values()}.values():
        place = folder / _place(artifact)
        shutil.copytree(artifact.folder, place, ignore=shutil.ignore_patterns(MANIFEST))
        place.chmod(0o755)
        for name in deployment.model_files:
            shutil.copy(Path(subject.model.folder) / name, place)
    shutil.copy(Path(subject.model.folder) / "tokenizer.json", folder)
    shutil.copy(PROGRAMS / "run.py", folder)
    shutil.copy(PROGRAMS / deployment.program, folder / "runtime.py")


def _describe(
    folder: Path, run: str, subject: _Subject, deployment: Deployment, artifacts: Mapping[int, Artifact]
) -> None:
    first = subject.rows[min(subject.rows)]
    settings = {
        "run": run,
        "name": subject.name,
        "method": subject.method.id,
        "precision": subject.method.precision,
        "device": first["device"],
        "threads": first["threads"],
        "cores": first["cores"] or [],
        "batch_size": first["batch_size"],
        "artifacts": {str(length): _place(artifact) for length, artifact in artifacts.items()},
        "inputs": list(subject.model.input_names),
        "labels": list(subject.model.labels),
        "padding": padding_settings(subject.model, max(subject.rows)),
        "runtime": dict(deployment.settings),
    }
    (folder / "settings.json").write_text(json.dumps(settings, indent=1) + "\n")
    (folder / "requirements.txt").write_text("\n".join(requirements(deployment)) + "\n")


def _told(folder: Path, subject: _Subject, artifacts: Mapping[int, Artifact]) -> str:
    """Where it is, whether its artifacts are the measured ones, and how to try it."""
    other = [
        length
        for length, artifact in artifacts.items()
        if subject.rows[length]["artifact_key"] not in (None, artifact.key)
    ]
    again = [length for length, artifact in artifacts.items() if not artifact.cached and length not in other]
    lines = [f"exported {subject.name} to {folder}; try it: cd {folder} && python run.py --check"]
    if other:
        lengths = ", ".join(map(str, other))
        lines.append(
            f"note: with the library versions installed now the artifact (length {lengths}) is not the one that was "
            "measured; run `farm run` again before you rely on its latency"
        )
    elif again:
        lines.append(
            f"note: made again under the same key, as the cache did not hold it: length {', '.join(map(str, again))}"
        )
    else:
        lines.append("its artifacts are those that were measured, from the cache")
    return "\n".join(lines)
