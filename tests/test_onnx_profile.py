"""A profile's shapes give each product's multiply-adds, its arithmetic, and whether it has weights."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import pytest

from tasks.onnx_profile import Execution, int8_share, multiply_adds, products_of, read_profile

SCALES = [{"float": []}, {"float": [48]}, {"uint8": []}, {"int8": [48]}]


def _node(operator: str, read: list[Any], written: list[Any]) -> dict[str, Any]:
    """A node of a profile, as ONNX Runtime 1.31 writes it."""
    return {
        "op_name": operator,
        "provider": "CPUExecutionProvider",
        "input_type_shape": read,
        "output_type_shape": written,
    }


@pytest.mark.parametrize(
    ("operator", "read", "precision"),
    [
        ("MatMul", [{"float": [2, 7, 24]}], "float32"),
        ("MatMul", [{"float": [2, 7, 24]}, {"float": [24, 48]}], "float32"),
        ("MatMul", [{"float16": [2, 7, 24]}], "float16"),
        ("MatMulIntegerToFloat", [{"uint8": [2, 7, 24]}, *SCALES], "int8"),
        ("DynamicQuantizeMatMul", [{"float": [2, 7, 24]}, {"float": [48]}, {"int8": [48]}], "int8"),
        ("QLinearMatMul", [{"uint8": [2, 7, 24]}, {"float": []}, {"uint8": []}, {"int8": [24, 48]}], "int8"),
    ],
)
def test_a_product_with_weights_is_counted_by_its_first_operand_and_result(
    operator: str, read: list[Any], precision: str
) -> None:
    (product,) = products_of(_node(operator, read, [{"float": [2, 7, 48]}]))
    assert (product.operand, product.precision) == ("weights", precision)
    assert product.multiply_adds == 2 * 7 * 24 * 48


@pytest.mark.parametrize(
    ("operator", "kind", "between"),
    [
        ("MatMul", "float", []),
        ("FusedMatMul", "float", []),
        ("QLinearMatMul", "uint8", [{"float": []}, {"uint8": []}]),
    ],
)
def test_a_product_of_two_activations_is_not_one_with_weights(operator: str, kind: str, between: list[Any]) -> None:
    read = [{kind: [1, 4, 7, 6]}, *between, {kind: [1, 4, 6, 7]}]
    (product,) = products_of(_node(operator, read, [{kind: [1, 4, 7, 7]}]))
    assert product.operand == "activations"
    assert product.multiply_adds == 4 * 7 * 6 * 7


def test_a_first_operand_that_is_transposed_counts_the_same() -> None:
    (product,) = products_of(_node("Gemm", [{"float": [24, 7]}, {"float": [48]}], [{"float": [7, 48]}]))
    assert product.multiply_adds == 7 * 24 * 48


@pytest.mark.parametrize(
    ("operator", "kind", "precision"), [("Attention", "float", "float32"), ("QAttention", "uint8", "int8")]
)
def test_merged_attention_has_three_projections_and_two_products_inside(
    operator: str, kind: str, precision: str
) -> None:
    node = _node(operator, [{kind: [2, 7, 24]}, {"float": [72]}, {"int32": [2]}], [{"float": [2, 7, 24]}])
    projections, inside = products_of(node)
    assert (projections.operand, projections.precision) == ("weights", precision)
    assert projections.multiply_adds == 3 * 2 * 7 * 24 * 24
    assert (inside.operand, inside.precision) == ("activations", "float32")
    assert inside.multiply_adds == 2 * 2 * 7 * 7 * 24


def test_attention_of_one_query_costs_one_row() -> None:
    read = [{"float": [2, 1, 24]}, {"float": [2, 7, 24]}, {"float": [2, 7, 24]}, {"float": [72]}]
    (inside,) = products_of(_node("MultiHeadAttention", read, [{"float": [2, 1, 24]}]))
    assert inside.multiply_adds == 2 * 2 * 1 * 7 * 24


def test_an_operator_without_matrices_has_no_products() -> None:
    assert products_of(_node("Softmax", [{"float": [2, 7]}], [{"float": [2, 7]}])) == ()


def test_the_int8_share_is_weighted_by_multiply_adds() -> None:
    small = products_of(_node("MatMul", [{"float": [1, 1, 10]}], [{"float": [1, 1, 10]}]))
    large = products_of(_node("MatMulIntegerToFloat", [{"uint8": [1, 9, 10]}, *SCALES], [{"float": [1, 9, 10]}]))
    inside = products_of(_node("MatMul", [{"float": [4, 5, 5]}, {"float": [4, 5, 5]}], [{"float": [4, 5, 5]}]))
    work = multiply_adds(Execution("any", "CPUExecutionProvider", each) for each in (small, large, inside))
    assert work == {"weights:float32": 100, "weights:int8": 900, "activations:float32": 500}
    assert int8_share(work) == pytest.approx(0.6)
    assert int8_share(work, "weights") == pytest.approx(0.9)
    assert int8_share({}) == 0.0


def test_a_node_that_ran_several_times_counts_once() -> None:
    """A call that captures a CUDA graph warms up, captures and runs."""
    node = _node("MatMul", [{"float": [1, 7, 24]}], [{"float": [1, 7, 48]}])
    once = [
        {"cat": "Node", "name": f"{name}_kernel_time", "args": node | {"node_index": index}}
        for index, name in (("3", "product"), ("4", "product"), ("5", "other"))
    ]
    read = read_profile(BytesIO(json.dumps(once * 3).encode()))
    assert multiply_adds(read) == {"weights:float32": 3 * 7 * 24 * 48}


def test_kernels_are_read_and_nothing_else() -> None:
    node = _node("MatMul", [{"float": [1, 7, 24]}], [{"float": [1, 7, 48]}])
    events = [
        {"cat": "Session", "name": "model_run", "args": {}},
        {"cat": "Node", "name": "product_fence_before", "args": {"op_name": "MatMul"}},
        {"cat": "Node", "name": "product_kernel_time", "args": node},
    ]
    read = read_profile(BytesIO(json.dumps(events).encode()))
    assert [(each.operator, each.provider, len(each.products)) for each in read] == [
        ("MatMul", "CPUExecutionProvider", 1)
    ]
