"""Changing a model's shape changes none of its outputs."""

from __future__ import annotations

import torch
from small_models import VOCABULARY, small_bert, small_distilbert
from transformers import DistilBertConfig, DistilBertModel

from tasks.demo import widen
from tasks.widening import distilbert_from_bert


def _batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(5, len(VOCABULARY), (3, 20), generator=generator)
    lengths = torch.tensor([[20], [11], [3]])
    return {"input_ids": ids, "attention_mask": (torch.arange(20) < lengths).long()}


def test_widening_keeps_the_logits() -> None:
    small = small_distilbert()
    with torch.inference_mode():
        before, after = small(**_batch()).logits, widen(small)(**_batch()).logits
    assert before.std() > 0.05, "a model whose outputs are all alike would prove nothing"
    torch.testing.assert_close(after, before, atol=1e-4, rtol=0)


def test_widening_doubles_every_width_and_keeps_heads_layers_and_positions() -> None:
    small = small_distilbert()
    wide = widen(small)
    assert (wide.config.dim, wide.config.hidden_dim) == (2 * small.config.dim, 2 * small.config.hidden_dim)
    assert (wide.config.n_heads, wide.config.n_layers) == (small.config.n_heads, small.config.n_layers)
    query = "distilbert.transformer.layer.0.attention.q_lin.weight"
    assert wide.state_dict()[query].shape == (48, 48)
    assert wide.state_dict()["distilbert.embeddings.position_embeddings.weight"].shape == (32, 48)
    assert wide.state_dict()["classifier.weight"].shape == (2, 48)


def test_a_bert_encoder_as_distilbert_gives_the_same_hidden_states() -> None:
    bert = small_bert()
    config = DistilBertConfig(
        vocab_size=len(VOCABULARY), dim=24, hidden_dim=40, n_layers=2, n_heads=4, max_position_embeddings=32
    )
    distilbert = DistilBertModel(config).eval()
    distilbert.load_state_dict(distilbert_from_bert(bert.state_dict()))
    batch = _batch()
    with torch.inference_mode():
        expected = bert(**batch).last_hidden_state
        found = distilbert(**batch).last_hidden_state
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(found[real], expected[real], atol=1e-5, rtol=0)
