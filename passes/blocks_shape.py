"""The shape of a kernel that runs for a block of rows at a time: contractions with rows between them.

Enter at `blocks_shape`, which `domain.kernel_shape` asks about inner graphs with a contraction and a reduction. What
such kernels are for and how they run: docs/design/blocks.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from graphc.errors import InternalError
from graphc.graph import Graph, Node, Value
from graphc.ops.lowering import Contraction, Elementwise, Movement, Reduction
from graphc.passes.domain import FULL, ROW, SPREAD, VIEW, Alignment, Rows, alignment, moved, reaches, views_of
from graphc.types import Shape

PRODUCT = "product"
ROW_PRODUCT, COLUMN_PRODUCT = "row", "column"


@dataclass(frozen=True)
class Product:
    """A matmul of a full value, operand number `side`, and of memory. kind: whether columns or rows are summed."""

    node: Node
    side: int
    kind: str

    @property
    def source(self) -> Value:
        """The full value, in front of transposes."""
        value = self.node.inputs[self.side]
        while value.op.name == "transpose":
            value = value.node.inputs[0]
        return value

    @property
    def other(self) -> Value:
        """The operand in memory."""
        return self.node.inputs[1 - self.side]


@dataclass(frozen=True)
class BlocksShape:
    """A kernel of blocks. `full` is [batch..., rows, columns], or with the last two exchanged.

    Classes: full and row as in `RowsShape` (`column` is what is reduced), view, and product: the result of a row or
    column product, and elementwise nodes behind row products.
    """

    full: Shape
    row: int
    column: int
    classes: Mapping[Value, str]
    entering: tuple[Node, ...]
    reductions: tuple[Node, ...]
    products: tuple[Product, ...]


def blocks_shape(graph: Graph) -> BlocksShape:
    """The shape of an inner graph. InternalError where it has none: the pass should not have formed it."""
    if "blocks shape" not in graph.derived:
        graph.derived["blocks shape"] = _blocks_shape(graph)
    found: BlocksShape = graph.derived["blocks shape"]
    return found


def _blocks_shape(graph: Graph) -> BlocksShape:
    nodes = graph.order()
    views = views_of(nodes)
    reductions = [node for node in nodes if isinstance(node.op.lowering, Reduction) and Value(node) not in views]
    if reductions:
        return _shape(nodes, views, reductions[0].inputs[0].type.shape, reductions[0].attrs["axes"])
    # every statistic comes from another kernel: either axis may be that of the columns
    entering = [node for node in nodes if isinstance(node.op.lowering, Contraction)]
    if not entering:
        raise _no_shape("no matrix is made or reduced")
    full = entering[0].types[0].shape
    try:
        return _shape(nodes, views, full, (len(full) - 1,))
    except _NoShape:
        return _shape(nodes, views, full, (len(full) - 2,))


def _shape(nodes: Sequence[Node], views: Iterable[Value], full: Shape, axes: Sequence[int]) -> BlocksShape:
    """The shape with matrices of shape `full` that are reduced over `axes`."""
    rank = len(full)
    if len(axes) != 1 or rank < 2 or axes[0] < rank - 2:
        raise _no_shape(f"a reduction over the axes {axes} of {full}")
    column = axes[0]
    found = _Classes(Rows(full, (column,)), 2 * rank - 3 - column, dict.fromkeys(views, VIEW))
    for node in nodes:
        for value in node.outputs:
            if value not in found.classes:
                found.classes[value] = found.class_of(node)
    if not found.entering:
        raise _no_shape("nothing makes its matrices")
    return BlocksShape(
        full, found.row, column, found.classes, tuple(found.entering), tuple(found.reductions), tuple(found.products)
    )


def has_blocks_shape(graph: Graph) -> bool:
    """Whether a graph is one for a kernel of blocks."""
    try:
        blocks_shape(graph)
    except _NoShape:
        return False
    return True


class _NoShape(InternalError):
    """A graph is none for a kernel of blocks."""


def _no_shape(why: str) -> _NoShape:
    return _NoShape(f"a kernel of blocks without a shape: {why}")


class _Classes:
    """The classes of the nodes, in order."""

    def __init__(self, rows: Rows, row: int, classes: dict[Value, str]) -> None:
        self.rows, self.row, self.classes = rows, row, classes
        self.turned: set[Value] = set()  # transposed full values, which only products may read
        self.entering: list[Node] = []
        self.reductions: list[Node] = []
        self.products: list[Product] = []
        self.product_of: dict[Value, Product] = {}
        self.spread: dict[Value, Alignment] = {}  # rows that are broadcast for the epilogue of a product

    def class_of(self, node: Node) -> str:
        kind, shape = node.op.lowering, node.types[0].shape
        if isinstance(kind, Contraction):
            return self._contraction(node)
        if any(v in self.turned for v in node.inputs):
            raise _no_shape(f"{node.op.name} of a transposed full value")
        if isinstance(kind, Reduction):
            if self.classes[node.inputs[0]] != FULL or tuple(node.attrs["axes"]) != self.rows.reduced:
                raise _no_shape(f"{node.op.name} over {node.inputs[0].type.shape}")
            self.reductions.append(node)
            return ROW
        if isinstance(kind, Movement):
            return self._movement(node)
        if not isinstance(kind, Elementwise):
            raise _no_shape(f"{node.op.name} in blocks")
        classes = {self.classes[v] for v in node.inputs} - {VIEW}
        if PRODUCT in classes:
            return self._behind_product(node)
        if shape == self.rows.full:
            return FULL
        if alignment(shape, self.rows) is None or FULL in classes:
            raise _no_shape(f"{node.op.name} {node.types[0]}")
        return ROW

    def _movement(self, node: Node) -> str:
        operand, shape = node.inputs[0], node.types[0].shape
        found = self.classes[operand]
        if found == FULL and node.op.name == "transpose":
            self.turned.add(Value(node))
            return FULL
        if found == ROW and node.op.lowering.inside is None:
            before = alignment(operand.type.shape, self.rows)
            after = moved(before, node, self.rows) if before is not None else None
            if after is not None and reaches(after, self.rows, FULL, shape) and shape == self.rows.full:
                return FULL
            if after is not None and alignment(shape, self.rows) is not None:
                return ROW
            if after is not None and node.op.name == "broadcast_to":
                self.spread[Value(node)] = after
                return PRODUCT
        raise _no_shape(f"{node.op.name} of a {found} value")

    def _contraction(self, node: Node) -> str:
        sides = [n for n, v in enumerate(node.inputs) if self.classes[v] != VIEW]
        if not sides:
            if node.types[0].shape != self.rows.full:
                raise _no_shape(f"a matmul {node.types[0]} that enters {self.rows.full}")
            self.entering.append(node)
            return FULL
        if len(sides) > 1 or self.classes[node.inputs[sides[0]]] != FULL or node.op.name != "matmul":
            raise _no_shape(f"{node.op.name} of two values of the kernel")
        summed = product_axis(node.inputs[sides[0]], sides[0])
        kind = ROW_PRODUCT if summed == self.rows.reduced[0] else COLUMN_PRODUCT
        if summed not in (self.row, *self.rows.reduced):
            raise _no_shape("a product over a batch axis")
        if kind == COLUMN_PRODUCT and sides[0] != 0:
            raise _no_shape("a column product that has its columns as columns")
        self.products.append(Product(node, sides[0], kind))
        self.product_of[Value(node)] = self.products[-1]
        return PRODUCT

    def _behind_product(self, node: Node) -> str:
        """An elementwise node behind a row product: rows that it reads run along the rows of the product."""
        found = {self.product_of[v] for v in node.inputs if v in self.product_of}
        if len(found) != 1 or any(self.classes[v] in (FULL, ROW) for v in node.inputs):
            raise _no_shape(f"{node.op.name} of several products, or of rows alone")
        (product,) = found
        shape = node.types[0].shape
        rank, place = len(shape), len(shape) - 2 + product.side
        expected = [axis if axis < rank - 2 else self.row if axis == place else SPREAD for axis in range(rank)]
        for v in node.inputs:
            aligned = self.spread.get(v, tuple(expected))
            if any(size != 1 and a != b for a, b, size in zip(aligned, expected, shape, strict=True)):
                raise _no_shape(f"{node.op.name} {node.types[0]} reads rows along another axis")
        if product.kind == COLUMN_PRODUCT:
            raise _no_shape(f"{node.op.name} of a column product")
        self.product_of[Value(node)] = product
        return PRODUCT


def product_axis(operand: Value, side: int) -> int:
    """The axis of a full value over which a matmul sums that reads it, maybe transposed, as operand `side`."""
    rank = operand.type.rank
    axis = rank - 1 if side == 0 else rank - 2
    while operand.op.name == "transpose":
        axis = operand.node.attrs["axes"][axis]
        operand = operand.node.inputs[0]
    return axis
