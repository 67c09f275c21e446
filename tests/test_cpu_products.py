"""The libraries' accounts of products are read as they write them, and prove what they can."""

from __future__ import annotations

from dataclasses import replace

import pytest

from farm.errors import ProofFailedError
from tasks.cpu_products import Product, check_pruned, check_types, parse
from tasks.operations import Architecture

F32 = ("f32", "f32")
SGEMM = "SGEMM"
FLOAT = Product(SGEMM, F32, 8, 24, 24)
INT8 = Product("brg_matmul:avx512_core_vnni u8-s8-f32", ("u8", "s8"), 8, 24, 24)

# Accounts

ONEDNN = "onednn_verbose,v1,primitive,exec,cpu,"


@pytest.mark.parametrize(
    ("line", "product"),
    [
        (
            "MKL_VERBOSE SGEMM(T,N,3072,128,768,0x7f,0x7f,768,0x55,768,0x7f,0x55,3072) 3.74ms CNR:OFF Dyn:0 NThr:2",
            Product("SGEMM", F32, 128, 768, 3072),
        ),
        (
            "MKL_VERBOSE GEMM_BF16BF16F32(N,N,64,32,128,0x7f,0x7f,768) 3.74ms",
            Product("GEMM_BF16BF16F32", ("bf16", "bf16"), 32, 128, 64),
        ),
        ("MKL_VERBOSE SGEMV(T,768,24,0x7f,0x7f,768) 1us", Product("SGEMV", F32, 1, 768, 24)),
        ("MKL_VERBOSE SGEMV(N,768,24,0x7f,0x7f,768) 1us", Product("SGEMV", F32, 1, 24, 768)),
        (
            ONEDNN + "inner_product,brg_matmul:avx2,forward_inference,src:f32::blocked:ab::f0 "
            "wei:f32::blocked:ab::f0 bia:f32::blocked:a::f0 dst:f32::blocked:ab::f0,attr,,mb1ic768oc2,0.01",
            Product("brg_matmul:avx2 f32-f32-f32", F32, 1, 768, 2),
        ),
        (
            ONEDNN + "matmul,brg_matmul:avx512_core_vnni,undef,src:u8:a:blocked:ab::f0 wei:s8::blocked:BA::f8:zpm2 "
            "dst:f32:a:blocked:ab::f0,attr,,1x8x768:1x768x3072,0.01",
            Product("brg_matmul:avx512_core_vnni u8-s8-f32", ("u8", "s8"), 8, 768, 3072),
        ),
        ("MKL_VERBOSE SGEMM_BATCH(N,N,0x7ffc11,0x7ffc12,0x7ffc13,0x7ffc14) 12us CNR:OFF", Product("SGEMM_BATCH", F32)),
        ("MKL_VERBOSE SGEMM_BATCH_STRIDED(T,N,24,24,8,0x7f,0x7f,8) 12us", Product("SGEMM_BATCH_STRIDED", F32)),
        (
            ONEDNN + "matmul,brg_matmul:avx2,undef,src:f32::blocked:abc::f0 wei:f32::blocked:abc::f0 "
            "dst:f32::blocked:abc::f0,attr,,8x24x4:8x4x24,0.01",
            Product("brg_matmul:avx2 f32-f32-f32", F32),
        ),
        ("MKL_VERBOSE oneMKL 2024.0 Update 2 Product build 20240605 for Intel(R) 64", None),
        (ONEDNN + "reorder,jit:uni,undef,src:f32::blocked:ab::f0 dst:f32::,,,1x1,0.1", None),
    ],
)
def test_a_line_of_an_account_names_kernel_types_and_sizes(line: str, product: Product | None) -> None:
    assert parse(line) == product


def test_a_product_of_another_type_fails_the_proof() -> None:
    check_types([FLOAT], "float32")
    with pytest.raises(ProofFailedError, match=r"ran as brg_matmul:avx512_core_vnni u8-s8-f32, not in float32"):
        check_types([FLOAT, INT8], "float32")
    with pytest.raises(ProofFailedError, match="ran as SGEMM, not in bfloat16"):
        check_types([FLOAT], "bfloat16")


# Pruning


def _sized(*sizes: tuple[int, int, int]) -> list[Product]:
    return [Product(SGEMM, F32, *size) for size in sizes]


def _products(model: Architecture, tokens: int, last: int, *, heads: int = 4, fused: bool = False) -> list[Product]:
    """Those of a sequence of so many tokens, `last` of which the last layer takes; MKL and oneDNN count differently."""
    hidden, inner, made = model.hidden, model.intermediate, []
    up = inner * (2 if model.gated else 1)
    for number in range(model.layers):
        rows = last if number == model.layers - 1 else tokens
        if fused:
            made += _sized((tokens, hidden, 3 * hidden))
        else:
            made += _sized((rows, hidden, hidden), (tokens, hidden, hidden), (tokens, hidden, hidden))
        head = hidden // heads
        made += _sized(*[(rows, head, tokens), (rows, tokens, head)] * heads)
        made += _sized((rows, hidden, hidden), (rows, hidden, up), (hidden, inner, rows))
    return [*made, *_sized((1, hidden, hidden))]


SMALL = Architecture(layers=2, hidden=24, intermediate=40, labels=2, vocabulary=17, embedding=24)
TINY = Architecture(layers=2, hidden=128, intermediate=512, labels=2, vocabulary=17, embedding=128)
GATED = replace(SMALL, intermediate=36, gated=True)
"""As wide as ModernBERT is: queries, keys and values together as wide as both halves of the feed-forward network."""


@pytest.mark.parametrize(
    ("model", "tokens", "heads", "fused"),
    [(SMALL, 8, 4, False), (SMALL, 40, 4, False), (TINY, 512, 2, False), (GATED, 8, 4, True), (GATED, 36, 4, True)],
)
def test_pruning_is_proven_by_the_multiply_adds_of_products_with_weights(
    model: Architecture, tokens: int, heads: int, fused: bool
) -> None:
    right = check_pruned(_products(model, tokens, 1, heads=heads, fused=fused), model, 1, tokens)
    assert set(right) == {"multiply_adds_with_weights"}
    with pytest.raises(ProofFailedError, match=r"not pruned: .* take \d+ multiply-adds; .* they need \d+"):
        check_pruned(_products(model, tokens, tokens, heads=heads, fused=fused), model, 1, tokens)


@pytest.mark.parametrize("ran", [[], _products(SMALL, 8, 1)[:-3]])
def test_pruning_that_cannot_be_seen_is_said_not_to_be_proven(ran: list[Product]) -> None:
    assert "not proven" in check_pruned(ran, SMALL, 1, 8)["remarks"][0]


def test_products_that_may_be_attentions_prove_nothing_against_pruning() -> None:
    """A head's scores by its values have the sizes of 64 tokens by a weight where as many tokens as the width are."""
    found = check_pruned(_products(TINY, 128, 1, heads=2) + _sized(*[(128, 128, 64)] * 8), TINY, 1, 128)
    assert "not proven" in found["remarks"][0]
