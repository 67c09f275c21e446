"""What an ONNX Runtime session really executed: read from its own profile, with the arithmetic of each product.

The profile names each executed operator, its provider and the shapes of what it read and wrote. Constant operands
that a kernel has packed at load are missing there, so that multiply-adds are computed from the first operand and
the result, which always stand.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import IO, Any, Literal

Shape = tuple[int, ...]
Tensor = tuple[str, Shape]
Operand = Literal["weights", "activations"]

FLOAT_PRODUCTS = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "TransposeMatMul")
INT8_PRODUCTS = ("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm")
"""Operators that are one matrix product, by the arithmetic they do it in."""

ATTENTION_PRODUCTS: Mapping[str, str] = {"Attention": "float32", "QAttention": "int8"}
"""Fused attention with its three projections inside, by the arithmetic of these projections."""

FLOAT_TYPES: Mapping[str, str] = {"float": "float32", "float16": "float16", "bfloat16": "bfloat16"}
"""Names of element types in a profile, as the farm writes them."""


@dataclass(frozen=True, slots=True)
class Product:
    """Matrix products of one executed operator: multiply-adds, what the second operand is, and in what arithmetic."""

    operator: str
    operand: Operand
    precision: str
    multiply_adds: int


@dataclass(frozen=True, slots=True)
class Execution:
    """One executed operator: its type, the provider it ran on, and its matrix products, if it has any."""

    operator: str
    provider: str
    products: tuple[Product, ...]


def read_profile(written: IO[bytes]) -> list[Execution]:
    """Every node that ran, in order, from the JSON that `InferenceSession.end_profiling` wrote.

    Each stands once, however many calls there were; one that captures a CUDA graph runs all of them a few times.
    """
    nodes = {
        (event["name"], event["args"].get("node_index")): event["args"]
        for event in json.load(written)
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    }
    return [Execution(node["op_name"], node["provider"], products_of(node)) for node in nodes.values()]


def products_of(node: Mapping[str, Any]) -> tuple[Product, ...]:
    """The matrix products of one node of a profile (its `args`); none for an operator that multiplies no matrices."""
    operator = node["op_name"]
    if operator in ATTENTION_PRODUCTS:
        return _attention(operator, *_shapes(node))
    if operator == "MultiHeadAttention":
        return _separate_attention(operator, *_shapes(node))
    if operator in FLOAT_PRODUCTS or operator in INT8_PRODUCTS:
        return _product(operator, *_shapes(node))
    return ()


def multiply_adds(executed: Iterable[Execution]) -> dict[str, int]:
    """Multiply-adds by `operand:precision`, such as `weights:int8`."""
    total: Counter[str] = Counter()
    for execution in executed:
        for product in execution.products:
            total[f"{product.operand}:{product.precision}"] += product.multiply_adds
    return dict(total)


def int8_share(work: Mapping[str, int], operand: Operand | None = None) -> float:
    """The part of all multiply-adds (of those with `operand`) that ran in int8; 0 where there are none."""
    asked = {name: count for name, count in work.items() if operand is None or name.startswith(f"{operand}:")}
    total = sum(asked.values())
    return sum(count for name, count in asked.items() if name.endswith(":int8")) / total if total else 0.0


def _product(operator: str, read: Sequence[Tensor], written: Sequence[Tensor]) -> tuple[Product, ...]:
    """`[..., m, k] × [..., k, n]`, either operand possibly transposed. Source of the count: m·n·k for each batch."""
    kind, first = read[0]
    result = written[0][1]
    rows = result[-2] if len(result) > 1 else 1
    inner = prod(first[-2:]) // max(rows, 1)
    # Attention's second operand has a batch and heads; a weight has two dimensions, or is missing as it is packed.
    # Whatever else is read has fewer: scales, zero points, a bias.
    operand: Operand = "activations" if any(len(shape) > 2 for _, shape in read[1:]) else "weights"
    precision = "int8" if operator in INT8_PRODUCTS else FLOAT_TYPES.get(kind, kind)
    return (Product(operator, operand, precision, prod(result) * inner),)


def _attention(operator: str, read: Sequence[Tensor], written: Sequence[Tensor]) -> tuple[Product, ...]:
    """Three projections of `[batch, length, width]`, then queries × keys and weights × values in floating point."""
    (batch, length, width), result = read[0][1], written[0]
    kind = FLOAT_TYPES.get(result[0], result[0])
    projections = "int8" if ATTENTION_PRODUCTS[operator] == "int8" else kind
    inside = batch * length * length * result[1][-1] * 2
    return (
        Product(operator, "weights", projections, batch * length * width * result[1][-1] * 3),
        Product(operator, "activations", kind, inside),
    )


def _separate_attention(operator: str, read: Sequence[Tensor], written: Sequence[Tensor]) -> tuple[Product, ...]:
    """Queries × keys and weights × values; queries `[batch, length, width]`, keys of a length of their own."""
    kind, (batch, length, width) = read[0]
    keys = read[1][1][-2]
    inside = batch * length * keys * (width + written[0][1][-1])
    return (Product(operator, "activations", FLOAT_TYPES.get(kind, kind), inside),)


def _shapes(node: Mapping[str, Any]) -> tuple[list[tuple[str, Shape]], list[tuple[str, Shape]]]:
    """Element type and shape of every tensor read and written."""
    sides = (node["input_type_shape"], node["output_type_shape"])
    read, written = ([(kind, tuple(shape)) for each in side for kind, shape in each.items()] for side in sides)
    return read, written
