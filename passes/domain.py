"""What loops a kernel needs: the full shape, the reduced axes, and the class of every value inside.

`kernel_shape(graph)` reads the inner graph of a kernel and says which of the shapes of docs/design/core.md it has:
`ContractionShape`, `RowsShape`, `ScatterShape`, ...; the loop level schedules by it and fusion forms only kernels for
which it gives an answer. The rules are few functions on `Rows`, shared with fusion: `alignment` (which axes of a row
value are which axes of the full shape), `moved` (what movement does to them) and `reaches`. To allow a further shape,
add a class here and its branch in `kernel_shape`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Union

from graphc.errors import InternalError
from graphc.graph import Graph, Node, Value, topological_order
from graphc.ops.lowering import (
    ArgReduction,
    Contraction,
    Elementwise,
    IndexValue,
    Matrices,
    Movement,
    Reduction,
    Scan,
    ScatterAdd,
    Sort,
)
from graphc.types import Shape

if TYPE_CHECKING:
    from graphc.passes.blocks_shape import BlocksShape
    from graphc.passes.product_rows import ProductRowsShape

VIEW, SCALAR, ROW, FULL, COLUMN = "view", "scalar", "row", "full", "column"
RANK = {VIEW: 0, SCALAR: 1, ROW: 2, FULL: 3, COLUMN: 4}
SOURCES = frozenset({"placeholder", "parameter", "constant"})
Alignment = tuple[int | None, ...]
SPREAD = -1  # an axis that broadcasting made, along no axis of the full shape


@dataclass(frozen=True)
class Rows:
    """The loops of a rows kernel: its full shape and which of its axes are reduced (sorted; maybe none)."""

    full: Shape
    reduced: tuple[int, ...] = ()

    @property
    def kept(self) -> tuple[int, ...]:
        """The axes that are not reduced."""
        return tuple(axis for axis in range(len(self.full)) if axis not in self.reduced)


@dataclass(frozen=True)
class RowsShape:
    """A rows kernel. `classes` has every value of the graph:

    full    shape `full` exactly
    row     one element for each index of the kept axes; its shape may lack the reduced axes or hold 1 there
    scalar  one element for the kernel; those of `after_total` exist only in the finish
    column  a sum of full values over the kept axes, beside the rows, and what follows from it: only in the finish
    view    no element of its own: operands, constants, indices and what movement and index arithmetic make of them;
            read where a value of another class needs it, at any index

    reductions: from full to row, over `reduced`; totals: from row (full, where nothing is reduced) to scalar; columns:
    from full to column, over `kept`; all in an order in which they can be computed. With columns, the reduced axes are
    the last ones.
    """

    full: Shape
    reduced: tuple[int, ...]
    classes: Mapping[Value, str]
    reductions: tuple[Node, ...]
    totals: tuple[Node, ...]
    after_total: frozenset[Value]
    columns: tuple[Node, ...] = ()

    @property
    def kept(self) -> tuple[int, ...]:
        return Rows(self.full, self.reduced).kept


@dataclass(frozen=True)
class ContractionShape:
    """A matmul, the shape of its result (`full`) and the elementwise nodes behind it. Classes: full, view.

    computed: operands of the matmul that are no views of memory, by position: the elementwise value of which the matmul
    reads a view. It and what it is made of are read at any index and never stored, as views are.
    """

    matmul: Node
    full: Shape
    classes: Mapping[Value, str]
    epilogue: tuple[Node, ...]
    computed: Mapping[int, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class ScatterShape:
    """A scatter_add, alone; its operands are views."""

    scatter: Node
    full: Shape
    classes: Mapping[Value, str]


@dataclass(frozen=True)
class ScanShape:
    """A scan, alone; its operand is a view."""

    scan: Node
    full: Shape
    classes: Mapping[Value, str]


@dataclass(frozen=True)
class SortShape:
    """A sort, alone; its operand is a view."""

    sort: Node
    full: Shape
    classes: Mapping[Value, str]


@dataclass(frozen=True)
class MatricesShape:
    """An op over whole matrices, alone; its operands are views."""

    node: Node
    full: Shape
    classes: Mapping[Value, str]


KernelShape = Union[
    ContractionShape, RowsShape, ScatterShape, ScanShape, SortShape, MatricesShape, "BlocksShape", "ProductRowsShape"
]


def one_element(shape: Shape) -> bool:
    """Whether a value of this shape has one element, whatever the names stand for."""
    return all(size == 1 for size in shape)


def is_total(node: Node) -> bool:
    """Whether a reduction goes over all axes: the result is one scalar."""
    return isinstance(node.op.lowering, Reduction) and len(node.attrs["axes"]) == node.inputs[0].type.rank


def reduced_axes(node: Node) -> tuple[int, ...]:
    """The axes of a Reduction or ArgReduction node."""
    if isinstance(node.op.lowering, ArgReduction):
        return (node.attrs["axis"],)
    return tuple(node.attrs["axes"])


def is_indexed(node: Node) -> bool:
    """Whether a node's value follows from indices and sizes alone: iota, dim_value, constants of one element."""
    if node.op.name == "constant":
        return one_element(node.types[0].shape)
    return isinstance(node.op.lowering, IndexValue) or node.op.name in ("iota", "dim_value")


def across(rows: Rows, columns: Rows) -> bool:
    """Whether `columns` reduces what `rows` keeps, of the same values, and `rows` the axes behind that."""
    axes = [axis for axis, size in enumerate(rows.full) if size != 1]
    kept = [axis for axis in axes if axis not in rows.reduced]
    reduced = [axis for axis in axes if axis in rows.reduced]
    opposite = [axis for axis in axes if axis in columns.reduced] == kept
    return rows.full == columns.full and opposite and bool(kept and reduced) and axes == kept + reduced


def alignment(shape: Shape, rows: Rows) -> Alignment | None:
    """For each axis of a row value the axis of the full shape (None: of size 1), or None if it is no row value."""
    kept = [axis for axis in rows.kept if rows.full[axis] != 1]
    if [size for size in shape if size != 1] != [rows.full[axis] for axis in kept]:
        return None
    axes = iter(kept)
    return tuple(next(axes) if size != 1 else None for size in shape)


def moved(aligned: Alignment, node: Node, rows: Rows) -> Alignment | None:
    """The alignment of a row value behind a movement node; None where it is no view of a row any more."""
    name, before, after = node.op.name, node.inputs[0].type.shape, node.types[0].shape
    if name == "transpose":
        return tuple(aligned[axis] for axis in node.attrs["axes"])
    if name == "reshape":
        if SPREAD in aligned or [s for s in before if s != 1] != [s for s in after if s != 1]:
            return None
        axes = iter([axis for axis in aligned if axis is not None])
        return tuple(next(axes) if size != 1 else None for size in after)
    if name == "broadcast_to":
        padded: Alignment = (None,) * (len(after) - len(before)) + aligned
        return tuple(SPREAD if a is None and size != 1 else a for a, size in zip(padded, after, strict=True))
    return None


def reaches(aligned: Alignment, rows: Rows, wanted: str, shape: Shape) -> bool:
    """Whether a row value, moved to `aligned` and `shape`, is what a node of class `wanted` reads at its own index."""
    if wanted == FULL:
        kept = [axis if axis in rows.kept and rows.full[axis] != 1 else None for axis in range(len(rows.full))]
        return shape == rows.full and [a if a != SPREAD else None for a in aligned] == kept
    axes = [axis for axis in aligned if axis is not None]
    return wanted == ROW and SPREAD not in axes and axes == sorted(axes)


def class_of_shape(shape: Shape, rows: Rows) -> str | None:
    """The lowest class that a value read from memory can have in these rows."""
    if one_element(shape):
        return SCALAR
    if rows.reduced and alignment(shape, rows) is not None:
        return ROW
    return FULL if shape == rows.full else None


def kernel_shape(graph: Graph) -> KernelShape:
    """The shape of a kernel's inner graph. InternalError where it has none: fusion should not have formed it."""
    if "kernel shape" not in graph.derived:
        graph.derived["kernel shape"] = _kernel_shape(graph)
    found: KernelShape = graph.derived["kernel shape"]
    return found


def _kernel_shape(graph: Graph) -> KernelShape:
    nodes = graph.order()
    kinds = [type(node.op.lowering) for node in nodes]
    if any(issubclass(kind, ScatterAdd) for kind in kinds):
        return ScatterShape(*_alone(graph, nodes, ScatterAdd))
    if Scan in kinds:
        return ScanShape(*_alone(graph, nodes, Scan))
    if Sort in kinds:
        return SortShape(*_alone(graph, nodes, Sort))
    if Matrices in kinds:
        return MatricesShape(*_alone(graph, nodes, Matrices))
    if kinds.count(Contraction) > 1 or (Contraction in kinds and {Reduction, ArgReduction}.intersection(kinds)):
        from graphc.passes.blocks_shape import blocks_shape
        from graphc.passes.product_rows import product_rows

        return product_rows(graph) or blocks_shape(graph)
    if Contraction in kinds:
        return contraction_shape(graph)
    from graphc.passes.row_classes import RowClasses  # which reads this module

    return RowClasses(graph, nodes).shape()


def views_of(nodes: Sequence[Node]) -> dict[Value, bool]:
    """The values that are views; True for those that read no operand."""
    views: dict[Value, bool] = {}
    for node in nodes:
        if node.op.name in SOURCES or is_indexed(node):
            views[Value(node)] = is_indexed(node)
        elif isinstance(node.op.lowering, Movement) and node.inputs[0] in views:
            views[Value(node)] = views[node.inputs[0]]
        elif isinstance(node.op.lowering, Elementwise) and all(views.get(v) for v in node.inputs):
            views[Value(node)] = True
    return views


def _alone(graph: Graph, nodes: list[Node], kind: type) -> tuple[Node, Shape, dict[Value, str]]:
    """The one node of a kernel that is no view, its shape, and the classes."""
    views = views_of(nodes)
    others = [node for node in nodes if Value(node) not in views]
    if len(others) != 1 or not isinstance(others[0].op.lowering, kind):
        raise no_shape(graph, f"a {kind.__name__} stands alone")
    return others[0], others[0].types[0].shape, dict.fromkeys(views, VIEW) | {Value(others[0]): FULL}


def contraction_shape(graph: Graph) -> ContractionShape:
    """The shape of an inner graph with one contraction. InternalError if more than elementwise nodes is around it."""
    nodes = graph.order()
    views = dict.fromkeys(views_of(nodes), VIEW)
    (matmul,) = (node for node in nodes if isinstance(node.op.lowering, Contraction))
    computed: dict[int, Value] = {}
    before: set[Node] = set()
    for position, operand in enumerate(matmul.inputs):
        if operand not in views:
            computed[position] = below_movement(operand)
            before |= set(topological_order([operand.node]))
    for node in before:
        if not (node.op.name in SOURCES or is_indexed(node) or isinstance(node.op.lowering, (Elementwise, Movement))):
            raise no_shape(graph, f"{node.op.name} {node.types[0]} feeds an operand of a matmul")
    views |= {value: VIEW for node in before for value in node.outputs}
    full = matmul.types[0].shape
    others = [node for node in nodes if Value(node) not in views]
    epilogue = tuple(node for node in others if node is not matmul)
    for node in epilogue:
        if not isinstance(node.op.lowering, Elementwise) or node.types[0].shape != full:
            raise no_shape(graph, f"{node.op.name} {node.types[0]} is no epilogue of {full}")
    classes = views | {Value(node): FULL for node in others}
    return ContractionShape(matmul, full, classes, epilogue, computed)


def below_movement(value: Value) -> Value:
    """What a value is a movement of."""
    while isinstance(value.op.lowering, Movement):
        value = value.node.inputs[0]
    return value


def no_shape(graph: Graph, why: str) -> InternalError:
    from graphc.text import to_text

    return InternalError(f"a kernel without a shape: {why}\n{to_text(graph)}")
