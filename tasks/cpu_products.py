"""The matrix products that a call made on the CPU: oneDNN's and MKL's own accounts of their types and sizes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

from farm.errors import ProofFailedError
from tasks.native_output import STDOUT, native_output
from tasks.onednn import parse as parse_onednn
from tasks.operations import Architecture

Result = TypeVar("Result")

TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
"""The libraries' names of PyTorch's types."""

_MKL = re.compile(r"MKL_VERBOSE (\w*GEM[MV]\w*)\((\w),(?:\w,)?([\d,]+)")
_ONEDNN_MATMUL = re.compile(r"([\dx]+):([\dx]+)")
_ONEDNN_INNER = re.compile(r"mb(\d+)ic(\d+)oc(\d+)")


@dataclass(frozen=True, slots=True)
class Product:
    """One product `[rows, inner] × [inner, columns]`; sizes are 0 where its line does not tell them."""

    kernel: str
    factors: tuple[str, ...]
    """Types of what was multiplied."""
    rows: int = 0
    inner: int = 0
    columns: int = 0


def account_of(call: Callable[[], Result]) -> tuple[Result, list[Product]]:
    """Run `call` once; its result, and every product that oneDNN or MKL made. None where neither did the work."""
    import torch

    with native_output(STDOUT) as written, ExitStack() as told:
        for library in (torch.backends.mkldnn, torch.backends.mkl):
            if library.is_available():
                told.enter_context(library.verbose(library.VERBOSE_ON))
        result = call()
    return result, [product for line in written() if (product := parse(line)) is not None]


def parse(line: str) -> Product | None:
    """The product of one line of either account, or None.

    MKL's read `MKL_VERBOSE SGEMM(T,N,768,128,3072,0x7f...`: columns, rows and inner size, as it counts by columns.
    """
    kernel = parse_onednn(line)
    if kernel is not None:
        factors = tuple(kernel.rpartition(" ")[2].split("-")[:2])
        return Product(kernel, factors, *_onednn_sizes(line.split(",")[-2]))
    found = _MKL.search(line)
    if found is None:
        return None
    name, transposed, listed = found.groups()
    factors, sizes = (_mkl_type(name),) * 2, [int(size) for size in listed.split(",") if size]
    if "GEMV" in name:  # one row by a matrix, which lies the other way round where it is not transposed
        inner, columns = sizes[:2] if transposed == "T" else sizes[1::-1]
        return Product(name, factors, 1, inner, columns)
    columns, rows, inner = sizes[:3]
    return Product(name, factors, rows, inner, columns)


def _onednn_sizes(described: str) -> tuple[int, ...]:
    if inner := _ONEDNN_INNER.fullmatch(described):
        rows, inside, columns = map(int, inner.groups())
        return rows, inside, columns
    if matmul := _ONEDNN_MATMUL.match(described):
        left, right = ([int(size) for size in side.split("x")] for side in matmul.groups())
        return prod(left[:-1]), left[-1], right[-1]
    return ()


def _mkl_type(name: str) -> str:
    """BLAS names begin with their type; MKL spells those out that BLAS does not know (`GEMM_BF16BF16F32`)."""
    if "BF16" in name:
        return "bf16"
    return {"S": "f32", "D": "f64", "H": "f16"}.get(name[0], name)


def kernels(products: Iterable[Product]) -> dict[str, int]:
    """How often each kernel ran."""
    return dict(Counter(product.kernel for product in products))


def check_types(ran: Sequence[Product], dtype: str) -> None:
    """Raise ProofFailedError where something else than `dtype` was multiplied."""
    wrong = [product for product in ran if set(product.factors) != {TYPES[dtype]}]
    if wrong:
        raise ProofFailedError(f"matrix products ran as {', '.join(sorted(kernels(wrong)))}, not in {dtype}")


def check_pruned(ran: Sequence[Product], model: Architecture | None, batch: int, length: int) -> Mapping[str, Any]:
    """Prove by the rows that went through the feed-forward networks that the last layer's had the first token alone.

    Raises ProofFailedError where they were more. Nothing else in an encoder multiplies between these two widths.
    """
    unknown = {"remarks": ["that its last layer is pruned is not proven here, as the products' sizes are not told"]}
    if model is None or model.hidden == model.intermediate:
        return unknown
    rows = sum(_rows_between(product, model) for product in ran)
    expected = 2 * ((model.layers - 1) * length + 1) * batch
    if rows > expected:
        raise ProofFailedError(
            f"the last layer is not pruned: {rows} rows went through feed-forward products instead of {expected}"
        )
    return {"feed_forward_rows": rows} if rows == expected else unknown


def _rows_between(product: Product, model: Architecture) -> int:
    """Rows of a product of a feed-forward network; 0 of any other. Either factor may be the one with the rows."""
    up = (model.hidden, (2 if model.gated else 1) * model.intermediate)
    for columns, rows in ((product.columns, product.rows), (product.rows, product.columns)):
        if (product.inner, columns) in (up, (model.intermediate, model.hidden)):
            return rows
    return 0
