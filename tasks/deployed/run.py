"""Classify texts with the exported model. Needs the packages of requirements.txt, and neither the farm nor a network.

    python run.py "A text" "Another"     labels and logits
    python run.py --check                the same logits as where it was exported?
    python run.py --time 100             latency of so many calls, in milliseconds

Threads are set before the runtime is imported, and the process is bound to as many cores: as it was measured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SETTINGS: dict[str, Any] = json.loads((HERE / "settings.json").read_text(encoding="utf-8"))
TOLERANCE = 1e-4
"""Sums may be taken in another order on another processor; a wrong artifact shows in the first decimals."""


def bind(threads: int) -> None:
    """One thread a core: numerical libraries read these variables when they are imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        measured = [core for core in SETTINGS["cores"] if core in allowed]
        os.sched_setaffinity(0, (measured if len(measured) >= threads else allowed)[: max(threads, 1)])


class Classifier:
    """The tokenizer and one loaded artifact for each exported length; a text goes to the shortest that holds it."""

    def __init__(self) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
        self._load: Callable[[Path, dict[str, Any]], Any] = import_module("runtime").load
        self._loaded: dict[str, Any] = {}

    def logits(self, texts: Sequence[str], length: int | None = None) -> list[list[float]]:
        """One list of logits for each text, at its own length or the given exported one."""
        rows = []
        for text in texts:
            arrays = self.encode(text, length)
            rows.append([float(each) for each in self.call(arrays)[0]])
        return rows

    def encode(self, text: str, length: int | None = None) -> dict[str, Any]:
        """Token ids, padded to an exported length (the shortest that holds the text, unless given) and repeated to the
        exported batch size."""
        import numpy as np

        lengths = sorted(map(int, SETTINGS["artifacts"]))
        padding = SETTINGS["padding"]
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(length or lengths[-1], direction=padding["truncation_side"])
        if length is None:
            used = len(self._tokenizer.encode(text).ids)
            length = next(each for each in lengths if each >= used)
        self._tokenizer.enable_padding(
            length=length, pad_id=padding["id"], pad_token=padding["token"], direction=padding["side"]
        )
        encoding = self._tokenizer.encode(text)
        columns = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        batch = SETTINGS["batch_size"]
        return {name: np.array([columns[name]] * batch, dtype=np.int64) for name in SETTINGS["inputs"]}

    def call(self, arrays: dict[str, Any]) -> Any:
        """Logits `[batch, labels]` of arrays `[batch, length]`; the artifact is loaded on first use."""
        artifact = SETTINGS["artifacts"][str(arrays["input_ids"].shape[1])]
        if artifact not in self._loaded:
            self._loaded[artifact] = self._load(HERE / artifact, SETTINGS)
        return self._loaded[artifact](arrays)


def classify(classifier: Classifier, texts: Sequence[str]) -> None:
    """Print the label and the logits of each text."""
    labels = SETTINGS["labels"]
    for text, logits in zip(texts, classifier.logits(texts), strict=True):
        best = max(range(len(logits)), key=logits.__getitem__) if len(logits) > 1 else int(logits[0] > 0)
        name = labels[best] if best < len(labels) else str(best)
        print(f"{name}  {[round(each, 4) for each in logits]}  {text[:60]}")


def check(classifier: Classifier) -> int:
    """Compare every artifact with the logits that were computed when this was exported; 0 if they are the same."""
    expected = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))
    worst = dict.fromkeys((case["length"] for case in expected), 0.0)
    for case in expected:
        (found,) = classifier.logits([case["text"]], case["length"])
        apart = [abs(mine - theirs) for mine, theirs in zip(found, case["logits"], strict=True)]
        # What is no number compares as false with everything: it is as far off as can be.
        here = max(math.inf if math.isnan(each) else each for each in apart)
        worst[case["length"]] = max(worst[case["length"]], here)
    off = [str(length) for length, difference in worst.items() if difference > TOLERANCE]
    texts, lengths = len({case["text"] for case in expected}), ", ".join(map(str, worst))
    verdict = f"NOT the same at length {', '.join(off)}:" if off else "the same"
    print(f"{verdict} logits on {texts} texts, length {lengths}: largest difference {max(worst.values()):.2g}")
    return 1 if off else 0


def time_calls(classifier: Classifier, calls: int) -> None:
    """Print the median latency at each exported length, after as many calls that are thrown away."""
    import numpy as np

    for length in sorted(map(int, SETTINGS["artifacts"])):
        shape = (SETTINGS["batch_size"], length)
        arrays = {name: np.ones(shape, dtype=np.int64) for name in SETTINGS["inputs"]}
        taken = []
        for _ in range(2 * calls):
            started = time.perf_counter()
            classifier.call(arrays)
            taken.append(1e3 * (time.perf_counter() - started))
        print(f"{length} tokens: {statistics.median(taken[calls:]):.3g} ms")


def main() -> int:
    """Do what was asked for."""
    parser = argparse.ArgumentParser(description=f"{SETTINGS['method']}, exported from run {SETTINGS['run']}")
    parser.add_argument("texts", nargs="*")
    parser.add_argument("--check", action="store_true", help="compare with the logits stored on export")
    parser.add_argument("--time", type=int, metavar="CALLS", help="print the latency of so many calls")
    asked = parser.parse_args()
    bind(SETTINGS["threads"])
    classifier = Classifier()
    if asked.check:
        return check(classifier)
    if asked.time:
        time_calls(classifier, asked.time)
    else:
        classify(classifier, asked.texts or ["Works as it should. I would buy it again."])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
