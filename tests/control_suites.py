"""Suites of control methods on a model that is only a tokenizer: whole runs without any inference runtime."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

PROGRAM = (
    # A shell lets what it starts in the background ignore Ctrl-C, and the tests may be such a thing.
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from farm.cli import main; main()"
)
WORDS = ("[PAD]", "[UNK]", "good", "bad", "camera", "battery")
TEXTS = "text,label\n" + "".join(f"{word} camera number {n},{n % 2}\n" for n, word in enumerate(["good", "bad"] * 4))


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of a run's own: model, texts, cache, results, and the temporary files of every process of it."""

    root: Path

    @property
    def results(self) -> Path:
        """Where results go."""
        return self.root / "results"

    @property
    def environment(self) -> dict[str, str]:
        """A cache, a lock and Ray's own folder apart from those of other runs on this machine."""
        return {"FARM_CACHE": str(self.root / "cache"), "TMPDIR": str(self.root / "tmp"), "COLUMNS": "200"}

    def suite(self, name: str = "suite.yaml", **keys: Any) -> Path:
        """Write a suite on the made-up model and texts."""
        whole = {
            "name": "controls",
            "model": str(self.root / "model"),
            "devices": ["cpu"],
            "lengths": [8],
            "accuracy": {"dataset": str(self.root / "texts.csv")},
            "budget_s": 1,
            "sentinels": False,
        } | keys
        path = self.root / name
        path.write_text(yaml.safe_dump(whole))
        return path

    def start(self, *arguments: str, new_session: bool = False, output: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """Start a `farm` command; output and errors share a pipe, unless they go elsewhere."""
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            cwd=self.root,
            env=os.environ | self.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=new_session,
        )

    def farm(self, *arguments: str, timeout_s: float = 400) -> tuple[int, str]:
        """Run a `farm` command to its end; its exit code and all it said."""
        process = self.start(*arguments)
        try:
            said, _ = process.communicate(timeout=timeout_s)
        finally:
            process.kill()
        return process.returncode, said

    def measured(self) -> list[Path]:
        """Every published measurement, oldest run first."""
        return sorted(self.results.glob("measurements/*/[!._]*.parquet"))

    def processes(self) -> list[psutil.Process]:
        """Every process that was started from this place, found by its environment."""
        return [process for process in psutil.process_iter() if _belongs(process, self.environment)]


def _belongs(process: psutil.Process, environment: Mapping[str, str]) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
            return False
        return process.environ().get("FARM_CACHE") == environment["FARM_CACHE"]
    except psutil.Error:
        return False


@contextmanager
def new_place() -> Iterator[Place]:
    """A place for runs, gone afterwards with every process that is left. Its path is short: Ray's sockets need that."""
    place = Place(Path(tempfile.mkdtemp(prefix="ft-", dir="/tmp")))
    (place.root / "tmp").mkdir()
    _save_tokenizer_model(place.root / "model")
    (place.root / "texts.csv").write_text(TEXTS)
    try:
        yield place
    finally:
        for process in place.processes():
            process.kill()
        shutil.rmtree(place.root, ignore_errors=True)


def _save_tokenizer_model(folder: Path) -> None:
    folder.mkdir()
    config = {
        "architectures": ["DistilBertForSequenceClassification"],
        "model_type": "distilbert",
        "max_position_embeddings": 32,
        "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file({"weight": np.zeros(4, np.float32)}, str(folder / "model.safetensors"))
