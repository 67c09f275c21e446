"""A model that is nothing but a tokenizer, with texts to match: what a run of control methods alone needs.

Controls never look at the weights, so that checking a machine needs neither the demo model nor a network.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

LENGTH = 8
"""Tokens per text: controls take as long whatever they are given."""

_WORDS = ("[PAD]", "[UNK]", "good", "bad", "camera", "battery")
_TEXTS = "text,label\ngood camera,1\nbad battery,0\n"


def write_control_model(folder: Path) -> Path:
    """Write the model into `folder`, which is made, and return it: a sequence classifier of two labels by its files."""
    folder.mkdir(parents=True)
    config = {
        "architectures": ["DistilBertForSequenceClassification"],
        "model_type": "distilbert",
        "max_position_embeddings": LENGTH,
        "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(_WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file({"weight": np.zeros(1, np.float32)}, str(folder / "model.safetensors"))
    return folder


def write_control_texts(path: Path) -> Path:
    """Write labelled texts, as an accuracy data set is given, to `path` and return it."""
    path.write_text(_TEXTS, encoding="utf-8")
    return path
