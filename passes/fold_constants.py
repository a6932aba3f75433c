"""Constant folding: nodes whose operands are constants are computed now, with the ops' NumPy references.

Enter at `fold_constants`. Left alone: effects, what would raise (an index out of range must fail at run time, at its
line), results of more elements than the setting `fold_limit`, results of named sizes, and what only spreads values
(`broadcast_to`, `iota`): those cost a kernel nothing and memory a lot.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.conversion import cast_array
from graphc.errors import InternalError
from graphc.graph import ConstantData, Graph, Node, Value, make_node
from graphc.interpret import referred
from graphc.ops.registry import OPS
from graphc.settings import current

KEPT = frozenset({"constant", "broadcast_to", "iota", "kernel"})


def fold_constants(graph: Graph) -> Graph:
    """The graph with constants in place of what follows from constants, to the bit."""
    limit = current().fold_limit

    def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if node.op.name in KEPT or node.op.reference is None or node.op.effect != "none":
            return None
        if any(v.op.name != "constant" for v in inputs) or not _small(node, limit):
            return None
        return _folded(node, [v.node.attrs["data"].array for v in inputs])

    return graph.rewrite(visit)


def _small(node: Node, limit: int) -> bool:
    sizes = [t.size for t in node.types]
    return (bool(node.inputs) or node.op.name == "dim_value") and all(isinstance(s, int) and s <= limit for s in sizes)


def _folded(node: Node, arrays: list[np.ndarray]) -> list[Value] | None:
    if any(not isinstance(size, int) for size in _sizes_in(node)):
        return None
    try:
        with np.errstate(all="ignore"):
            results = referred(node, arrays, node.attrs)
    except Exception:  # it fails in the same way at run time, where the user can see which call did it
        return None
    folded: list[Value] = []
    for result, expected in zip(results, node.types, strict=True):
        array = cast_array(np.asarray(result), expected.dtype)
        if array.shape != expected.shape:
            raise InternalError(f"the reference of {node.op.name} gave {array.shape} where {expected} was due")
        folded.append(Value(make_node(OPS["constant"], (), {"data": ConstantData(array)})))
    return folded


def _sizes_in(node: Node) -> list[object]:
    """All sizes among the attributes: a name in one has no value yet."""
    found: list[object] = []
    for name in ("shape", "size", "starts", "stops", "steps"):
        value = node.attrs.get(name, ())
        found += value if isinstance(value, (tuple, list)) else [value]
    return found
