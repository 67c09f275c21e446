"""The model as an ONNX graph: exported, and fused ahead of time by ONNX Runtime's transformer optimizer."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

from farm.errors import MethodUnsupportedError
from farm.records import Device, ModelInfo, Workload

GRAPH = "model.onnx"
FACTS = "graph.json"
FACTS_VERSION = 3
"""Raise it when graphs are made or described in another way, so that those in a cache are made anew."""

OPSET = 17

BERT_LIKE = ("bert", "distilbert", "roberta", "xlm-roberta", "electra", "camembert")
"""Families whose exported attention the optimizer's `bert` patterns match, layer by layer."""

Attention = Literal["merged", "separate"]
"""`merged`: one operator from hidden states to attention's output, its three projections inside.
`separate`: the projections stay matrix products of their own, and one operator does the rest."""


@dataclass(frozen=True)
class Pruning:
    """How many operators became smaller, and the multiply-adds with weights that one call then needs."""

    operators: int
    multiply_adds: int


@dataclass(frozen=True)
class GraphFacts:
    """What was found while making a graph: the model's inputs and layers, in how many of these attention was fused
    and in how many it must have been, what pruning left.

    `notes` say in a sentence each what could not be done for this model.
    """

    inputs: tuple[str, ...]
    layers: int
    fused_attention: int = 0
    expected_attention: int = 0
    pruning: Pruning | None = None
    notes: tuple[str, ...] = ()
    labels: int = 0

    def save(self, folder: Path) -> None:
        """Write them beside the graph."""
        (folder / FACTS).write_text(json.dumps(asdict(self), indent=1))


def load_facts(folder: Path) -> GraphFacts:
    """Read what `GraphFacts.save` wrote."""
    stored = json.loads((folder / FACTS).read_text())
    pruning = stored["pruning"] and Pruning(**stored["pruning"])
    typed = {"inputs": tuple(stored["inputs"]), "notes": tuple(stored["notes"]), "pruning": pruning}
    return GraphFacts(**stored | typed)


def export_graph(model: ModelInfo, target: Path) -> int:
    """Write the model as an ONNX graph with free batch and sequence axes; return its number of layers.

    Eager attention is the only one whose exported pattern the optimizer fuses.
    """
    import torch

    from tasks.pytorch import load_module

    module = load_module(model, attention="eager")
    names = list(model.input_names)
    example = {name: torch.ones((2, 16), dtype=torch.long) for name in names}
    axes = {name: {0: "batch", 1: "sequence"} for name in names}
    with torch.inference_mode(), warnings.catch_warnings():
        # The exporter by tracing is deprecated, yet the only one whose attention ONNX Runtime's optimizer fuses.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (),
            str(target),
            kwargs=example,
            input_names=names,
            output_names=["logits"],
            dynamic_axes={**axes, "logits": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
    return int(module.config.num_hidden_layers)


def export_pruned_graph(method_id: str, model: ModelInfo, workload: Workload, target: Path) -> tuple[int, Pruning]:
    """As `export_graph` at the workload's shape, with the last layer for the first token alone; return the number of
    layers, and what pruning left.

    Raises MethodUnsupportedError, naming the method, where more than that token is read.
    """
    import torch

    from tasks.first_token import keep_first_token
    from tasks.pytorch import load_module

    module = load_module(model, attention="eager")
    names = list(model.input_names)
    example = tuple(torch.ones((workload.batch_size, workload.length), dtype=torch.long) for _ in names)

    class Positional(torch.nn.Module):
        """Takes tensors in the order of the model's inputs and returns bare logits: a trace carries nothing else."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, *tensors: Any) -> Any:
            return self.inner(**dict(zip(names, tensors, strict=True))).logits

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruned = torch.export.export(Positional().eval(), example).module()
        shrunk = Pruning(keep_first_token(pruned), _work_with_weights(pruned.graph))
        if not shrunk.operators:
            raise MethodUnsupportedError(
                f"{method_id}: {model.name} reads more than the first token of its last layer; nothing can be left out"
            )
        # The exporter cannot switch an exported program to evaluation; a trace of it needs no switching.
        traced = torch.jit.trace(pruned, example, check_trace=False)
        torch.onnx.export(
            traced, example, str(target), input_names=names, output_names=["logits"], opset_version=OPSET, dynamo=False
        )
    return int(module.config.num_hidden_layers), shrunk


def fuse_graph(model: ModelInfo, exported: Path, device: Device, attention: Attention = "merged") -> Any:
    """Apply the transformer optimizer; return it, holding the fused graph (`.model`, `.save_model_to_file`).

    Heads and width come from the model, not from guesses.
    """
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    config = _read_json(Path(model.folder) / "config.json")
    options = FusionOptions("bert")
    options.use_multi_head_attention = attention == "separate"
    # Without this the mask becomes the number of tokens, which is right only where padding stands behind them.
    tokenizer = _read_json(Path(model.folder) / "tokenizer_config.json")
    options.use_raw_attention_mask(tokenizer.get("padding_side") == "left")
    return optimizer.optimize_model(
        str(exported),
        model_type="bert",
        num_heads=config.get("num_attention_heads", config.get("n_heads", 0)),
        hidden_size=config.get("hidden_size", config.get("dim", 0)),
        optimization_options=options,
        opt_level=0,
        use_gpu=device == "cuda",
    )


def describe_fusion(model: ModelInfo, layers: int, optimizer: Any, pruning: Pruning | None = None) -> GraphFacts:
    """The facts of a fused graph, with a note where attention stayed in parts. A pruned last layer does so anyway."""
    statistics = optimizer.get_fused_operator_statistics()
    attention = statistics.get("Attention", 0) + statistics.get("MultiHeadAttention", 0)
    within_reach = layers - 1 if pruning else layers
    expected = within_reach if model.family in BERT_LIKE else 0
    notes = () if attention >= within_reach else (_unfused(model.family, attention, layers),)
    return GraphFacts(tuple(model.input_names), layers, attention, expected, pruning, notes, len(model.labels))


def _work_with_weights(graph: Any) -> int:
    """Multiply-adds of an exported graph's linear layers: results times the width of what they read."""
    linear = [node for node in graph.nodes if str(node.target) == "aten.linear.default"]
    return sum(prod(node.meta["val"].shape) * int(node.args[0].meta["val"].shape[-1]) for node in linear)


def _unfused(family: str, fused: int, layers: int) -> str:
    return (
        f"attention is fused in {fused} of {layers} layers: ONNX Runtime's optimizer has no pattern for the attention "
        f"of a {family} graph, which runs as separate operators"
    )


def _read_json(path: Path) -> Mapping[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content if isinstance(content, dict) else {}
