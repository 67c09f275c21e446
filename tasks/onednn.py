"""Which kernels oneDNN really ran: its own account, printed while one call is made for the proof."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

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
    with _output() as written, torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
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


@contextmanager
def _output() -> Iterator[Callable[[], list[str]]]:
    """Catch what native code of this process prints; the lines, once the block has ended."""
    flush = ctypes.CDLL(None).fflush
    flush(None)
    kept = os.dup(1)
    with tempfile.TemporaryFile() as target:
        os.dup2(target.fileno(), 1)

        def lines() -> list[str]:
            return caught.decode(errors="replace").splitlines()

        try:
            yield lines
        finally:
            flush(None)
            os.dup2(kept, 1)
            os.close(kept)
            target.seek(0)
            caught = target.read()
