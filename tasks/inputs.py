"""Text to the arrays a model is called with. Needs the tokenizers library only, neither PyTorch nor transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count as count_from
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from farm.errors import RequestError
from farm.records import ModelInfo

InputKind = Literal["full", "padded"]
TokenArrays = dict[str, npt.NDArray[np.int64]]


def build_inputs(
    model: ModelInfo, texts: Sequence[str], length: int, batch_size: int, *, kind: InputKind, count: int
) -> list[TokenArrays]:
    """`count` different inputs for timing, each a dict of the model's input names to int64 [batch_size, length].

    `full`: texts, joined until they fill the length, cut to it; no padding, so every position is a real token.
    `padded`: one text for each sequence, cut or padded to the length. Sequence i starts with text i; when all
    texts are used, they start over. Raises RequestError where the length is not one the model can take.
    """
    tokenizer = _tokenizer(model, length)
    sequences = range(count * batch_size)
    if kind == "full":
        encodings = [_filled(tokenizer, texts, start, length) for start in sequences]
    else:
        encodings = tokenizer.encode_batch([texts[index % len(texts)] for index in sequences])
    return [
        _arrays(model, encodings[start : start + batch_size]) for start in range(0, len(encodings), max(batch_size, 1))
    ]


def short_to_long(model: ModelInfo, texts: Sequence[str], count: int) -> list[str]:
    """`count` texts that stand for all by their lengths: the middle one of each `count`-th part, shortest part first.

    What padding costs depends on how long texts are: a few taken as they come would answer for themselves alone.
    """
    tokenizer = _tokenizer(model, model.max_length)
    tokenizer.no_padding()
    lengths = [len(encoding) for encoding in tokenizer.encode_batch(list(texts))]
    by_length = sorted(range(len(texts)), key=lambda index: (lengths[index], index))
    return [texts[by_length[(2 * part + 1) * len(texts) // (2 * count)]] for part in range(count)]


def encode_sentences(model: ModelInfo, sentences: Sequence[str], length: int) -> TokenArrays:
    """Sentences cut or padded to `length`: a dict of the model's input names to int64 [sentences, length]."""
    return _arrays(model, _tokenizer(model, length).encode_batch(list(sentences)))


def encode_singly(model: ModelInfo, texts: Sequence[str]) -> list[TokenArrays]:
    """Each text by itself, cut where the model takes no more, not padded: int64 [1, its own length] by input name."""
    tokenizer = _tokenizer(model, model.max_length)
    tokenizer.no_padding()
    return [_arrays(model, [encoding]) for encoding in tokenizer.encode_batch(list(texts))]


def pad_further(model: ModelInfo, encoded: TokenArrays, length: int) -> TokenArrays:
    """The same sequences with padding added on the right up to `length`, which changes no answer of the model."""
    padding = {"input_ids": padding_settings(model, length)["id"]}
    return {
        name: np.pad(array, ((0, 0), (0, length - array.shape[1])), constant_values=padding.get(name, 0))
        for name, array in encoded.items()
    }


def padding_settings(model: ModelInfo, length: int) -> dict[str, Any]:
    """How texts are padded and cut: the padding token and its id, and on which side each happens."""
    tokenizer = _tokenizer(model, length)
    padding, truncation = tokenizer.padding or {}, tokenizer.truncation or {}
    return {
        "token": padding["pad_token"],
        "id": padding["pad_id"],
        "side": padding["direction"],
        "truncation_side": truncation["direction"],
    }


def _filled(tokenizer: Tokenizer, texts: Sequence[str], start: int, length: int) -> Encoding:
    if not any(text.strip() for text in texts):
        raise RequestError("inputs: there is no text to fill the length with")
    joined = texts[start % len(texts)]
    for following in count_from(start + 1):
        encoding = tokenizer.encode(joined)
        filled = sum(encoding.attention_mask)
        if filled == length:
            break
        if following == start + len(texts) and filled <= tokenizer.num_special_tokens_to_add(is_pair=False):
            raise RequestError("inputs: the model's tokenizer finds no token in any of the texts; give others")
        joined = f"{joined} {texts[following % len(texts)]}"
    return encoding


def _arrays(model: ModelInfo, encodings: Sequence[Encoding]) -> TokenArrays:
    columns = {
        "input_ids": [encoding.ids for encoding in encodings],
        "attention_mask": [encoding.attention_mask for encoding in encodings],
        "token_type_ids": [encoding.type_ids for encoding in encodings],
    }
    return {name: np.array(columns[name], dtype=np.int64) for name in model.input_names}


def _tokenizer(model: ModelInfo, length: int) -> Tokenizer:
    """The model's tokenizer, set to give exactly `length` tokens."""
    folder = Path(model.folder)
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    # The library raises plain Exception for a file it cannot read.
    except Exception as error:
        raise RequestError(f"model {model.name}: tokenizer.json cannot be read: {error}; save it again") from error
    shortest = tokenizer.num_special_tokens_to_add(is_pair=False) + 1
    if not shortest <= length <= model.max_length:
        raise RequestError(
            f"length {length}: {model.name} takes lengths from {shortest} to {model.max_length}; change lengths"
        )
    settings = _read_json(folder / "tokenizer_config.json")
    pad_token, pad_id = _padding(tokenizer, settings, folder, model.name)
    direction = settings.get("padding_side", "right")
    tokenizer.enable_truncation(length, direction=settings.get("truncation_side", "right"))
    tokenizer.enable_padding(length=length, pad_id=pad_id, pad_type_id=0, pad_token=pad_token, direction=direction)
    return tokenizer


def _padding(tokenizer: Tokenizer, settings: dict[str, Any], folder: Path, name: str) -> tuple[str, int]:
    """The padding token and its id, as the tokenizer's settings name it, else the model's, else tokenizer.json."""
    stated = settings.get("pad_token")
    token = stated.get("content") if isinstance(stated, dict) else stated
    if token is not None and (token_id := tokenizer.token_to_id(token)) is not None:
        return token, token_id
    token_id = _read_json(folder / "config.json").get("pad_token_id")
    if token_id is not None and (token := tokenizer.id_to_token(token_id)) is not None:
        return token, token_id
    if tokenizer.padding is not None:
        return tokenizer.padding["pad_token"], tokenizer.padding["pad_id"]
    raise RequestError(f"model {name}: no padding token; set pad_token in tokenizer_config.json")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}
