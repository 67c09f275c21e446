"""Exact changes of shape between encoders: BERT weights as DistilBERT, and DistilBERT to twice its width.

Both work on state dicts of PyTorch tensors and change no output. Widening is a function-preserving transformation in
the manner of Net2Net (Chen, Goodfellow, Shlens 2016, arXiv:1511.05641).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

State = Mapping[str, "Tensor"]

_BERT_TO_DISTILBERT = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}


def distilbert_from_bert(bert: State) -> dict[str, Tensor]:
    """Rename the state of a `BertModel` (no prefix) into that of a `DistilBertModel` (no prefix).

    DistilBERT has no token-type embeddings and no pooler. Type 0, which every token of a single text has, is added to
    the position embeddings; the pooler is dropped. The last hidden state is the same to rounding.
    """
    state = {
        "embeddings.word_embeddings.weight": bert["embeddings.word_embeddings.weight"],
        "embeddings.position_embeddings.weight": bert["embeddings.position_embeddings.weight"]
        + bert["embeddings.token_type_embeddings.weight"][0],
        "embeddings.LayerNorm.weight": bert["embeddings.LayerNorm.weight"],
        "embeddings.LayerNorm.bias": bert["embeddings.LayerNorm.bias"],
    }
    prefix = "encoder.layer."
    for name, tensor in bert.items():
        if name.startswith(prefix):
            layer, _, inside = name.removeprefix(prefix).partition(".")
            part, _, kind = inside.rpartition(".")
            state[f"transformer.layer.{layer}.{_BERT_TO_DISTILBERT[part]}.{kind}"] = tensor
    return state


def double_width(state: State, heads: int) -> dict[str, Tensor]:
    """Duplicate every feature of a `DistilBertForSequenceClassification` with `heads` attention heads.

    Hidden size d becomes 2d, the feed-forward h becomes 2h, head size s becomes 2s; `heads`, layers, vocabulary,
    positions and labels stay. Every hidden vector x becomes (x, x), except inside attention, where each head's
    s features are duplicated next to that head. The logits are the same to rounding, because

    - a layer that reads a duplicated vector halves its weights, so that its sums stay;
    - layer norms see the same mean and variance;
    - duplicated q and k double the dot product, attention divides by sqrt(2s) instead of sqrt(s), and q and k are
      scaled by 2**(-1/4) each: 2 * 2**(-1/2) / sqrt(2) = 1.
    """
    return {name: _widened(name, tensor, heads) for name, tensor in state.items()}


def _widened(name: str, tensor: Tensor, heads: int) -> Tensor:
    owner, _, kind = name.rpartition(".")
    part = owner.rpartition(".")[2]
    if part in ("word_embeddings", "position_embeddings"):
        return tensor.repeat(1, 2)
    if part == "classifier":
        return _halved_inputs(tensor) if kind == "weight" else tensor.clone()
    if part in ("q_lin", "k_lin", "v_lin"):
        rows = _halved_inputs(tensor) if kind == "weight" else tensor
        wide = _repeat_inside_heads(rows, heads)
        return wide if part == "v_lin" else wide * 2**-0.25
    if part == "out_lin" and kind == "weight":
        columns = _repeat_inside_heads(tensor.T, heads).T / 2
        return columns.repeat(2, 1)
    if kind == "weight" and tensor.dim() == 2:
        return _halved_inputs(tensor).repeat(2, 1)
    return tensor.repeat(2)


def _halved_inputs(weight: Tensor) -> Tensor:
    return weight.repeat(1, 2) / 2


def _repeat_inside_heads(rows: Tensor, heads: int) -> Tensor:
    # Attention cuts its rows into consecutive heads: the copy has to stand inside the same head as the original.
    by_head = rows.unflatten(0, (heads, rows.shape[0] // heads))
    doubled = by_head.repeat(1, 2, *[1] * (rows.dim() - 1))
    return doubled.flatten(0, 1).contiguous()
