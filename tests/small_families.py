"""A small random sequence classifier of every family, with a tokenizer, saved as a user would save it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_models import WORDS, vary_weights
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForSequenceClassification

from farm.quality import PARITY_LIMIT
from farm.records import ModelInfo, Workload
from tasks.method import Arrays, Loaded, find_method
from tasks.models import resolve_model
from tasks.progress import SilentProgress

LIKE_BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
LIKE_ROBERTA = ("<s>", "<pad>", "</s>", "<unk>")
PADDING = {LIKE_BERT: 0, LIKE_ROBERTA: 1}
"""The padding token's id in each."""

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "distilbert": {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4},
    "bert": SIZES,
    "roberta": {**SIZES, "type_vocab_size": 1, "pad_token_id": 1},
    "xlm-roberta": {**SIZES, "type_vocab_size": 1, "pad_token_id": 1},
    "camembert": {**SIZES, "type_vocab_size": 1, "pad_token_id": 1},
    "mpnet": {**SIZES, "pad_token_id": 1},
    # The embeddings of these two are narrower than their layers, and ALBERT's layers are one.
    "electra": {**SIZES, "embedding_size": 24},
    "albert": {**SIZES, "embedding_size": 16},
    # As version 3 is configured, with fewer buckets than positions.
    "deberta-v2": {
        **SIZES,
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
    },
    # The first layer sees everything, the second eight positions.
    "modernbert": {
        **SIZES,
        "layer_types": ["full_attention", "sliding_attention"],
        "local_attention": 8,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "cls_token_id": 2,
        "sep_token_id": 3,
    },
}
"""By family, as config.json names it. MiniLM models are of family bert."""

LARGEST_ERROR = 0.2
"""Of the norm of the logits, in reduced precision: models as narrow and as random as these lose up to 13 % to int8, and
a layer left out is 50 % and more."""

COUNT_FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")


def small_classifier(
    folder: Path, family: str, *, labels: int = 3, positions: int = 40, noise: float = 0.3, **changes: Any
) -> ModelInfo:
    """Save a random classifier that takes `positions` tokens into `folder`, with `changes` to its configuration.

    The wider its layers, the less `noise` its weights bear before attention hangs on a rounding.
    """
    torch.manual_seed(0)
    table = positions + 2 if family in COUNT_FROM_PADDING else positions
    special = _special_tokens(family)
    settings = {
        **SETTINGS[family],
        "vocab_size": len(special) + len(WORDS),
        "max_position_embeddings": table,
        "num_labels": labels,
        **changes,
    }
    module = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family, **settings)).eval()
    vary_weights(module, noise).save_pretrained(folder)
    _tokenizer(special).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": special[PADDING[special]]}))
    return resolve_model(str(folder), SilentProgress())


def some_inputs(model: ModelInfo, length: int, batch_size: int = 2) -> dict[str, np.ndarray]:
    """Random tokens; the last row ends with padding, and the second half is of type 1 where there are types."""
    first_word = 4
    random = np.random.default_rng(0)
    ids = random.integers(first_word, first_word + len(WORDS), (batch_size, length))
    mask = np.ones_like(ids)
    mask[-1, length - length // 3 :] = 0
    padding = PADDING[_special_tokens(model.family)]
    types = np.zeros_like(ids)
    types[:, length // 2 :] = 1
    arrays = {"input_ids": np.where(mask == 1, ids, padding), "attention_mask": mask, "token_type_ids": types}
    return {name: arrays[name] for name in model.input_names}


def prepared(method_id: str, model: ModelInfo, length: int, folder: Path, **options: Any) -> Loaded:
    """A method, prepared below `folder` and loaded for two rows of a length."""
    method, workload = find_method(method_id), Workload("cpu", 2, 2, length, options)
    method.check_model(model)
    artifact = folder / method_id
    artifact.mkdir()
    if method.depends_on(workload) is not None:
        method.prepare(model, workload, artifact)
    return method.load(model, workload, artifact)


def logits_of(call: Loaded, inputs: Arrays) -> np.ndarray:
    """What a loaded method answers, in memory of its own."""
    return call(inputs)["logits"].copy()


def assert_same(method_id: str, answered: np.ndarray, baseline: np.ndarray) -> None:
    """Logits `[2, labels]` are the baseline's, as far as the method promises, and the two rows' differ."""
    assert answered.shape == baseline.shape
    assert np.abs(baseline[0] - baseline[1]).max() > 100 * PARITY_LIMIT
    if find_method(method_id).exact:
        assert np.abs(answered - baseline).max() <= PARITY_LIMIT
    else:
        assert np.linalg.norm(answered - baseline) <= LARGEST_ERROR * np.linalg.norm(baseline)


def _special_tokens(family: str) -> tuple[str, ...]:
    return LIKE_ROBERTA if family in COUNT_FROM_PADDING else LIKE_BERT


def _tokenizer(special: tuple[str, ...]) -> Tokenizer:
    """Words as tokens, between the first and the last special token of a text."""
    vocabulary = {token: index for index, token in enumerate([*special, *WORDS])}
    unknown = next(token for token in special if "unk" in token.lower())
    first, last = ("<s>", "</s>") if "<s>" in special else ("[CLS]", "[SEP]")
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        special_tokens=[(token, vocabulary[token]) for token in (first, last)],
    )
    return tokenizer
