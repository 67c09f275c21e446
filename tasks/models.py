"""The model of a run: the demo, a local folder or a hub id, checked and identified by the hash of its files.

Reads configuration only: imports neither PyTorch nor transformers, opens no pickle, runs no code of the model.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from farm.errors import RequestError
from farm.records import ModelInfo, Pooling
from tasks.demo import ensure_demo
from tasks.digests import remembered_sha256
from tasks.operations import Architecture, architecture_of
from tasks.progress import Progress

# A hub repository may hold the same weights in other formats, in folders beside these.
_HUB_FILES = ["config.json", "model*.safetensors", "model.safetensors.index.json", "tokenizer.json"]
_HUB_FILES += ["tokenizer_config.json"]
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")

_TOKENS = ("input_ids", "attention_mask")
_TOKEN_TYPES = "token_type_ids"
_INPUTS_BY_FAMILY = {
    "distilbert": _TOKENS,
    "mpnet": _TOKENS,
    "roberta": _TOKENS,
    "xlm-roberta": _TOKENS,
    "camembert": _TOKENS,
    "modernbert": _TOKENS,
    "bert": (*_TOKENS, _TOKEN_TYPES),
    "electra": (*_TOKENS, _TOKEN_TYPES),
    "albert": (*_TOKENS, _TOKEN_TYPES),
    "deberta-v2": (*_TOKENS, _TOKEN_TYPES),
}

_TOKEN_TYPES_UNLESS_STATED = {"deberta-v2": 0}
"""How many token types a config.json means that names none; two in the other families."""

# Fairseq's heritage: positions are counted from the padding token's id + 1, so that no token has the table's first.
_COUNT_FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")
_FAIRSEQ_PADDING = 1


def resolve_model(name: str, progress: Progress) -> ModelInfo:
    """Find the model called `name`: "demo" (built on first use), a local folder, or an id on the Hugging Face hub.

    Raises RequestError, saying what to do, where it cannot be had or is not a sequence classifier with safetensors
    weights and a tokenizer.json.
    """
    folder = _locate(name, progress)
    config = _read_config(folder)
    family = _check_architecture(folder, config)
    _check_tokenizer(folder)
    weights = _check_weights(folder)
    return ModelInfo(
        name=name,
        sha256=_content_sha256(folder, weights),
        folder=str(folder),
        family=family,
        max_length=_max_length(folder, config),
        input_names=_input_names(config),
        labels=_labels(config),
        weight_bytes=sum(path.stat().st_size for path in weights),
        pooling=_pooling(config),
    )


def read_architecture(model: ModelInfo) -> Architecture | None:
    """What decides how many operations the model takes; None where its configuration does not say enough."""
    return architecture_of(_read_config(Path(model.folder)), len(model.labels))


def _locate(name: str, progress: Progress) -> Path:
    if name == "demo":
        return ensure_demo(progress)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if folder.exists():
        raise RequestError(f"model {name}: this is a file; name the folder that holds config.json")
    if name.startswith((".", "~")) or folder.is_absolute() or not _HUB_ID.fullmatch(name):
        raise RequestError(f"model {name}: there is no such folder; name 'demo', a model's folder, or a hub id")
    return _download(name, progress)


def _download(hub_id: str, progress: Progress) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    stage = f"fetch {hub_id}"
    progress.step(stage, 0, 0)
    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=_HUB_FILES))
    # Its errors are OSErrors (of a dozen kinds, network and HTTP included) and ValueErrors (of malformed ids).
    except (OSError, ValueError) as error:
        first_line = str(error).strip().partition("\n")[0] or type(error).__name__
        raise RequestError(
            f"model {hub_id}: there is no such folder, and the Hugging Face hub did not give it: {first_line} "
            "(check the id and the network, run 'hf auth login' for a private model, or name a local folder)"
        ) from error
    progress.step(stage, 1, 1)
    return folder


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RequestError(
            f"model {folder}: has no config.json; name the folder that model.save_pretrained(...) wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise RequestError(f"model {folder}: config.json cannot be read: {error}; save the model again") from error
    if not isinstance(config, dict):
        raise RequestError(f"model {folder}: config.json is not a model's configuration; save the model again")
    return config


def _check_architecture(folder: Path, config: Mapping[str, Any]) -> str:
    """The model's family, if it is a sequence classifier of a family whose inputs are known."""
    if "auto_map" in config:
        raise RequestError(
            f"model {folder}: needs code of its own (auto_map in config.json), which is never run here; "
            "use a model whose architecture is part of transformers"
        )
    architectures = config.get("architectures") or []
    if not any(str(architecture).endswith("ForSequenceClassification") for architecture in architectures):
        raise RequestError(
            f"model {folder}: is {', '.join(map(str, architectures)) or 'of no stated architecture'}, not a "
            "...ForSequenceClassification; fine-tune it as a sequence classifier first"
        )
    family = str(config.get("model_type", ""))
    if family not in _INPUTS_BY_FAMILY:
        raise RequestError(
            f"model {folder}: family '{family}' is not supported; supported are {', '.join(sorted(_INPUTS_BY_FAMILY))}"
        )
    return family


def _check_tokenizer(folder: Path) -> None:
    if not (folder / "tokenizer.json").is_file():
        raise RequestError(
            f"model {folder}: has no tokenizer.json; make one with "
            f"AutoTokenizer.from_pretrained('{folder}').save_pretrained('{folder}')"
        )


def _check_weights(folder: Path) -> list[Path]:
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = next(folder.glob("*.bin"), None)
        has = f"only pickled weights ({pickled.name}), which can run code and are never opened" if pickled else "none"
        raise RequestError(
            f"model {folder}: needs safetensors weights, but has {has}; load it where you trust it and save it with "
            "model.save_pretrained(...)"
        )
    for path in weights:
        try:
            with safe_open(path, framework="np"):
                pass
        except (OSError, SafetensorError) as error:
            raise RequestError(f"model {folder}: {path.name} is damaged ({error}); fetch it again") from error
    return weights


def _content_sha256(folder: Path, weights: list[Path]) -> str:
    """Hash over the names and contents of everything that decides the model's outputs."""
    settings = [folder / name for name in ("config.json", "tokenizer.json", "tokenizer_config.json")]
    paths = sorted([path for path in settings if path.is_file()] + weights)
    listing = "".join(f"{path.name} {remembered_sha256(path)}\n" for path in paths)
    return hashlib.sha256(listing.encode()).hexdigest()


def _max_length(folder: Path, config: Mapping[str, Any]) -> int:
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int):
        raise RequestError(f"model {folder}: config.json states no max_position_embeddings; save the model again")
    if config["model_type"] not in _COUNT_FROM_PADDING:
        return positions
    stated = config.get("pad_token_id")
    # MPNet's own code ignores what its configuration says.
    padding = _FAIRSEQ_PADDING if stated is None or config["model_type"] == "mpnet" else int(stated)
    return positions - padding - 1


def _input_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Token types are left out where there are fewer than two: a model takes all zeros then by itself."""
    family = config["model_type"]
    types = config.get("type_vocab_size", _TOKEN_TYPES_UNLESS_STATED.get(family, 2))
    return tuple(name for name in _INPUTS_BY_FAMILY[family] if name != _TOKEN_TYPES or types >= 2)


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    # transformers leaves id2label out where labels have no names, and then there are two unless the config counts them.
    count = config.get("num_labels") or 2
    names = config.get("id2label") or {str(index): f"LABEL_{index}" for index in range(count)}
    return tuple(str(names[index]) for index in sorted(names, key=int))


def _pooling(config: Mapping[str, Any]) -> Pooling:
    """What the classification head reads. Only ModernBERT leaves the choice."""
    return "mean" if config["model_type"] == "modernbert" and config.get("classifier_pooling") == "mean" else "first"
