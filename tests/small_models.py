"""Small random models with a tokenizer, saved as a user would save them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertForSequenceClassification

WORDS = ["good", "bad", "camera", "battery", "the", "is", "very", "not", "picture", "sound", ".", ","]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = {token: index for index, token in enumerate(SPECIAL + WORDS)}

Model = TypeVar("Model", bound=torch.nn.Module)


def small_tokenizer() -> Tokenizer:
    """A BERT-like tokenizer of a dozen words."""
    tokenizer = Tokenizer(models.WordPiece(VOCABULARY, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def small_distilbert(seed: int = 0) -> DistilBertForSequenceClassification:
    """A random classifier: 2 layers, hidden size 24, 4 heads, 32 positions."""
    torch.manual_seed(seed)
    config = DistilBertConfig(
        vocab_size=len(VOCABULARY), dim=24, hidden_dim=40, n_layers=2, n_heads=4, max_position_embeddings=32
    )
    model = DistilBertForSequenceClassification(config).eval()
    return vary_weights(model)


def small_bert(seed: int = 0) -> BertModel:
    """A random BERT encoder: 2 layers, hidden size 24, 4 heads, 32 positions."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32,
    )
    return vary_weights(BertModel(config).eval())


def vary_weights(model: Model, noise: float = 0.3) -> Model:
    """Add noise: fresh models have zero biases and unit norms, which would hide a mistake in handling them."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * noise)
    return model


def save_model(folder: Path, **changes: Any) -> Path:
    """Save a small DistilBERT with its tokenizer into `folder`, with `changes` to its config.json; None removes."""
    small_distilbert().save_pretrained(folder)
    small_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]"}))
    config = json.loads((folder / "config.json").read_text()) | changes
    kept = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder
