"""The matrix products that a call made on the CPU: oneDNN's and MKL's own accounts of their types and sizes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeVar

from farm.errors import ProofFailedError
from tasks.native_output import STDOUT, native_output
from tasks.onednn import parse as parse_onednn
from tasks.openvino_proof import LEAST_PRUNED
from tasks.operations import Architecture, count_work

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

    @property
    def multiply_adds(self) -> int:
        """How many there are in it."""
        return self.rows * self.inner * self.columns


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

    MKL's read `MKL_VERBOSE SGEMM(T,N,768,128,3072,0x7f...`: columns, rows and inner size, as it counts by columns, and
    `MKL_VERBOSE SGEMM_BATCH(N,N,0x7f...` of many products at once.
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
    if "BATCH" in name:  # between activations; of most of these the sizes stand behind pointers
        return Product(name, factors)
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
        if prod(right[:-2]) > 1:  # between activations, as of weights there is one matrix
            return ()
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
    """Prove by their multiply-adds that the products with weights took the last layer's first token alone.

    Raises ProofFailedError where they certainly are those of a model that was not pruned. Products are told from those
    of attention by their sizes; where these do not decide, or products are missing, a remark says so.
    """
    unknown = {"remarks": ["that its last layer is pruned is not proven here, as the products' sizes are not told"]}
    if model is None:
        return unknown
    counted = replace(model, convolution=0)  # no matrix product, so not in these accounts
    whole, pruned = (count_work(counted, batch, length, pruned=each) for each in (False, True))
    seen = [product for product in ran if _multiplies_weights(product, model)]
    work, certain = (
        sum(product.multiply_adds for product in each)
        for each in (seen, [product for product in seen if not _may_be_attention(product, model, length)])
    )
    most = (whole.linear - LEAST_PRUNED * (whole.linear - pruned.linear)) / 2
    # What weights alone decide may have been computed before, or not.
    if certain > most + pruned.fixed / 2:
        raise ProofFailedError(
            f"the last layer is not pruned: products with weights take {certain} multiply-adds; pruned to the first "
            f"token they need {pruned.linear // 2}"
        )
    # The head's products are so small that compilers write them themselves.
    least = pruned.linear / 2 - batch * model.head
    return {"multiply_adds_with_weights": work} if least <= work <= most else unknown


def _multiplies_weights(product: Product, model: Architecture) -> bool:
    """Whether one factor has the sizes of a weight of the model; either may be the one with the rows."""
    hidden = model.hidden
    up = (2 if model.gated else 1) * model.intermediate
    # Queries, keys and values may be one product, or two of them.
    written = {hidden: {hidden, 2 * hidden, 3 * hidden, up, model.labels}}
    for inner in (model.intermediate, model.embedding):
        written[inner] = written.get(inner, set()) | {hidden}
    return bool(written.get(product.inner, set()) & {product.columns, product.rows})


def _may_be_attention(product: Product, model: Architecture, length: int) -> bool:
    """Whether it could be a head's queries by its keys, or its scores by its values, perhaps only a part of them."""
    few, many = sorted((product.rows, product.columns))
    scores = _is_head(product.inner, model) and many <= length
    sums = product.inner <= length and any(
        _is_head(width, model) and other <= length for width, other in ((few, many), (many, few))
    )
    return scores or sums


def _is_head(width: int, model: Architecture) -> bool:
    """Whether heads of attention may be so wide; one that is as wide as its layer is in no family."""
    return width < model.hidden and model.hidden % width == 0
