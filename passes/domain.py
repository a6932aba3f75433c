"""What loops a kernel needs: the full shape, the reduced axes, and the class of every value inside.

`kernel_shape(graph)` reads the inner graph of a kernel and says which of the shapes of docs/design/core.md it has:
`ContractionShape`, `RowsShape` or `ScatterShape`; the loop level schedules by it and fusion forms only kernels for
which it gives an answer. The rules are few functions on `Rows`, shared with fusion: `alignment` (which axes of a row
value are which axes of the full shape), `moved` (what movement does to them) and `reaches`. To allow a further shape,
add a class here and its branch in `kernel_shape`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Union

from graphc.errors import InternalError
from graphc.graph import Graph, Node, Value
from graphc.ops.lowering import (
    ArgReduction,
    Concat,
    Contraction,
    Elementwise,
    Gather,
    IndexValue,
    Movement,
    Reduction,
    Scan,
    ScatterAdd,
    Sort,
)
from graphc.types import Shape

VIEW, SCALAR, ROW, FULL = "view", "scalar", "row", "full"
RANK = {VIEW: 0, SCALAR: 1, ROW: 2, FULL: 3}
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
    view    no element of its own: operands, constants, indices and what movement and index arithmetic make of them;
            read where a value of another class needs it, at any index

    reductions: from full to row, over `reduced`; totals: from row (full, where nothing is reduced) to scalar; both in
    an order in which they can be computed.
    """

    full: Shape
    reduced: tuple[int, ...]
    classes: Mapping[Value, str]
    reductions: tuple[Node, ...]
    totals: tuple[Node, ...]
    after_total: frozenset[Value]

    @property
    def kept(self) -> tuple[int, ...]:
        return Rows(self.full, self.reduced).kept


@dataclass(frozen=True)
class ContractionShape:
    """A matmul, the shape of its result (`full`) and the elementwise nodes behind it. Classes: full, view."""

    matmul: Node
    full: Shape
    classes: Mapping[Value, str]
    epilogue: tuple[Node, ...]


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


KernelShape = Union[ContractionShape, RowsShape, ScatterShape, ScanShape, SortShape]


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
    nodes = graph.order()
    kinds = [type(node.op.lowering) for node in nodes]
    if any(issubclass(kind, ScatterAdd) for kind in kinds):
        return ScatterShape(*_alone(graph, nodes, ScatterAdd))
    if Scan in kinds:
        return ScanShape(*_alone(graph, nodes, Scan))
    if Sort in kinds:
        return SortShape(*_alone(graph, nodes, Sort))
    if Contraction in kinds:
        return _contraction(graph, nodes)
    return _Classifier(graph, nodes).shape()


def _views(nodes: list[Node]) -> dict[Value, bool]:
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
    views = _views(nodes)
    others = [node for node in nodes if Value(node) not in views]
    if len(others) != 1 or not isinstance(others[0].op.lowering, kind):
        raise _no_shape(graph, f"a {kind.__name__} stands alone")
    return others[0], others[0].types[0].shape, dict.fromkeys(views, VIEW) | {Value(others[0]): FULL}


def _contraction(graph: Graph, nodes: list[Node]) -> ContractionShape:
    views = _views(nodes)
    others = [node for node in nodes if Value(node) not in views]
    matmuls = [node for node in others if isinstance(node.op.lowering, Contraction)]
    epilogue = tuple(node for node in others if node is not matmuls[0])
    full = matmuls[0].types[0].shape
    if len(matmuls) != 1 or any(v not in views for v in matmuls[0].inputs):
        raise _no_shape(graph, "a contraction kernel has one matmul, of operands")
    for node in epilogue:
        if not isinstance(node.op.lowering, Elementwise) or node.types[0].shape != full:
            raise _no_shape(graph, f"{node.op.name} {node.types[0]} is no epilogue of {full}")
    classes = dict.fromkeys(views, VIEW) | {Value(node): FULL for node in others}
    return ContractionShape(matmuls[0], full, classes, epilogue)


def _no_shape(graph: Graph, why: str) -> InternalError:
    from graphc.text import to_text

    return InternalError(f"a kernel without a shape: {why}\n{to_text(graph)}")


class _Classifier:
    """Finds the rows of an inner graph and gives each value its class, in order."""

    def __init__(self, graph: Graph, nodes: list[Node]) -> None:
        self.graph, self.nodes, self.views = graph, nodes, _views(nodes)
        self.rows = self._rows()
        self.classes: dict[Value, str] = {}
        self.aligned: dict[Value, Alignment] = {}  # of row values that movement has touched
        self.reductions: list[Node] = []
        self.totals: list[Node] = []
        self.after_total: set[Value] = set()

    def shape(self) -> RowsShape:
        for node in self.nodes:
            for value in node.outputs:
                self.classes[value] = VIEW if value in self.views else self._class(node)
        return RowsShape(
            self.rows.full, self.rows.reduced, self.classes,
            tuple(self.reductions), tuple(self.totals), frozenset(self.after_total),
        )  # fmt: skip

    def _rows(self) -> Rows:
        found: dict[Rows, None] = {}
        for node in self.nodes:
            kind = node.op.lowering
            if isinstance(kind, ArgReduction) or (isinstance(kind, Reduction) and not is_total(node)):
                found[Rows(node.inputs[0].type.shape, reduced_axes(node))] = None
            elif isinstance(kind, Gather) and node.inputs[0] not in self.views:
                found[Rows(node.inputs[0].type.shape, (node.attrs["axis"],))] = None
        if len(found) > 1:
            raise _no_shape(self.graph, f"reductions over {' and '.join(map(str, found))}")
        return next(iter(found)) if found else Rows(self._base())

    def _base(self) -> Shape:
        shapes = [n.inputs[0].type.shape for n in self.nodes if isinstance(n.op.lowering, Reduction)]
        shapes += [v.type.shape for v in self.graph.outputs if not one_element(v.type.shape)]
        return next(iter(shapes), ())

    def _class(self, node: Node) -> str:
        kind = node.op.lowering
        if isinstance(kind, (Reduction, ArgReduction)):
            return self._reduction(node)
        if isinstance(kind, Gather):
            return self._gather(node)
        if isinstance(kind, Concat):
            return self._concat(node)
        if isinstance(kind, Movement):
            return self._movement(node)
        if not isinstance(kind, Elementwise):
            raise _no_shape(self.graph, f"{node.op.name} in rows")
        shape = node.types[0].shape
        classes = [self._read(v, shape) for v in node.inputs]
        result = max(classes, key=RANK.__getitem__, default=SCALAR)
        for v, c in zip(node.inputs, classes, strict=True):
            if c == ROW and self.classes[v] == ROW and not self._becomes(v, result):
                raise _no_shape(self.graph, f"{node.op.name} {node.types[0]} reads a row at another axis")
        self._late(node, result)
        return result

    def _read(self, value: Value, shape: Shape) -> str:
        """The class as which an operand is read."""
        found = self.classes[value]
        if found == VIEW:
            found = class_of_shape(shape, self.rows) or VIEW
        if found == VIEW:
            raise _no_shape(self.graph, f"a value of shape {shape} is neither full, row nor scalar")
        return found

    def _becomes(self, value: Value, wanted: str) -> bool:
        aligned = self.aligned.get(value) or alignment(value.type.shape, self.rows)
        return aligned is not None and reaches(aligned, self.rows, wanted, value.type.shape)

    def _late(self, node: Node, found: str) -> None:
        if any(v in self.after_total for v in node.inputs):
            self.after_total.update(node.outputs)
            if found != SCALAR or any(self.classes[v] in (ROW, FULL) for v in node.inputs):
                raise _no_shape(self.graph, f"{node.op.name} {node.types[0]} needs a total of its own kernel")

    def _reduction(self, node: Node) -> str:
        operand = node.inputs[0]
        shape, base = operand.type.shape, ROW if self.rows.reduced else FULL
        if isinstance(node.op.lowering, Reduction) and is_total(node):
            if operand in self.after_total or (self.classes[operand] == FULL) > (base == FULL):
                raise _no_shape(self.graph, f"{node.op.name} {node.types[0]}: of full values or of another total")
            if self.classes[operand] == VIEW and class_of_shape(shape, self.rows) not in (base, SCALAR):
                raise _no_shape(self.graph, f"a total over {shape}")
            self.totals.append(node)
            self.after_total.update(node.outputs)
            return SCALAR
        if shape != self.rows.full or reduced_axes(node) != self.rows.reduced or operand in self.after_total:
            raise _no_shape(self.graph, f"{node.op.name} over {shape}")
        self.reductions.append(node)
        return ROW

    def _gather(self, node: Node) -> str:
        x, indices = node.inputs
        if self.after_total & {x, indices}:
            raise _no_shape(self.graph, "a gather behind a total")
        found = self._read(indices, indices.type.shape)
        if x not in self.views and (x.type.shape != self.rows.full or node.attrs["axis"] not in self.rows.reduced):
            raise _no_shape(self.graph, "a gather along an axis that is not reduced")
        return found if x in self.views else ROW

    def _concat(self, node: Node) -> str:
        found = class_of_shape(node.types[0].shape, self.rows)
        if found is None or any(v not in self.views for v in node.inputs):
            raise _no_shape(self.graph, f"a concat {node.types[0]} of what is not in memory")
        return found

    def _movement(self, node: Node) -> str:
        operand = node.inputs[0]
        if node.op.lowering.inside is not None:
            raise _no_shape(self.graph, f"{node.op.name} of what is not in memory")
        found, shape = self.classes[operand], node.types[0].shape
        if found == SCALAR:
            if node.op.name == "slice" and not one_element(shape):
                raise _no_shape(self.graph, "a slice of a scalar")
            result = SCALAR if one_element(shape) else class_of_shape(shape, self.rows)
            if result is None:
                raise _no_shape(self.graph, f"a scalar spread to {shape}")
            self._late(node, result)
            return result
        if found == ROW:
            before = self.aligned.get(operand) or alignment(operand.type.shape, self.rows)
            after = moved(before, node, self.rows) if before is not None else None
            for wanted in (ROW, FULL):
                if after is not None and reaches(after, self.rows, wanted, shape):
                    self.aligned[Value(node)] = after
                    return wanted
            if after is not None and node.op.name in ("reshape", "transpose"):
                self.aligned[Value(node)] = after  # on the way: judged where it is read
                return ROW
        raise _no_shape(self.graph, f"{node.op.name} of a {found} value inside")
