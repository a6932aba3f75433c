"""Kernels that reduce columns in several stages become one kernel for each stage.

A sum over the rows of [rows, columns] is complete when all rows have been read, so what waits for it can only run in
parallel, and in the order of memory, as a kernel of its own: batch norm is a kernel for the means, one for the
variances and one for the result. Between them go values of one row; what is full is computed again from the operands.
Enter at `split_columns`. Kernels of a known size up to `SMALL` stay as they are: their columns are in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.graph import Graph, Node, Value, make_node, origin_of
from graphc.ops.lowering import Gather, Reduction
from graphc.passes.domain import FULL, ROW, SCALAR, RowsShape, kernel_shape
from graphc.passes.kernel_nodes import follow, kernel_node, operands_now, placeholder
from graphc.types import product

SMALL = 16 * 1024  # elements


def split_columns(graph: Graph) -> Graph:
    """The graph with those kernels in parts. Each part computes what its values are made of, as it was written."""
    new: dict[Value, Value] = {}
    for node in graph.order():
        stages = _Stages(node) if node.op.name == "kernel" else None
        if stages is not None and stages.several:
            new.update(zip(node.outputs, stages.kernels(operands_now(node, new)), strict=True))
        else:
            follow(node, new)
    return graph.with_outputs([new.get(v, v) for v in graph.outputs]) if new else graph


class _Stages:
    """The stages of one kernel. `several`: whether it is to be split at all."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.inner: Graph = node.attrs["graph"]
        shape = kernel_shape(self.inner)
        self.several = isinstance(shape, RowsShape) and reduces_columns(shape, self.inner)
        if not isinstance(shape, RowsShape) or not self.several:
            return
        self.shape = shape
        self.level: dict[Node, int] = {}  # how many reductions, one behind the other, a node needs
        for inner in self.inner.order():
            level = max((self.level[v.node] for v in inner.inputs), default=0)
            self.level[inner] = level + (inner in shape.reductions)
        self.several = max(self._stage(v) for v in shape.classes if self._is_placed(v)) > 0

    def _is_placed(self, value: Value) -> bool:
        return self.shape.classes[value] in (FULL, ROW, SCALAR)

    def _stage(self, value: Value) -> int:
        """The part that computes a value: that of the reductions which rows follow from; the next one if it is full."""
        level = self.level[value.node]
        return level if self.shape.classes[value] == FULL else max(level - 1, 0)

    def kernels(self, operands: Sequence[Value]) -> list[Value]:
        """The values of the kernel's results, computed by a kernel for each stage."""
        last = max(self._stage(v) for v in self.inner.outputs)
        roots: list[dict[Value, None]] = [{} for _ in range(last + 1)]
        for value in self.inner.outputs:
            roots[self._stage(value)][value] = None
        for stage in range(last, -1, -1):
            for value in self._received(roots[stage], stage):
                roots[self._stage(value)][value] = None
        known = dict(zip(self.inner.inputs, operands, strict=True))
        for stage, wanted in enumerate(roots):
            if wanted:
                known.update(zip(wanted, self._kernel(stage, list(wanted), known), strict=True))
        return [known[v] for v in self.inner.outputs]

    def _is_received(self, value: Value, stage: int) -> bool:
        """Whether a part gets a value from an earlier one. A part that reduces nothing has no rows of its own."""
        if self._stage(value) >= stage:
            return False
        found, level = self.shape.classes[value], self.level[value.node]
        if found == ROW and level == 0:
            return all(self.level[node] != stage + 1 for node in self.shape.reductions)
        return found in (ROW, SCALAR) and level > 0

    def _received(self, roots: dict[Value, None], stage: int) -> dict[Value, None]:
        found: dict[Value, None] = {}
        seen: set[Value] = set()
        stack = list(roots)
        while stack:
            value = stack.pop()
            if value in seen:
                continue
            seen.add(value)
            if self._is_received(value, stage):
                found[value] = None
            else:
                stack.extend(value.node.inputs)
        return found

    def _kernel(self, stage: int, wanted: list[Value], known: dict[Value, Value]) -> Sequence[Value]:
        """The kernel of one stage; `known` has the outer values of operands and of what earlier stages computed."""
        copies: dict[Value, Value] = {}
        operands: dict[Value, Value] = {}  # outer value -> placeholder
        for node in self._order(wanted, known):
            value = Value(node)
            if value in known:
                copies[value] = placeholder(operands, known[value], value.type)
            else:
                inputs = [copies[v] for v in node.inputs]
                copies[value] = Value(make_node(node.op, inputs, node.attrs, origin_of(node)))
        name = f"{self.inner.name}_part{stage}"
        graph = Graph(tuple(operands.values()), tuple(copies[v] for v in wanted), (), name)
        return kernel_node(list(operands), graph, [self.node]).outputs

    def _order(self, wanted: list[Value], known: dict[Value, Value]) -> list[Node]:
        """The nodes that `wanted` is made of, operands first; of what is known, nothing behind it."""
        needed: set[Node] = set()
        stack = [v.node for v in wanted]
        while stack:
            node = stack.pop()
            if node not in needed:
                needed.add(node)
                if Value(node) not in known:
                    stack.extend(v.node for v in node.inputs)
        return [node for node in self.inner.order() if node in needed]


def reduces_columns(shape: RowsShape, inner: Graph) -> bool:
    """Whether all axes but the last are reduced, by folds, and the kernel is not small."""
    axes = [axis for axis, size in enumerate(shape.full) if size != 1]
    if not shape.reductions or not axes[:-1] or axes[:-1] != [axis for axis in axes if axis in shape.reduced]:
        return False
    size = product(shape.full)
    if isinstance(size, int) and size <= SMALL:
        return False
    nodes = inner.order()
    folds = all(isinstance(node.op.lowering, Reduction) for node in shape.reductions)
    return folds and not any(isinstance(node.op.lowering, Gather) or len(node.types) > 1 for node in nodes)
