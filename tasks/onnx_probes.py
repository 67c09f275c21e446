"""Small products whose results tell what a profile does not say: which arithmetic a kernel really used.

A kernel of MLAS reports neither its name nor its instructions. Two of its habits show in results, though: rounding
operands to bfloat16, and 16-bit sums of int8 products that overflow on x86 CPUs without dot-product instructions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from farm.errors import ProofFailedError
from tasks.method import Arrays
from tasks.onnx_graphs import OPSET
from tasks.onnx_sessions import SessionCallable, SessionOptions, session_options

ROUNDING = "rounding.onnx"
SATURATION = "saturation.onnx"

SIDE = 64
"""Rows and columns of a probe's constant matrix: twice what MLAS wants for its packed kernels."""

STEP = 2.0**-12
"""What the rounding probe's numbers differ by: FP32 sums them exactly, bfloat16 (8 bits of mantissa) cannot hold it."""


class RoundingChecked:
    """A session whose proof fails unless products round their operands to bfloat16."""

    def __init__(self, call: SessionCallable, folder: Path, entries: Mapping[str, str]) -> None:
        self._call = call
        self._folder = folder
        self._entries = entries

    def __call__(self, inputs: Arrays) -> Arrays:
        """Run one batch."""
        return self._call(inputs)

    def proof(self) -> Mapping[str, Any]:
        """As for FP32, and that rounding was seen: the profile names types in memory, not those in the kernel."""
        evidence = dict(self._call.proof())
        if not rounds_operands(self._folder, self._entries):
            raise ProofFailedError("products are exact in FP32: this build or CPU does not multiply in bfloat16")
        return evidence | {"operands_rounded_to_bfloat16": True}


def write_rounding_probe(folder: Path) -> None:
    """A graph that multiplies by constants which bfloat16 cannot hold."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node("MatMul", ["given", "constant"], ["product"])
    given = helper.make_tensor_value_info("given", TensorProto.FLOAT, [SIDE, SIDE])
    product = helper.make_tensor_value_info("product", TensorProto.FLOAT, [SIDE, SIDE])
    constant = numpy_helper.from_array(_unrounded(), "constant")
    onnx.save(_model(helper.make_graph([node], "rounding", [given], [product], [constant])), folder / ROUNDING)


def rounds_operands(folder: Path, entries: Mapping[str, str]) -> bool:
    """Whether an FP32 product under the configuration `entries` loses what bfloat16 cannot hold."""
    product = _run(folder / ROUNDING, entries, np.ones((SIDE, SIDE), np.float32))
    return not np.array_equal(product[0], _unrounded().sum(axis=0))


def write_saturation_probe(folder: Path, *, signed: bool, reduced: bool) -> None:
    """A graph that multiplies unsigned bytes by the largest weights that a quantization can give."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node("MatMulInteger", ["given", "constant"], ["product"])
    given = helper.make_tensor_value_info("given", TensorProto.UINT8, [SIDE, SIDE])
    product = helper.make_tensor_value_info("product", TensorProto.INT32, [SIDE, SIDE])
    constant = numpy_helper.from_array(_largest(signed, reduced), "constant")
    onnx.save(_model(helper.make_graph([node], "saturation", [given], [product], [constant])), folder / SATURATION)


def sums_saturate(folder: Path, *, signed: bool, reduced: bool) -> bool:
    """Whether sums of products with the largest possible bytes and weights come out too small."""
    given = np.full((SIDE, SIDE), 255, np.uint8)
    exact = given.astype(np.int32) @ _largest(signed, reduced).astype(np.int32)
    return not np.array_equal(_run(folder / SATURATION, {}, given), exact)


def _unrounded() -> npt.NDArray[np.float32]:
    """Numbers a little above 1, in steps of STEP; their sums have at most 19 bits."""
    return (1 + STEP * (np.arange(SIDE * SIDE) % 13)).reshape(SIDE, SIDE).astype(np.float32)


def _largest(signed: bool, reduced: bool) -> npt.NDArray[Any]:
    """Weights at the end of their range: 8 bits, or 7 where the range is reduced."""
    bits = 7 if reduced else 8
    kind = np.int8 if signed else np.uint8
    return np.full((SIDE, SIDE), 2 ** (bits - 1) - 1 if signed else 2**bits - 1, kind)


def _model(graph: Any) -> Any:
    from onnx import helper

    # The format version is that of OPSET: a newer one might not be read by an older ONNX Runtime.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def _run(path: Path, entries: Mapping[str, str], given: npt.NDArray[Any]) -> npt.NDArray[Any]:
    import onnxruntime

    options = session_options(1, SessionOptions(), entries)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["product"], {"given": given})[0])
