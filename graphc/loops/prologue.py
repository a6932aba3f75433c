"""Prologues: an operand of a contraction that the kernel computes itself, element by element.

Enter at `with_prologues`, which gives the operands of an arranged contraction what computes them. `prepack.prepacked`
decides where that happens: while a chunk packs the operand, once for all chunks in an earlier region, or, where the
operand is not packed or would be computed too often, by a kernel that stores it as an array (docs/design/prologues.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graphc.graph import Graph, Node, Value, topological_order
from graphc.loops.builder import Builder, Scalar
from graphc.loops.computed import Reader
from graphc.loops.cost import body_cost
from graphc.loops.evaluate import Checks, Evaluator, Index, Point
from graphc.loops.ir import LoopKernel
from graphc.loops.lower_rows import lower_rows
from graphc.loops.nest import Arrangement
from graphc.loops.problem import Operand
from graphc.ops.lowering import Elementwise
from graphc.passes.domain import RowsShape, kernel_shape
from graphc.target import Target
from graphc.types import DType, Size

BUFFER = "computed"  # with the position behind it: how an arrangement calls what is no buffer


def with_prologues(
    arranged: Arrangement, roots: Mapping[int, tuple[Value, Index]], graph: Graph, symbols: Mapping[str, str],
    target: Target,
) -> Arrangement:  # fmt: skip
    """The arrangement with what computes operands. roots: by position, the value and where an element of the product
    reads it, as an index over the symbols of the labels.
    """

    def prologue(operand: Operand) -> Operand:
        if not operand.buffer.startswith(BUFFER):
            return operand
        root, index = roots[int(operand.buffer[len(BUFFER) :])]
        return replace(operand, computed=Prologue(root, index, arranged, graph, symbols, target))

    a, b = prologue(arranged.problem.a), prologue(arranged.problem.b)
    return replace(arranged, problem=replace(arranged.problem, a=a, b=b))


class Prologue:
    """What computes one operand. See `graphc.loops.computed.Computed`."""

    def __init__(
        self, root: Value, index: Index, arranged: Arrangement, graph: Graph, symbols: Mapping[str, str], target: Target
    ) -> None:
        self.root, self.index, self.arranged = root, index, arranged
        self.symbols, self.target = symbols, target
        nodes = topological_order([root.node])
        self.inputs = [v for v in graph.inputs if v.node in nodes]
        self.sources = tuple(f"b{n}" for n, v in enumerate(graph.inputs) if v.node in nodes)
        self.dtypes: tuple[DType, ...] = tuple(v.type.dtype for v in self.inputs)
        self.name = "_".join(list(dict.fromkeys(n.op.name for n in nodes if _is_elementwise(n)))[-3:])
        self.size = root.type.size
        read = sum(v.type.dtype.itemsize for v in self.inputs if v.type.size == self.size)
        self.narrow = 0 < read < root.type.dtype.itemsize
        self.cost = sum(body_cost(node) for node in nodes)

    def reader(self, buffers: Sequence[str], builder: Builder) -> Reader:
        extents: dict[str, Size] = {self.symbols[label]: size for label, size in self.arranged.sizes.items()}
        graph = Graph(tuple(self.inputs), (self.root,))
        evaluator = Evaluator(builder, graph, dict(zip(self.inputs, buffers, strict=True)), extents, Checks())

        def read(
            h: Builder, batch: tuple[Size, ...], row: Size, col: Size, steps: tuple[Size, ...], mask: Scalar | None
        ) -> Scalar:
            at = {**self.arranged.place(batch, row, col), **self.arranged.step(steps)}
            point = Point({symbol: at.get(label, 0) for label, symbol in self.symbols.items()}, mask)
            return evaluator.at(self.root, self.index, point)

        return read

    def stored(self) -> tuple[LoopKernel, Mapping[str, Size]]:
        graph = Graph(tuple(self.inputs), (self.root,), (), self.name)
        shape = kernel_shape(graph)
        assert isinstance(shape, RowsShape)
        lowered, values = lower_rows(self.name, graph, shape, self.target, Checks())
        return lowered.kernel, values


def _is_elementwise(node: Node) -> bool:
    return isinstance(node.op.lowering, Elementwise)
