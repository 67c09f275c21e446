"""Weights lie in tiles as the kernels for AMX want them, and the product that ceilings are searched with is right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from amx_here import needs_amx

from tasks.kernels import Case, kernels_of, prepare
from tasks.native.tile_products import TileProduct, open_products
from tasks.native.weights import INNER, LARGEST, PANEL, as_panels, quantize_rows

# Weights


def test_a_panel_holds_32_columns_with_four_inner_indices_together() -> None:
    weight = np.random.default_rng(0).integers(-LARGEST, LARGEST + 1, (2 * PANEL, 3 * INNER), np.int8)
    panels = as_panels(weight)
    assert panels.shape == (2, 3, 2, 16, 16, 4)
    for column, inner in ((0, 0), (17, 70), (40, 191)):
        panel, within, block = column // PANEL, column % PANEL, inner // INNER
        place = (panel, block, within // 16, inner % INNER // 4, within % 16, inner % 4)
        assert panels[place] == weight[column, inner]


def test_rows_are_quantized_by_their_largest_magnitude() -> None:
    weight = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    weight[3] = 0
    quantized, scales = quantize_rows(weight)
    assert np.abs(quantized).max(axis=1).tolist() == [LARGEST, LARGEST, LARGEST, 0, LARGEST]
    assert (np.abs(quantized * scales[:, None] - weight) <= scales[:, None] / 2 + 1e-7).all()


# Ceilings


@pytest.fixture
def products(empty_cache: Path) -> Iterator[None]:
    """The library of products, compiled into a cache of its own."""
    del empty_cache
    open_products.cache_clear()
    yield
    open_products.cache_clear()


@needs_amx
@pytest.mark.usefixtures("products")
def test_the_products_that_ceilings_are_searched_with_are_right() -> None:
    random = np.random.default_rng(0)
    for rows, inner, columns in ((48, 192, 64), (160, 6400, 64)):  # the second's rows take several parts
        left, weight = (random.integers(-3, 4, (each, inner), np.int8) for each in (rows, columns))
        exact = left.astype(int) @ weight.T.astype(int)
        product = TileProduct(_tiles(left), as_panels(weight), (rows, inner, columns), 2, bf16=False)
        product()
        assert np.array_equal(product.results(), np.clip(exact, -128, 127))
        # Two bytes of a BF16 number lie where int8 has two numbers.
        halves = [(array.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16) for array in (left, weight)]
        as_bytes = [half.view(np.int8) for half in halves]
        product = TileProduct(_tiles(as_bytes[0]), as_panels(as_bytes[1]), (rows, inner, columns), 2, bf16=True)
        product()
        np.testing.assert_allclose(product.results(), exact, rtol=2**-8)


def _tiles(left: np.ndarray) -> np.ndarray:
    rows, inner = left.shape
    return left.reshape(rows // 16, 16, inner // INNER, INNER).transpose(0, 2, 1, 3)


def test_a_product_of_no_whole_tiles_is_refused() -> None:
    with pytest.raises(ValueError, match="no whole tiles"):
        TileProduct(np.zeros(0), np.zeros(0), (16, 96, 32), 1, bf16=False)


@needs_amx
@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("rate", ["int8", "bf16"])
def test_tiles_are_among_the_kernels_that_ceilings_are_searched_with(rate: str) -> None:
    assert ("amx.tiles", "packed") in kernels_of(rate)
    call: Any = prepare(Case(rate, "amx.tiles", 128, 192, 64, "packed"), 2)
    call()
    assert call.results().shape == (128, 64)
