"""float16 and bfloat16 are how values are stored: arithmetic runs in float32, and every op rounds its result once.

Enter at `widen`. A node that computes with narrow floats becomes float32 between casts; what only moves elements stays
as it is. Since each op rounds, as NumPy's do, the bits are the same however the nodes are fused; sums and products of
a reduction, a scan, a scatter or a contraction are float32 until the last one. The interpreter does the same
(`graphc.interpret.referred`).
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.graph import Graph, Node, Value, make_node
from graphc.ops.lowering import Concat, Gather, IndexValue, Movement, ScatterInto
from graphc.ops.registry import OPS
from graphc.types import DType, float32

_MOVES = (Movement, Concat, Gather, IndexValue)
_AS_THEY_ARE = frozenset({"cast", "where", "stop_gradient", "constant", "dim_value", "kernel"})


def widen(graph: Graph) -> Graph:
    """The graph in which no arithmetic has narrow operands or results."""

    def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        narrow = any(t.dtype.is_narrow for t in (*node.types, *(v.type for v in inputs)))
        if not narrow or node.op.unique or _moves(node):
            return None
        wide = make_node(node.op, [_cast(v, float32) if v.type.dtype.is_narrow else v for v in inputs], node.attrs)
        return [_cast(v, t.dtype) for v, t in zip(wide.outputs, node.types, strict=True)]

    return graph.rewrite(visit)


def _moves(node: Node) -> bool:
    lowering = node.op.lowering
    if isinstance(lowering, ScatterInto):
        return lowering.combine(float32) is None
    return isinstance(lowering, _MOVES) or node.op.name in _AS_THEY_ARE


def _cast(value: Value, dtype: DType) -> Value:
    if value.type.dtype is dtype:
        return value
    return Value(make_node(OPS["cast"], (value,), {"dtype": dtype}))
