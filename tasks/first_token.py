"""Last-layer pruning: a classifier that reads one position needs the last layer for that position alone. Exact.

In an encoder with a classification head only the first token of the last layer is read. Its query, its attention
output, its feed-forward network and its norms are needed for one position, the keys and values for all: most of a
layer is computed for nothing. Here that is found by a dataflow analysis over the exported graph, not by knowing the
family: starting at the operator that selects the position, the demand for a single index travels backwards through
operators that treat the positions one by one, and stops where somebody needs all of them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

Demand = int | None
"""What a value is needed for: index 0 of that dimension alone, or (None) all of it."""

Edge = tuple[Any, int]
"""A tensor argument of an operator, and the dimension of it of which index 0 is needed."""

ELEMENTWISE = (
    *("add", "sub", "mul", "div", "relu", "gelu", "tanh", "silu", "dropout", "to", "_to_copy", "clone", "contiguous"),
    *("neg", "exp", "sigmoid", "pow", "sqrt", "rsqrt", "alias", "detach", "masked_fill", "where", "native_dropout"),
    *("clamp", "bitwise_not", "logical_not"),
)

ALLOCATES = ("add", "sub", "mul", "div", "linear", "matmul", "bmm", "gather")
"""Operators whose result shares no memory with anything else."""

CHECK = "_assert_tensor_metadata"
"""Exporting puts these before conversions; they look at the dtype, which pruning leaves alone."""


def keep_first_token(module: Any) -> int:
    """Rewrite an exported module (a `torch.fx.GraphModule` with shapes) in place; return how many operators shrank.

    0 means that the model reads more than one position (mean pooling, say), so that there is nothing to leave out.
    Of open axes the example's sizes tell which is which: no other size of the model may equal them. Outputs equal the
    unpruned module's within rounding.
    """
    _cut_into_slices(module.graph)
    demands = _demands(module.graph)
    shrunk = {node: dim for node, dim in demands.items() if dim is not None and _reads(node, dim) is not None}
    for node, dim in shrunk.items():
        _shrink(module.graph, node, dim, shrunk)
    # Only now: the rules read the shapes from before.
    for node, dim in shrunk.items():
        node.meta["val"] = node.meta["val"].narrow(dim, 0, 1)
    module.graph.lint()
    module.recompile()
    return len(shrunk)


def _cut_into_slices(graph: Any) -> None:
    """Replace operators that return a list of pieces by a slice for each piece: every node is then one tensor."""
    for node in list(graph.nodes):
        piece = _piece(*node.args) if node.target is operator.getitem else None
        if piece is None:
            continue
        with graph.inserting_before(node):
            cut = graph.call_function(*piece)
        cut.meta.update(node.meta)
        node.replace_all_uses_with(cut)
        source = node.args[0]
        for unused in (node, source):
            if not unused.users:
                graph.erase_node(unused)


def _piece(source: Any, index: int) -> tuple[Any, tuple[Any, ...]] | None:
    """The operator and arguments that give piece `index` of what `source` takes to pieces."""
    import torch

    name = _name(source)
    if name == "unbind":
        return torch.ops.aten.select.int, (source.args[0], source.args[1] if len(source.args) > 1 else 0, index)
    if name in ("chunk", "split", "split_with_sizes"):
        dim = source.args[2] if len(source.args) > 2 else 0
        sizes = [piece.shape[dim] for piece in source.meta["val"]]
        if not all(isinstance(size, int) for size in sizes):  # of an open axis, as long as a call's inputs say
            return None
        start = sum(sizes[:index])
        return torch.ops.aten.slice.Tensor, (source.args[0], dim, start, start + sizes[index])
    return None


def _demands(graph: Any) -> dict[Any, Demand]:
    """For every tensor of the graph, what its users need of it; users come before what they use."""
    wanted: dict[Any, set[Demand]] = {}
    demands: dict[Any, Demand] = {}
    for node in reversed(graph.nodes):
        if _name(node) == CHECK:
            continue
        mine = wanted.pop(node, set())
        demand = next(iter(mine)) if len(mine) == 1 else None
        demands[node] = demand
        narrowed = dict(_selection(node) or (_reads(node, demand) if demand is not None else None) or ())
        for argument in node.all_input_nodes:
            wanted.setdefault(argument, set()).add(narrowed.get(argument))
    return demands


def _selection(node: Any) -> Sequence[Edge] | None:
    """What a node that picks index 0 of a dimension reads; None for every other node."""
    if _name(node) != "select" or node.args[2] != 0:
        return None
    return [(node.args[0], node.args[1] % _rank(node.args[0]))]


def _reads(node: Any, dim: int) -> Sequence[Edge] | None:
    """Which arguments must be given at index 0 of which dimension, so that the node yields index 0 of `dim`.

    An argument that is not listed is needed whole. None where the operator mixes that dimension.
    """
    if node.op != "call_function":
        return None
    rule = _RULES.get(_name(node))
    return None if rule is None else rule(node, dim)


def _elementwise(node: Any, dim: int) -> Sequence[Edge] | None:
    """Broadcasting aligns dimensions from the last; a dimension of size 1 serves every index."""
    edges = []
    for argument in _tensors(node.args):
        own = dim - (_rank(node) - _rank(argument))
        if own >= 0 and _shape(argument)[own] != 1:
            edges.append((argument, own))
    return edges


def _in_place(node: Any, dim: int) -> Sequence[Edge] | None:
    """As without the underscore, where nobody else sees the memory that is written to."""
    written = node.args[0]
    return _elementwise(node, dim) if len(written.users) == 1 and _name(written) in ALLOCATES else None


def _rows(node: Any, dim: int) -> Sequence[Edge] | None:
    """Linear layers treat rows one by one."""
    return [(node.args[0], dim)] if dim < _rank(node) - 1 else None


def _layer_norm(node: Any, dim: int) -> Sequence[Edge] | None:
    return [(node.args[0], dim)] if dim < _rank(node) - len(node.args[1]) else None


def _softmax(node: Any, dim: int) -> Sequence[Edge] | None:
    return [(node.args[0], dim)] if dim != node.args[1] % _rank(node) else None


def _matmul(node: Any, dim: int) -> Sequence[Edge] | None:
    """A row of the product needs that row of the first matrix and all of the second."""
    first = node.args[0]
    return [(first, _rank(first) - 2)] if dim == _rank(node) - 2 and first is not node.args[1] else None


def _attention(node: Any, dim: int) -> Sequence[Edge] | None:
    """A position's attention needs its own query and mask, and every key and value."""
    query, key, value, *rest = node.args
    if dim != _rank(node) - 2 or query in (key, value) or (len(rest) > 2 and rest[2]) or node.kwargs.get("is_causal"):
        return None
    mask = rest[0] if rest else node.kwargs.get("attn_mask")
    edges = [(query, dim)]
    if mask is not None and _shape(mask)[-2] != 1:
        edges.append((mask, _rank(mask) - 2))
    return edges


def _transpose(node: Any, dim: int) -> Sequence[Edge] | None:
    source, *swapped = node.args
    first, second = (each % _rank(node) for each in swapped)
    return [(source, {first: second, second: first}.get(dim, dim))]


def _permute(node: Any, dim: int) -> Sequence[Edge] | None:
    return [(node.args[0], node.args[1][dim] % _rank(node))]


def _view(node: Any, dim: int) -> Sequence[Edge] | None:
    """A dimension that a reshape leaves alone: as much before it, and as many entries in it."""
    source, shape = node.args[0], _shape(node)
    before = prod(shape[:dim])
    for own, size in enumerate(_shape(source)):
        if size == shape[dim] and prod(_shape(source)[:own]) == before:
            return [(source, own)]
    return None


def _expand(node: Any, dim: int) -> Sequence[Edge] | None:
    source = node.args[0]
    own = dim - (_rank(node) - _rank(source))
    return [(source, own)] if own >= 0 and _shape(source)[own] != 1 else []


def _unsqueeze(node: Any, dim: int) -> Sequence[Edge] | None:
    added = node.args[1] % _rank(node)
    return None if dim == added else [(node.args[0], dim - (dim > added))]


def _without(node: Any, dim: int) -> Sequence[Edge] | None:
    """Selecting an index, or squeezing, takes one dimension away."""
    source = node.args[0]
    if _rank(source) != _rank(node) + 1 or len(node.args) < 2 or not isinstance(node.args[1], int):
        return None
    return [(source, dim + (dim >= node.args[1] % _rank(source)))]


def _cat(node: Any, dim: int) -> Sequence[Edge] | None:
    joined = node.args[1] % _rank(node) if len(node.args) > 1 else 0
    return [(each, dim) for each in node.args[0]] if dim != joined else None


def _gather(node: Any, dim: int) -> Sequence[Edge] | None:
    """out[i][j] = source[i][index[i][j]], when gathering along the last: its own dimension needs all of the source."""
    source, along, index = node.args
    return [(index, dim)] if dim == along % _rank(node) else [(source, dim), (index, dim)]


def _slice(node: Any, dim: int) -> Sequence[Edge] | None:
    cut = node.args[1] % _rank(node) if len(node.args) > 1 else 0
    whole = _shape(node) == _shape(node.args[0])
    return [(node.args[0], dim)] if whole or cut != dim else None


_RULES: Mapping[str, Callable[[Any, int], Sequence[Edge] | None]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **{f"{name}_": _in_place for name in ("add", "mul", "div", "masked_fill")},
    "linear": _rows,
    "layer_norm": _layer_norm,
    "softmax": _softmax,
    "_softmax": _softmax,
    "matmul": _matmul,
    "bmm": _matmul,
    "scaled_dot_product_attention": _attention,
    "transpose": _transpose,
    "permute": _permute,
    "view": _view,
    "reshape": _view,
    "expand": _expand,
    "slice": _slice,
    "unsqueeze": _unsqueeze,
    "squeeze": _without,
    "select": _without,
    "cat": _cat,
    "gather": _gather,
}


def _shrink(graph: Any, node: Any, dim: int, shrunk: Mapping[Any, int]) -> None:
    """Make the node compute index 0 of `dim` alone, from arguments narrowed where they are not already."""
    from torch.fx.node import map_arg

    edges = dict(_reads(node, dim) or ())
    with graph.inserting_before(node):
        replaced = {argument: _narrowed(graph, argument, own, shrunk) for argument, own in edges.items()}
    node.args = map_arg(node.args, lambda each: replaced.get(each, each))
    node.kwargs = map_arg(node.kwargs, lambda each: replaced.get(each, each))
    if _name(node) in ("view", "reshape", "expand"):
        node.args = (node.args[0], [1 if own == dim else size for own, size in enumerate(node.args[1])])
    elif _name(node) == "slice" and len(node.args) > 1 and node.args[1] % _rank(node) == dim:
        node.args = (node.args[0], dim, 0, 1)


def _narrowed(graph: Any, argument: Any, dim: int, shrunk: Mapping[Any, int]) -> Any:
    """The argument at index 0 of `dim`: itself where it is computed so, else a slice of it."""
    import torch

    if shrunk.get(argument) == dim:
        return argument
    cut = graph.call_function(torch.ops.aten.slice.Tensor, (argument, dim, 0, 1))
    cut.meta["val"] = argument.meta["val"].narrow(dim, 0, 1)
    return cut


def _name(node: Any) -> str:
    packet = getattr(node.target, "overloadpacket", None)
    return "" if packet is None else str(packet.__name__)


def _is_node(value: Any) -> bool:
    return hasattr(value, "all_input_nodes")


def _tensors(arguments: Sequence[Any]) -> list[Any]:
    return [each for each in arguments if _is_node(each) and hasattr(each.meta.get("val"), "shape")]


def _shape(node: Any) -> tuple[int, ...]:
    """Its sizes; those of open axes as they were in the example, without fixing the axes to them."""
    return tuple(size if isinstance(size, int) else size.node.hint for size in node.meta["val"].shape)


def _rank(node: Any) -> int:
    return len(node.meta["val"].shape)
