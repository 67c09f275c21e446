"""What an OpenVINO model really executes, from the runtime's own graph: each product, its arithmetic and size. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from farm.errors import ProofFailedError
from tasks.operations import Architecture, count_work

PRECISIONS: Mapping[str, str] = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
"""How the runtime spells the types of what a node reads, and how the farm does."""

LEAST_QUANTIZED = 0.95
"""Share of the multiplications by weights that must run on int8: a small classifier may stay in floating point."""

LEAST_PRUNED = 0.5
"""Share of what pruning can save that must be saved: a family whose queries, keys and values are one product
(ModernBERT) computes the queries of all tokens."""

FUSED = "ScaledDotProductAttention"
"""In the names of the nodes that attention was fused from; its softmax and both products are then one Subgraph."""

Tensor = tuple[str, tuple[int, ...]]
"""Element type and shape; the shape is empty where it is left open, too."""


@dataclass(frozen=True, slots=True)
class ExecutedNode:
    """A node of the runtime's own graph: type, precision and kernel as it names them, and nodes it was made from."""

    kind: str
    precision: str
    kernel: str
    read: tuple[Tensor, ...] = ()
    written: tuple[int, ...] | None = None
    origin: str = ""

    @property
    def multiplies_weights(self) -> bool:
        """Whether it is a product with weights; products with constants of a rank of 3 are part of attention."""
        return self.kind == "FullyConnected" and len(self.read[1][1]) <= 2

    @property
    def multiply_adds(self) -> int:
        """Of a node that is one product."""
        return prod(self.written) * self.read[0][1][-1] if self.written and self.read[0][1] else 0


def executed_nodes(runtime_model: Any) -> list[ExecutedNode]:
    """The nodes of what `CompiledModel.get_runtime_model` returned, in the order of their execution."""
    return [_executed(node) for node in runtime_model.get_ordered_ops()]


def linear_work(nodes: Iterable[ExecutedNode]) -> dict[str, int]:
    """Multiply-adds of the products with weights, by the precision that the runtime says it executes them in."""
    work: Counter[str] = Counter()
    for node in nodes:
        if node.multiplies_weights:
            work[PRECISIONS.get(node.precision, node.precision)] += node.multiply_adds
    return dict(sorted(work.items()))


def attention_work(nodes: Iterable[ExecutedNode]) -> dict[str, int]:
    """Multiply-adds of the products between activations, by the type of the operands that reach them."""
    work: Counter[str] = Counter()
    for node in nodes:
        if node.kind == "MatMul" or (node.kind == "FullyConnected" and not node.multiplies_weights):
            work[_type(node.read[0])] += node.multiply_adds
        elif FUSED in node.origin and len(node.read) > 2 and node.read[1][1]:
            # Queries, transposed keys, perhaps a mask, values: as many multiply-adds before the softmax as after it.
            queries, keys, *_, values = node.read
            for operand in (queries, values):
                work[_type(operand)] += prod(queries[1]) * keys[1][-1]
    return dict(sorted(work.items()))


def shares(work: Mapping[str, int]) -> dict[str, float]:
    """Each part of the whole; empty where there is nothing."""
    total = sum(work.values())
    return {name: count / total for name, count in work.items()} if total else {}


def check_precisions(precision: str, linear: Mapping[str, float], attention: Mapping[str, float]) -> None:
    """Raise ProofFailedError where products ran in another precision than the method's.

    What int8 and BF16 leave attention in is theirs to choose, and counted as it was; FP32 leaves nothing.
    """
    mine = linear.get(precision, 0.0)
    if mine < (LEAST_QUANTIZED if precision == "int8" else 1.0):
        raise ProofFailedError(f"{mine:.0%} of the multiplications by weights ran in {precision}: {dict(linear)}")
    if precision == "fp32" and set(attention) - {"fp32"}:
        raise ProofFailedError(f"attention ran in {', '.join(attention)}, not in fp32")


def check_pruning(work: Mapping[str, int], model: Architecture | None, shape: Sequence[int]) -> None:
    """Raise ProofFailedError where the multiply-adds with weights are those of a model that was not pruned.

    `shape` is batch size and length. A model that cannot be counted is not judged.
    """
    if model is None:
        return
    whole, pruned = (count_work(model, shape[0], shape[1], pruned=each) for each in (False, True))
    # What weights alone decide may have been computed before, or not.
    most = (whole.linear - LEAST_PRUNED * (whole.linear - pruned.linear) + pruned.fixed) / 2
    if sum(work.values()) > most:
        raise ProofFailedError(
            f"products with weights take {sum(work.values())} multiply-adds; pruned to the first token they need "
            f"{pruned.linear // 2}"
        )


def _type(tensor: Tensor) -> str:
    return PRECISIONS.get(tensor[0], tensor[0])


def _executed(node: Any) -> ExecutedNode:
    facts = node.get_rt_info()
    kind, precision, kernel, origin = (
        facts[key].astype(str) for key in ("layerType", "runtimePrecision", "primitiveType", "originalLayersNames")
    )
    read = tuple(
        (node.get_input_element_type(at).get_type_name(), _shape(node.get_input_partial_shape(at)) or ())
        for at in range(node.get_input_size())
    )
    written = _shape(node.get_output_partial_shape(0)) if node.get_output_size() else ()
    return ExecutedNode(kind, precision, kernel, read, written, origin)


def _shape(shape: Any) -> tuple[int, ...] | None:
    return tuple(int(each.get_length()) for each in shape) if shape.is_static else None
