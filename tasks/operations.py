"""How much work one call of a model is: operations and bytes, counted from its configuration. Pure.

Matrix products alone are counted, two operations for a multiply-add, as torch.utils.flop_counter does. Norms, softmax
and activations come to about a hundredth of them, so a time computed from these counts is one that no kernel can beat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PRODUCTS = ("linear", "attention")
"""The kinds of matrix products: of activations with weights, and of activations with each other."""

BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "int8": 1, "fp8": 1}
"""Of one number in each precision."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What decides how many products an encoder with a classification head makes; defaults are BERT's."""

    layers: int
    hidden: int
    intermediate: int
    """Width of the feed-forward network."""
    labels: int
    vocabulary: int
    embedding: int
    """Width of the token embeddings."""
    projected: bool = False
    """Whether a product takes the embeddings to the hidden width."""
    distinct_layers: int | None = None
    """Layers with weights of their own, where others share theirs (ALBERT)."""
    gated: bool = False
    """Whether the feed-forward network's first product is twice as wide, one half to gate the other (ModernBERT)."""
    windows: tuple[int | None, ...] = ()
    """By layer, how many tokens to either side are attended to; None, and no entry, is all (ModernBERT)."""
    positions: int = 0
    """Rows of relative positions that every layer multiplies with its queries and keys (DeBERTa)."""
    position_projections: int = 0
    """Products per layer of those rows with weights: the same in every call."""
    query_positions: bool = False
    """Whether queries meet the positions (DeBERTa's c2p)."""
    key_positions: bool = False
    """Whether keys do (p2c)."""
    convolution: int = 0
    """Weights of a convolution beside the first layer (DeBERTa-v2 xlarge)."""
    first_token_alone: bool = True
    """Whether the head reads the first token of the last layer and no other."""

    @property
    def feed_forward(self) -> int:
        """Weights of one layer's feed-forward network."""
        return (3 if self.gated else 2) * self.hidden * self.intermediate

    @property
    def head(self) -> int:
        """Weights of the classification head: in all families a square product, then that of the labels."""
        return self.hidden * (self.hidden + self.labels)


@dataclass(frozen=True, slots=True)
class Work:
    """What one call must do: operations of products with weights and of attention's, and the numbers it must read.

    `fixed` are operations on weights alone. They give the same in every call, so that an exact rewrite can make them
    once: a model that does not has made them too, and they are in none of the other counts.
    """

    linear: int
    attention: int
    fixed: int
    numbers_read: int

    @property
    def operations(self) -> int:
        """Those of a call."""
        return self.linear + self.attention

    def by_precision(self, shares: Mapping[str, Mapping[str, float]]) -> dict[str, int]:
        """Operations by the precision they run in, given the shares of precisions in each of `PRODUCTS`."""
        counted: dict[str, int] = {}
        for product, operations in zip(PRODUCTS, (self.linear, self.attention), strict=True):
            for precision, share in shares[product].items():
                counted[precision] = counted.get(precision, 0) + round(share * operations)
        return counted


def architecture_of(config: Mapping[str, Any], labels: int) -> Architecture | None:
    """The architecture that a model's config.json describes; None where it does not say enough to count."""
    family = config.get("model_type")
    sizes = {
        "layers": config.get("n_layers", config.get("num_hidden_layers")),
        "hidden": config.get("dim", config.get("hidden_size")),
        "intermediate": config.get("hidden_dim", config.get("intermediate_size")),
        "vocabulary": config.get("vocab_size"),
    }
    if not all(isinstance(size, int) and size > 0 for size in sizes.values()):
        return None
    special = {"albert": _albert, "electra": _electra, "modernbert": _modernbert, "deberta-v2": _deberta}
    own = special[family](config) if family in special else {}
    return Architecture(**({"labels": labels, "embedding": sizes["hidden"]} | sizes | own))


def _albert(config: Mapping[str, Any]) -> dict[str, Any]:
    inner = config.get("inner_group_num", 1)
    return {
        "layers": config["num_hidden_layers"] * inner,
        "distinct_layers": config.get("num_hidden_groups", 1) * inner,
        "embedding": config.get("embedding_size", 128),
        "projected": True,
    }


def _electra(config: Mapping[str, Any]) -> dict[str, Any]:
    width = config.get("embedding_size", 128)
    return {"embedding": width, "projected": width != config["hidden_size"]}


def _modernbert(config: Mapping[str, Any]) -> dict[str, Any]:
    every = config.get("global_attn_every_n_layers", 3)
    usual = [
        "sliding_attention" if number % every else "full_attention" for number in range(config["num_hidden_layers"])
    ]
    side = config.get("local_attention", 128) // 2
    return {
        "gated": True,
        "windows": tuple(side if kind == "sliding_attention" else None for kind in config.get("layer_types") or usual),
        "first_token_alone": config.get("classifier_pooling", "cls") == "cls",
    }


def _deberta(config: Mapping[str, Any]) -> dict[str, Any]:
    hidden = config["hidden_size"]
    width = config.get("embedding_size", hidden)
    convolution = config.get("conv_kernel_size", 0) * hidden * hidden // config.get("conv_groups", 1)
    own = {
        "embedding": width,
        "projected": width != hidden,
        "convolution": convolution,
        # The convolution takes what the first token needs from its neighbours too.
        "first_token_alone": not convolution or config["num_hidden_layers"] > 1,
    }
    if not config.get("relative_attention", False):
        return own
    farthest = config.get("max_relative_positions", -1)
    farthest = farthest if farthest > 0 else config["max_position_embeddings"]
    buckets = config.get("position_buckets", -1)
    kinds = config.get("pos_att_type") or []
    kinds = [kind.strip() for kind in kinds.lower().split("|")] if isinstance(kinds, str) else kinds
    directions = {"query_positions": "c2p" in kinds, "key_positions": "p2c" in kinds}
    projections = 2 if config.get("share_att_key", False) else sum(directions.values())
    positions = 2 * (buckets if buckets > 0 else farthest)
    return own | directions | {"positions": positions, "position_projections": projections}


def count_work(model: Architecture, batch: int, length: int, *, pruned: bool = False) -> Work:
    """The work of one call on `batch` sequences of `length` tokens.

    `pruned`: the last layer is computed for the first token alone, with the keys and values of all, where the head
    reads no other. Of a model with attention windows only the pairs inside them are counted, though most runtimes
    compute all and mask the others.
    """
    tokens = batch * length
    linear = tokens * (model.embedding * model.hidden if model.projected else 0) + tokens * model.convolution
    attention = 0
    for layer in range(model.layers):
        window = model.windows[layer] if layer < len(model.windows) else None
        first_alone = pruned and model.first_token_alone and layer == model.layers - 1
        queries = batch if first_alone else tokens
        keys = batch * min(length, window + 1) if first_alone and window is not None else tokens
        pairs = keys if first_alone else batch * _pairs(length, window)
        linear += 2 * (queries + keys) * model.hidden**2 + queries * model.feed_forward
        attention += 2 * pairs * model.hidden
        met = queries * model.query_positions + keys * model.key_positions
        attention += met * model.positions * model.hidden
    linear += batch * model.head
    fixed = model.layers * model.position_projections * model.positions * model.hidden**2
    return Work(2 * linear, 2 * attention, 2 * fixed, _numbers_read(model, tokens))


def _pairs(length: int, window: int | None) -> int:
    """Pairs of tokens that attend to each other: all, or those at most `window` apart."""
    if window is None or window >= length:
        return length**2
    return length * (2 * window + 1) - window * (window + 1)


def _numbers_read(model: Architecture, tokens: int) -> int:
    """Weights, each once, and embeddings' rows; biases, norms and rows of positions are less than a hundredth.

    Layers that share weights read them once, for the least that must come from memory is counted.
    """
    layers = model.layers if model.distinct_layers is None else model.distinct_layers
    rows = min(tokens, model.vocabulary) * model.embedding
    projection = model.embedding * model.hidden if model.projected else 0
    positions = model.layers * (model.query_positions + model.key_positions) * model.positions * model.hidden
    weights = layers * (4 * model.hidden**2 + model.feed_forward) + projection + model.convolution + model.head
    return weights + rows + positions
