"""The artifact cache: what a method prepared, found again by the hash of everything it depends on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from farm.records import Machine, ModelInfo, Workload
from tasks.cache import cache_folder, publish_folder
from tasks.digests import remembered_sha256
from tasks.method import Arrays, Method, library_versions
from tasks.options import of_preparing
from tasks.steps import recorded_steps

MANIFEST = "artifact.json"

BUILDING = ".building-"
"""Begins the name of a folder in which an artifact is being made; its key follows."""

EVALUATION_VERSION = 1
"""Raise it when texts are given to methods in another way, so that stored logits are computed anew."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A prepared artifact on this node. `folder` is the model's own where the method prepares nothing."""

    key: str
    folder: str
    size_bytes: int
    """Of its files, and of the model's weights where loading reads those too."""
    prepare_s: float
    cached: bool
    steps: Mapping[str, float] = field(default_factory=dict)
    """Seconds of preparing by step, which sum to `prepare_s`."""


def artifact_key(method: Method, model: ModelInfo, workload: Workload) -> str:
    """Hash of the model, the method, its options and what it declares to depend on; 24 hexadecimal digits."""
    depends = method.depends_on(workload)
    identity = {
        "model": model.sha256,
        "method": method.id,
        "options": of_preparing(method.Options(**workload.options)),
        "depends": library_versions(*method.requires) if depends is None else dict(depends),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]


def find_artifact(method: Method, model: ModelInfo, workload: Workload) -> Artifact | None:
    """Return the artifact if it is in the cache and undamaged. A damaged one is removed, so that it is made anew."""
    key = artifact_key(method, model, workload)
    if method.depends_on(workload) is None:
        return Artifact(key, model.folder, model.weight_bytes, 0.0, cached=True)
    folder = _folder(key)
    if not folder.is_dir():
        return None
    # A folder appears all at once, so one without a manifest is as damaged as one whose files have changed.
    manifest = _read_manifest(folder)
    if manifest is None or not _intact(folder, manifest["files"]):
        shutil.rmtree(folder, ignore_errors=True)
        return None
    prepare_s = manifest["prepare_s"]
    size = _size(method, model, manifest["files"])
    return Artifact(key, str(folder), size, prepare_s, cached=True, steps=manifest["steps"])


def prepare_artifact(method: Method, model: ModelInfo, workload: Workload) -> Artifact:
    """Make the artifact unless another process did so meanwhile; published as a whole or not at all."""
    key = artifact_key(method, model, workload)
    folder = _folder(key)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder.parent)
    with FileLock(f"{folder}.lock"):
        found = find_artifact(method, model, workload)
        if found is not None:
            return found
        scratch = Path(mkdtemp(prefix=f"{BUILDING}{key}-", dir=folder.parent))
        try:
            with recorded_steps() as steps:
                method.prepare(model, workload, scratch)
            prepare_s = sum(steps.values())
            files = {path.name: _describe(path) for path in sorted(scratch.iterdir())}
            made = {"method": method.id, "model": model.sha256, "prepare_s": prepare_s, "steps": steps}
            manifest = made | {"files": files}
            (scratch / MANIFEST).write_text(json.dumps(manifest, indent=1))
            publish_folder(scratch, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return Artifact(key, str(folder), _size(method, model, files), prepare_s, cached=False, steps=steps)


def evaluation_path(artifact: Artifact, machine: Machine, workload: Workload, dataset_sha256: str) -> Path:
    """Where the logits of this artifact over this data set are kept.

    Instruction sets and threads are in the name, as both change the order or the precision of sums.
    """
    settings = asdict(workload) | {"options": dict(workload.options)}
    identity = [
        EVALUATION_VERSION,
        artifact.key,
        dataset_sha256,
        settings,
        list(machine.instruction_sets),
        list(machine.gpus),
    ]
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]
    return cache_folder() / "evaluations" / f"{name}.npy"


def load_evaluation(path: Path) -> np.ndarray | None:
    """Return stored logits `[texts, labels]`, or None where there are none that can be read."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None


def save_evaluation(path: Path, logits: np.ndarray) -> None:
    """Store logits so that a reader sees all of them or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(mkdtemp(prefix=".writing-", dir=path.parent))
    try:
        np.save(scratch / path.name, logits, allow_pickle=False)
        (scratch / path.name).replace(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check_outputs(outputs: Arrays) -> np.ndarray:
    """Return the logits of a call as float64 `[batch, labels]`. Raises ValueError where there are none."""
    if "logits" not in outputs or outputs["logits"].ndim != 2:
        raise ValueError("a call must return 'logits' of shape [batch, labels]")
    return np.asarray(outputs["logits"], np.float64)


def _remove_abandoned(parent: Path) -> None:
    """Remove what processes left that were killed while they built: gigabytes, perhaps, that nobody would miss."""
    for scratch in parent.glob(f"{BUILDING}*"):
        key = scratch.name.removeprefix(BUILDING).partition("-")[0]
        with suppress(Timeout), FileLock(parent / f"{key}.lock", blocking=False):  # held while somebody builds it
            shutil.rmtree(scratch, ignore_errors=True)


def _folder(key: str) -> Path:
    return cache_folder() / "artifacts" / key


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and {"files", "prepare_s", "steps"} <= manifest.keys() else None


def _describe(path: Path) -> dict[str, Any]:
    """Size and digest. The digest is remembered while size and modification time stay: artifacts are checked before
    every cohort, and hashing a gigabyte each time would cost more than many a measurement."""
    return {"bytes": path.stat().st_size, "sha256": remembered_sha256(path)}


def _intact(folder: Path, files: Mapping[str, Any]) -> bool:
    """Whether every file still has its recorded size and digest."""
    try:
        return all(_describe(folder / name) == expected for name, expected in files.items())
    except OSError:
        return False


def _size(method: Method, model: ModelInfo, files: Mapping[str, Mapping[str, Any]]) -> int:
    """Bytes of all that loading reads."""
    return sum(int(entry["bytes"]) for entry in files.values()) + method.reads_checkpoint * model.weight_bytes
