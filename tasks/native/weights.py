"""Weights as the AMX encoder reads them: found by each family's names, quantized by column, laid out in tiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import e, log2, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from farm.errors import MethodUnsupportedError
from farm.records import ModelInfo

Floats = npt.NDArray[np.float32]

PANEL, INNER, TILE, LINE = 32, 64, 16, 64
"""Columns of a panel, inner size and columns of a tile, and the bytes that arrays are aligned to."""

LARGEST = 127
"""Of a quantized number."""

DISTILBERT_EPSILON = 1e-12
"""Of its norms, which its configuration does not state."""


@dataclass(frozen=True, slots=True)
class Names:
    """Where a family keeps its parameters. Layer names follow `layer` and the layer's number."""

    encoder: str
    layer: str
    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    up: str
    down: str
    output_norm: str
    head: str
    classifier: str
    head_activation: str
    counts_from_padding: bool = False
    """Whether positions count the tokens that are no padding, from the padding token's id + 1 on."""


_BERT_LAYER = {
    "layer": "encoder.layer",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "output_norm": "output.LayerNorm",
    "head_activation": "tanh",
}
_ROBERTA = Names(
    encoder="roberta",
    head="classifier.dense",
    classifier="classifier.out_proj",
    counts_from_padding=True,
    **_BERT_LAYER,
)

FAMILIES: Mapping[str, Names] = {
    "distilbert": Names(
        encoder="distilbert",
        layer="transformer.layer",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_output="attention.out_lin",
        attention_norm="sa_layer_norm",
        up="ffn.lin1",
        down="ffn.lin2",
        output_norm="output_layer_norm",
        head="pre_classifier",
        classifier="classifier",
        head_activation="relu",
    ),
    "bert": Names(encoder="bert", head="bert.pooler.dense", classifier="classifier", **_BERT_LAYER),  # type: ignore[arg-type]
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
}
"""The families that the encoder computes: learned positions, a norm after each half of a layer, exact GELU."""


@dataclass(frozen=True, slots=True)
class Packed:
    """One file's bytes, where each array begins in it, and the sizes that the encoder is told.

    `limits` are the longest sequence and how many token ids and types there are, which callers must keep.
    """

    data: bytes
    offsets: tuple[int, ...]
    sizes: Mapping[str, Any]
    limits: Mapping[str, int]


def pack(module: Any, model: ModelInfo) -> Packed:
    """Lay out all weights of a loaded module in the order in which the encoder reads them.

    Raises MethodUnsupportedError where the model's configuration is one that the encoder does not compute.
    """
    sizes = _sizes(module.config, model)
    config, padding = module.config, sizes["padding_id"]
    # Tokens that are no padding have the table's positions from the padding token's id + 1 on.
    length = config.max_position_embeddings - (padding + 1 if padding >= 0 else 0)
    limits = {"length": length, "vocabulary": config.vocab_size, "types": getattr(config, "type_vocab_size", 0)}
    parameters = {name: value.detach().float().numpy() for name, value in module.state_dict().items()}
    data, offsets = bytearray(), []
    for array in _arrays(parameters, FAMILIES[model.family], sizes):
        data.extend(bytes(-len(data) % LINE))
        offsets.append(len(data))
        data.extend(np.ascontiguousarray(array).tobytes())
    return Packed(bytes(data), tuple(offsets), sizes, limits)


def _sizes(config: Any, model: ModelInfo) -> dict[str, Any]:
    """The sizes that the encoder is told, by its names of them."""
    names = FAMILIES[model.family]
    sizes = {
        "layers": _first_of(config, "n_layers", "num_hidden_layers"),
        "hidden": _first_of(config, "dim", "hidden_size"),
        "heads": _first_of(config, "n_heads", "num_attention_heads"),
        "intermediate": _first_of(config, "hidden_dim", "intermediate_size"),
        "labels": len(model.labels),
        "tanh_head": names.head_activation == "tanh",
        "padding_id": config.pad_token_id if names.counts_from_padding else -1,
        "epsilon": DISTILBERT_EPSILON if model.family == "distilbert" else config.layer_norm_eps,
    }
    hidden, intermediate, width = sizes["hidden"], sizes["intermediate"], sizes["hidden"] // sizes["heads"]
    if hidden % INNER or intermediate % INNER or width % PANEL:
        raise MethodUnsupportedError(
            f"AMX kernels are for layers of multiples of {INNER} and heads of multiples of {PANEL}; those of "
            f"{model.name} are {hidden}, {intermediate} and {width} wide"
        )
    if getattr(config, "is_decoder", False):
        raise MethodUnsupportedError(f"AMX kernels let all tokens see each other; {model.name} is a decoder")
    activation = _first_of(config, "activation", "hidden_act")
    if activation != "gelu":
        raise MethodUnsupportedError(f"AMX kernels compute GELU; {model.name} has {activation}")
    return sizes


def _first_of(config: Any, *names: str) -> Any:
    """A setting that families call differently."""
    return next(getattr(config, name) for name in names if hasattr(config, name))


def _arrays(parameters: Mapping[str, Floats], names: Names, sizes: Mapping[str, Any]) -> Iterator[npt.NDArray[Any]]:
    """Every array in the encoder's order."""
    embeddings = f"{names.encoder}.embeddings"
    words, scales = quantize_rows(parameters[f"{embeddings}.word_embeddings.weight"])
    yield from (words, scales, parameters[f"{embeddings}.position_embeddings.weight"])
    types = parameters.get(f"{embeddings}.token_type_embeddings.weight")
    yield np.zeros((1, sizes["hidden"]), np.float32) if types is None or not len(types) else types
    yield from _pair(parameters, f"{embeddings}.LayerNorm")
    # Softmax is computed in powers of two.
    score = log2(e) / sqrt(sizes["hidden"] // sizes["heads"])
    for number in range(sizes["layers"]):
        layer = f"{names.encoder}.{names.layer}.{number}"
        projections = [_pair(parameters, f"{layer}.{each}") for each in (names.query, names.key, names.value)]
        projections[0] = (projections[0][0] * score, projections[0][1] * score)
        yield from _product(*(np.concatenate(parts) for parts in zip(*projections, strict=True)))
        yield from _product(*_pair(parameters, f"{layer}.{names.attention_output}"))
        yield from _pair(parameters, f"{layer}.{names.attention_norm}")
        yield from _product(*_pair(parameters, f"{layer}.{names.up}"))
        yield from _product(*_pair(parameters, f"{layer}.{names.down}"))
        yield from _pair(parameters, f"{layer}.{names.output_norm}")
    yield from _product(*_pair(parameters, names.head))
    yield from _pair(parameters, names.classifier)


def _pair(parameters: Mapping[str, Floats], name: str) -> tuple[Floats, Floats]:
    """The weight and the bias of a linear layer or a norm."""
    return parameters[f"{name}.weight"], parameters[f"{name}.bias"]


def _product(weight: Floats, bias: Floats) -> tuple[npt.NDArray[Any], ...]:
    quantized, scales = quantize_rows(weight)
    return as_panels(quantized), scales, bias


def quantize_rows(weight: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """Symmetric int8 of a matrix, by the largest magnitude of each row, and the scales of the rows."""
    largest = np.abs(weight).max(axis=1)
    scales = (np.where(largest > 0, largest, 1) / LARGEST).astype(np.float32)
    return np.rint(weight / scales[:, None]).astype(np.int8), scales


def as_panels(weight: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """A weight [columns, inner], as linear layers keep it, as [columns / 32, inner / 64, 2, 16, 16, 4]."""
    columns, inner = weight.shape
    parts = weight.reshape(columns // PANEL, PANEL // TILE, TILE, inner // INNER, INNER // 4, 4)
    return np.ascontiguousarray(parts.transpose(0, 3, 1, 4, 2, 5))
