"""Which kernels oneDNN really ran: its own account, printed while one call is made for the proof."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeVar

from tasks.native_output import STDOUT, native_output

Result = TypeVar("Result")

PRIMITIVES = ("matmul", "inner_product", "convolution")
"""Primitives that multiply matrices; reorders and elementwise ones are not looked at."""


def executed_kernels(call: Callable[[], Result]) -> tuple[Result, dict[str, int]]:
    """Run `call` once; its result, and how often each oneDNN kernel multiplied matrices.

    Kernels are named by implementation and types of their data.

    The implementation names the instruction set (`brg_matmul:avx512_core_vnni`, `..._amx`). Empty where PyTorch was
    built without oneDNN, or where other libraries did the work.
    """
    import torch

    if not torch.backends.mkldnn.is_available():
        return call(), {}
    with native_output(STDOUT) as written, torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
        result = call()
    return result, dict(Counter(kernel for line in written() if (kernel := parse(line)) is not None))


def without_onednn(call: Callable[[], Result]) -> tuple[Result, dict[str, int]]:
    """The same where no product runs on the CPU."""
    return call(), {}


def parse(line: str) -> str | None:
    """The kernel of one line of oneDNN's account: `implementation source-weights-destination`, or None.

    Lines read `onednn_verbose,v1,primitive,exec,cpu,matmul,brg_matmul:avx512_core_vnni,undef,src:u8::... wei:s8::...`.
    """
    fields = line.split(",")
    if fields[0] != "onednn_verbose" or "exec" not in fields:
        return None
    rest = fields[fields.index("exec") + 1 :]
    if len(rest) < 5 or rest[1] not in PRIMITIVES:
        return None
    types = _types(rest[4])
    return f"{rest[2]} {'-'.join(types[name] for name in ('src', 'wei', 'dst') if name in types)}"


def _types(memory: str) -> Mapping[str, str]:
    """Data types by tensor, from `src:u8::blocked:ab::f0 wei:s8:...` or the older `src_u8::blocked... wei_s8::...`."""
    found = {}
    for tensor in memory.split():
        name, _, kind = tensor.split("::")[0].replace("_", ":", 1).partition(":")
        found[name] = kind.partition(":")[0]
    return found
