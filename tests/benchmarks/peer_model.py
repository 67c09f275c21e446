"""A model that both the farm and its peer can measure: BERT in the size of distilbert-base, with random weights."""

from __future__ import annotations

import json
import string
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SEED = 0


def ensure_model(folder: Path) -> Path:
    """The model's folder, as `save_pretrained` writes it, built where it is not there yet. Returns `folder`."""
    if not (folder / "tokenizer_config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _save_weights(folder)
        spelling_tokenizer().save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]"}))
    return folder


def spelling_tokenizer() -> Tokenizer:
    """A WordPiece tokenizer that knows single characters only: any English text becomes real tokens, with no data."""
    characters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = [*SPECIAL, *characters, *(f"##{character}" for character in characters)]
    tokenizer = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(token, SPECIAL.index(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer


def _save_weights(folder: Path) -> None:
    import torch
    from transformers import BertConfig, BertForSequenceClassification, logging

    logging.disable_progress_bar()
    torch.manual_seed(SEED)
    config = BertConfig(
        vocab_size=30_522,
        hidden_size=768,
        num_attention_heads=12,
        intermediate_size=3072,
        num_hidden_layers=6,
        max_position_embeddings=512,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
