"""The class of every value of a rows kernel: full, row, scalar, column or view (see `graphc.passes.domain`).

Enter at `RowClasses(graph, nodes).shape()`, which `domain.kernel_shape` calls. A further op inside of rows gets its
branch in `_class`.
"""

from __future__ import annotations

from graphc.graph import Graph, Node, Value
from graphc.ops.lowering import ArgReduction, Concat, Elementwise, Gather, Movement, Reduction
from graphc.passes.domain import (
    COLUMN,
    FULL,
    RANK,
    ROW,
    SCALAR,
    VIEW,
    Alignment,
    Rows,
    RowsShape,
    across,
    alignment,
    class_of_shape,
    is_total,
    moved,
    no_shape,
    one_element,
    reaches,
    reduced_axes,
    views_of,
)
from graphc.types import Shape


class RowClasses:
    """Finds the rows of an inner graph and gives each value its class, in order."""

    def __init__(self, graph: Graph, nodes: list[Node]) -> None:
        self.graph, self.nodes, self.views = graph, nodes, views_of(nodes)
        self.rows = self._rows()
        self.classes: dict[Value, str] = {}
        self.aligned: dict[Value, Alignment] = {}  # of row values that movement has touched
        self.reductions: list[Node] = []
        self.totals: list[Node] = []
        self.columns: list[Node] = []
        self.after_total: set[Value] = set()

    def shape(self) -> RowsShape:
        for node in self.nodes:
            for value in node.outputs:
                self.classes[value] = VIEW if value in self.views else self._class(node)
        return RowsShape(
            self.rows.full, self.rows.reduced, self.classes,
            tuple(self.reductions), tuple(self.totals), frozenset(self.after_total), tuple(self.columns),
        )  # fmt: skip

    def _rows(self) -> Rows:
        found: dict[Rows, None] = {}
        for node in self.nodes:
            kind = node.op.lowering
            if isinstance(kind, ArgReduction) or (isinstance(kind, Reduction) and not is_total(node)):
                found[Rows(node.inputs[0].type.shape, reduced_axes(node))] = None
            elif isinstance(kind, Gather) and node.inputs[0] not in self.views:
                found[Rows(node.inputs[0].type.shape, (node.attrs["axis"],))] = None
        if len(found) > 1:  # sums over columns beside rows
            found = {rows: None for rows in found if all(across(rows, other) for other in found if other != rows)}
            if len(found) != 1:
                raise no_shape(self.graph, f"reductions over {' and '.join(map(str, found))}")
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
            raise no_shape(self.graph, f"{node.op.name} in rows")
        shape = node.types[0].shape
        if any(self.classes[v] == COLUMN for v in node.inputs):
            return self._behind_columns(node)
        classes = [self._read(v, shape) for v in node.inputs]
        result = max(classes, key=RANK.__getitem__, default=SCALAR)
        for v, c in zip(node.inputs, classes, strict=True):
            if c == ROW and self.classes[v] == ROW and not self._becomes(v, result):
                raise no_shape(self.graph, f"{node.op.name} {node.types[0]} reads a row at another axis")
        self._late(node, result)
        return result

    def _behind_columns(self, node: Node) -> str:
        """The finish computes it for each column, of columns and of what is in memory."""
        if any(self.classes[v] not in (COLUMN, VIEW) for v in node.inputs):
            raise no_shape(self.graph, f"{node.op.name} {node.types[0]} reads columns and rows")
        return COLUMN

    def _read(self, value: Value, shape: Shape) -> str:
        """The class as which an operand is read."""
        found = self.classes[value]
        if found == VIEW:
            found = class_of_shape(shape, self.rows) or VIEW
        if found == VIEW:
            raise no_shape(self.graph, f"a value of shape {shape} is neither full, row nor scalar")
        return found

    def _becomes(self, value: Value, wanted: str) -> bool:
        aligned = self.aligned.get(value) or alignment(value.type.shape, self.rows)
        return aligned is not None and reaches(aligned, self.rows, wanted, value.type.shape)

    def _late(self, node: Node, found: str) -> None:
        if any(v in self.after_total for v in node.inputs):
            self.after_total.update(node.outputs)
            if found != SCALAR or any(self.classes[v] in (ROW, FULL) for v in node.inputs):
                raise no_shape(self.graph, f"{node.op.name} {node.types[0]} needs a total of its own kernel")

    def _reduction(self, node: Node) -> str:
        operand = node.inputs[0]
        shape, base = operand.type.shape, ROW if self.rows.reduced else FULL
        if self.classes[operand] == COLUMN:
            raise no_shape(self.graph, f"{node.op.name} over columns")
        if isinstance(node.op.lowering, Reduction) and is_total(node):
            if operand in self.after_total or (self.classes[operand] == FULL) > (base == FULL):
                raise no_shape(self.graph, f"{node.op.name} {node.types[0]}: of full values or of another total")
            if self.classes[operand] == VIEW and class_of_shape(shape, self.rows) not in (base, SCALAR):
                raise no_shape(self.graph, f"a total over {shape}")
            self.totals.append(node)
            self.after_total.update(node.outputs)
            return SCALAR
        if across(self.rows, Rows(shape, reduced_axes(node))) and isinstance(node.op.lowering, Reduction):
            self.columns.append(node)
            return COLUMN
        if shape != self.rows.full or reduced_axes(node) != self.rows.reduced or operand in self.after_total:
            raise no_shape(self.graph, f"{node.op.name} over {shape}")
        self.reductions.append(node)
        return ROW

    def _gather(self, node: Node) -> str:
        x, indices = node.inputs
        if self.after_total & {x, indices}:
            raise no_shape(self.graph, "a gather behind a total")
        found = self._read(indices, indices.type.shape)
        if x not in self.views and (x.type.shape != self.rows.full or node.attrs["axis"] not in self.rows.reduced):
            raise no_shape(self.graph, "a gather along an axis that is not reduced")
        return found if x in self.views else ROW

    def _concat(self, node: Node) -> str:
        found = class_of_shape(node.types[0].shape, self.rows)
        if found is None or any(v not in self.views for v in node.inputs):
            raise no_shape(self.graph, f"a concat {node.types[0]} of what is not in memory")
        return found

    def _movement(self, node: Node) -> str:
        operand = node.inputs[0]
        if node.op.lowering.inside is not None:
            raise no_shape(self.graph, f"{node.op.name} of what is not in memory")
        found, shape = self.classes[operand], node.types[0].shape
        if found == SCALAR:
            if node.op.name == "slice" and not one_element(shape):
                raise no_shape(self.graph, "a slice of a scalar")
            result = SCALAR if one_element(shape) else class_of_shape(shape, self.rows)
            if result is None:
                raise no_shape(self.graph, f"a scalar spread to {shape}")
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
        raise no_shape(self.graph, f"{node.op.name} of a {found} value inside")
