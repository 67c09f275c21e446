"""The fixed pieces of work that time a machine's units: matrix products and memory reads, by library and layout."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.operands import bf16_numbers, integers, numbers

RATES = ("fp32", "bf16", "int8", "memory")
"""What is timed, in the order in which it is named. Units: GFLOP/s, GFLOP/s, GOP/s, GB/s (10^9 each)."""

Call = Callable[[], Any]

BUFFER_BYTES = 256 << 20
"""Bytes that reads go round in, unless more are asked for. Several times most last-level caches, so that a block has
left them when its turn comes again; with torch itself (240 MB) the process stays below 600 MB."""


@dataclass(frozen=True, slots=True)
class Case:
    """One fixed piece of work: fields are plain values, so `dataclasses.asdict` and `Case(**fields)` go by JSON.

    A product multiplies `[rows, inner]` activations by `[inner, columns]` weights. `layout` is how the weights lie:
    `nn` as written, `nt` transposed as `torch.nn.Linear` keeps them, `packed` in an order of the library's own.
    A memory case owns `rows` blocks of `inner × columns` bytes and reads one block per call, the next one each time;
    `layout` is `flat`, reduced to one number, or `rows`, one number for every `columns` bytes.
    """

    rate: str
    library: str
    rows: int
    inner: int
    columns: int
    layout: str

    @property
    def work(self) -> int:
        """Operations of one call, a multiplication and an addition counted as two; for memory the bytes read."""
        return self.inner * self.columns * (1 if self.rate == "memory" else 2 * self.rows)


def prepare(case: Case, threads: int) -> Call:
    """Allocate the case's operands (fixed seed) and return the call that does its work once.

    `threads` is for libraries that take it as an argument; torch has its own from the process.
    Raises ValueError for a case that is not in `KERNELS`, and whatever a library raises that is missing, too old, or
    without such a kernel on this processor: who prepares cases decides what to do without one.
    """
    if (case.rate, case.library, case.layout) not in KERNELS:
        raise ValueError(f"no {case.rate} kernel is called {case.library!r} with layout {case.layout!r}")
    with warnings.catch_warnings():
        # Quantized tensors are deprecated in torch; while they exist they are what a quantized model runs on.
        warnings.simplefilter("ignore")
        return KERNELS[case.rate, case.library, case.layout](case, threads)


def kernels_of(rate: str) -> tuple[tuple[str, str], ...]:
    """Library and layout of every kernel for that rate."""
    return tuple((library, layout) for of, library, layout in KERNELS if of == rate)


def _torch_operands(case: Case) -> tuple[Any, Any]:
    """Activations `[rows, inner]` and weights as a linear layer keeps them, `[columns, inner]`."""
    import torch

    dtype = torch.bfloat16 if case.rate == "bf16" else torch.float32
    activations = torch.from_numpy(numbers(case.rows, case.inner)).to(dtype)
    return activations, torch.from_numpy(numbers(case.columns, case.inner)).to(dtype)


def _torch_mm(case: Case, threads: int) -> Call:
    import torch

    del threads
    activations, weights = _torch_operands(case)
    right = weights.t() if case.layout == "nt" else weights.t().contiguous()
    out = torch.empty(case.rows, case.columns, dtype=activations.dtype)
    return lambda: torch.mm(activations, right, out=out)


def _torch_linear(case: Case, threads: int) -> Call:
    import torch

    del threads
    activations, weights = _torch_operands(case)
    return lambda: torch.nn.functional.linear(activations, weights)


def _mkldnn_linear(case: Case, threads: int) -> Call:
    """What torch.compile makes of a linear layer: oneDNN with weights reordered ahead of time."""
    import torch

    del threads
    activations, weights = _torch_operands(case)
    packed = torch.ops.mkldnn._reorder_linear_weight(weights, case.rows)
    return lambda: torch.ops.mkldnn._linear_pointwise(activations, packed, None, "none", [], "")


def _mkl_linear(case: Case, threads: int) -> Call:
    """What torch.compile makes of an FP32 linear layer of fixed shape: MKL with packed weights."""
    import torch

    del threads
    activations, weights = _torch_operands(case)
    packed = torch.ops.mkl._mkl_reorder_linear_weight(weights, case.rows)
    return lambda: torch.ops.mkl._mkl_linear(activations, packed, weights, None, case.rows)


def _in_fp32(case: Case, threads: int) -> Call:
    """BF16 numbers in and out, multiplied in FP32 with weights widened ahead of time.

    Where a processor has no BF16 units this beats the BF16 kernels several times over, so it is the ceiling there.
    """
    import torch

    del threads
    activations, weights = _torch_operands(case)
    if case.layout == "packed":
        wide = weights.float()
        packed = torch.ops.mkl._mkl_reorder_linear_weight(wide, case.rows)
        return lambda: torch.ops.mkl._mkl_linear(activations.float(), packed, wide, None, case.rows).bfloat16()
    right = weights.float().t().contiguous()
    return lambda: torch.mm(activations.float(), right).bfloat16()


def _torch_int_mm(case: Case, threads: int) -> Call:
    import torch

    del threads
    activations = torch.from_numpy(integers(np.int8, case.rows, case.inner))
    weights = torch.from_numpy(integers(np.int8, case.columns, case.inner))
    right = weights.t() if case.layout == "nt" else weights.t().contiguous()
    return lambda: torch._int_mm(activations, right)


def _torch_quantized(engine: str, case: Case, threads: int) -> Call:
    """A statically quantized linear layer, as torch.ao.quantization makes it, packed by one of torch's engines."""
    import torch

    del threads
    activations = torch.quantize_per_tensor(torch.from_numpy(numbers(case.rows, case.inner)), 0.02, 64, torch.quint8)
    weights = torch.quantize_per_tensor(torch.from_numpy(numbers(case.columns, case.inner)), 0.02, 0, torch.qint8)
    usual = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        packed = torch.ops.quantized.linear_prepack(weights, None)
    finally:
        torch.backends.quantized.engine = usual
    return lambda: torch.ops.quantized.linear(activations, packed, 0.5, 64)


def _onednn_qlinear(output: str, case: Case, threads: int) -> Call:
    """What torch.compile makes of a statically quantized linear layer.

    Activations are unsigned: signed ones fall to a reference kernel, thousands of times slower, where AMX is missing.
    """
    import torch

    del threads
    activations = torch.from_numpy(integers(np.uint8, case.rows, case.inner))
    weights = torch.from_numpy(integers(np.int8, case.columns, case.inner))
    packed = torch.ops.onednn.qlinear_prepack(weights, [case.rows, case.inner])
    scales, zeros = torch.full((case.columns,), 0.02), torch.zeros(case.columns, dtype=torch.int64)
    quantized: tuple[Any, ...] = (
        activations,
        0.02,
        0,
        packed,
        scales,
        zeros,
        None,
        1.0,
        0,
        getattr(torch, output),
        "none",
        [],
        "",
    )
    return lambda: torch.ops.onednn.qlinear_pointwise(*quantized)


def _onnxruntime(activation: Any, weight: Any, case: Case, threads: int) -> Call:
    """A session of one MatMul or MatMulInteger with constant weights, which ONNX Runtime packs as it loads."""
    import onnx
    import onnxruntime
    from onnx import helper, numpy_helper

    operator, result = ("MatMul", np.float32) if activation is np.float32 else ("MatMulInteger", np.int32)
    make = numbers if activation is np.float32 else functools.partial(integers, activation)
    make_weights = numbers if weight is np.float32 else functools.partial(integers, weight)
    kinds = [helper.np_dtype_to_tensor_dtype(np.dtype(of)) for of in (activation, result)]
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "w"], ["y"])],
        operator,
        [helper.make_tensor_value_info("x", kinds[0], [case.rows, case.inner])],
        [helper.make_tensor_value_info("y", kinds[1], [case.rows, case.columns])],
        [numpy_helper.from_array(make_weights(case.inner, case.columns), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=onnx.IR_VERSION_2023_5_5)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # A worker that spins, waiting for more, takes a core from the next library's threads.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("x", make(case.rows, case.inner))
    out = onnxruntime.OrtValue.ortvalue_from_shape_and_type([case.rows, case.columns], result)
    binding.bind_ortvalue_output("y", out)
    return lambda: session.run_with_iobinding(binding)


def _tiles(case: Case, threads: int) -> Call:
    """The farm's own kernel for AMX. Numbers are random, so their order in tiles does not matter."""
    from tasks.native.tile_products import TileProduct

    shape, bf16 = (case.rows, case.inner, case.columns), case.rate == "bf16"
    make = bf16_numbers if bf16 else functools.partial(integers, np.int8)
    return TileProduct(make(case.rows, case.inner), make(case.inner, case.columns), shape, threads, bf16=bf16)


@functools.lru_cache(maxsize=1)
def _allocated(size: int) -> np.ndarray:
    return integers(np.int8, size)


def _buffer(size: int) -> np.ndarray:
    """Bytes to read, shared by the cases of one process: a buffer for each would be too much to hold.

    NumPy asks for huge pages, so that the processor does not spend the time looking up addresses.
    """
    return _allocated(max(size, BUFFER_BYTES))[:size]


def _torch_read(reduction: str, dtype: str, case: Case, threads: int) -> Call:
    """Reduce the next block of the buffer with every thread."""
    import torch

    del threads
    reduce = getattr(torch, reduction)
    size = case.inner * case.columns
    buffer = torch.from_numpy(_buffer(case.rows * size)).view(getattr(torch, dtype))
    shape = (case.rows, -1) if case.layout == "flat" else (case.rows, case.inner, -1)
    blocks = list(buffer.view(shape))
    order = itertools.cycle(blocks)
    if reduction == "dot":
        return lambda: torch.dot(*(next(order),) * 2)
    if case.layout == "rows":
        return lambda: reduce(next(order), 1)
    return lambda: reduce(next(order))


Prepare = Callable[[Case, int], Call]

QUANTIZED_ENGINES = ("onednn", "x86", "fbgemm", "qnnpack")
"""torch's engines for quantized layers; `x86` chooses between two of the others."""

READERS = (
    ("sum", "int64", "rows"),
    ("sum", "float32", "rows"),
    ("amax", "int32", "rows"),
    ("amax", "int8", "flat"),
    ("dot", "float64", "flat"),
)
"""Reductions cheap enough for reading to be what takes the time. Others were slower than memory on the machines where
this was tried: torch sums int8 number by number, and its matrix-vector product read at half the rate."""

KERNELS: Mapping[tuple[str, str, str], Prepare] = {
    **{("fp32", "torch.mm", layout): _torch_mm for layout in ("nn", "nt")},
    ("fp32", "torch.linear", "nt"): _torch_linear,
    ("fp32", "mkldnn.linear", "packed"): _mkldnn_linear,
    ("fp32", "mkl.linear", "packed"): _mkl_linear,
    ("fp32", "onnxruntime.MatMul", "packed"): functools.partial(_onnxruntime, np.float32, np.float32),
    **{("bf16", "torch.mm", layout): _torch_mm for layout in ("nn", "nt")},
    ("bf16", "torch.linear", "nt"): _torch_linear,
    ("bf16", "mkldnn.linear", "packed"): _mkldnn_linear,
    ("bf16", "torch.mm-fp32", "nn"): _in_fp32,
    ("bf16", "mkl.linear-fp32", "packed"): _in_fp32,
    ("bf16", "amx.tiles", "packed"): _tiles,
    **{("int8", "torch._int_mm", layout): _torch_int_mm for layout in ("nn", "nt")},
    **{
        ("int8", f"onednn.qlinear-{output}", "packed"): functools.partial(_onednn_qlinear, output)
        for output in ("uint8", "float32")
    },
    **{
        ("int8", f"torch.quantized-{engine}", "packed"): functools.partial(_torch_quantized, engine)
        for engine in QUANTIZED_ENGINES
    },
    **{
        ("int8", f"onnxruntime.MatMulInteger-{name}", "packed"): functools.partial(_onnxruntime, *types)
        for name, types in {
            "u8s8": (np.uint8, np.int8),
            "s8s8": (np.int8, np.int8),
            "u8u8": (np.uint8, np.uint8),
        }.items()
    },
    ("int8", "amx.tiles", "packed"): _tiles,
    **{
        ("memory", f"torch.{reduction}-{dtype}", layout): functools.partial(_torch_read, reduction, dtype)
        for reduction, dtype, layout in READERS
    },
}
"""How each kernel is prepared, by rate, library and layout.

NumPy's is left out: OpenBLAS's threads spin for tens of milliseconds after each product, which slowed whatever was
timed next several times over, and its products were slower than the best of these at every shape."""
