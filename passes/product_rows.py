"""The shape of a kernel whose rows are those of a contraction: statistics of rows, and what is made of them, behind it.

Enter at `product_rows`, which `domain.kernel_shape` asks about inner graphs with one contraction and a reduction. Such
kernels are made by `join_rows`, and run as docs/design/row_statistics.md says.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.errors import InternalError
from graphc.graph import Graph, Node, Value, inherit_origin, make_node
from graphc.ops.lowering import ArgReduction, Contraction, Elementwise, Gather, Reduction
from graphc.ops.registry import OPS
from graphc.passes.domain import ContractionShape, RowsShape, contraction_shape
from graphc.passes.row_classes import RowClasses


@dataclass(frozen=True)
class ProductRowsShape:
    """A contraction and rows of its result.

    contraction: the shape of a kernel of it alone, with what computes its operands. product: a placeholder for its
    result, which is no operand, in `behind`, the graph of all else. rows: the shape of that; its reduced axis is the
    last one of the contraction's result.
    """

    contraction: ContractionShape
    product: Value
    behind: Graph
    rows: RowsShape


def product_rows(graph: Graph) -> ProductRowsShape | None:
    """The shape of an inner graph; None if it has another one."""
    nodes = graph.order()
    contractions = [node for node in nodes if isinstance(node.op.lowering, Contraction)]
    if len(contractions) != 1:
        return None
    (contraction,) = contractions
    full = contraction.types[0].shape
    if len(full) != 2 or any(size == 1 for size in full):
        return None
    behind, product = _without(graph, contraction)
    try:
        alone = contraction_shape(Graph(graph.inputs, (Value(contraction),)))
        rows = RowClasses(behind, behind.order()).shape()
    except InternalError:
        return None
    last = rows.reduced == (len(rows.full) - 1,) and rows.full[-1] == full[-1]
    if not last or rows.columns or rows.totals or not _read_in_place(behind, product, rows):
        return None
    return ProductRowsShape(alone, product, behind, rows)


def _without(graph: Graph, contraction: Node) -> tuple[Graph, Value]:
    """The graph with a placeholder in place of a contraction's result, and that."""
    attrs = {"name": f"product of {graph.name}", "type": contraction.types[0]}
    product = Value(make_node(OPS["placeholder"], (), attrs))
    new: dict[Value, Value] = {Value(contraction): product}
    for node in graph.order():
        if node is not contraction and any(v in new for v in node.inputs):
            with inherit_origin(node):
                again = make_node(node.op, [new.get(v, v) for v in node.inputs], node.attrs)
            new.update(zip(node.outputs, again.outputs, strict=True))
    return Graph(graph.inputs, tuple(new.get(v, v) for v in graph.outputs), (), graph.name), product


def _read_in_place(graph: Graph, product: Value, rows: RowsShape) -> bool:
    """Whether each row reads its own row of the product only, maybe with the rows along several axes."""
    users, views = graph.users(), [product]
    for view in views:
        whole = view.type.shape == rows.full
        if view in graph.outputs and not whole:
            return False
        for user in users.get(view, ()):
            kind = user.op.lowering
            if user.op.name == "reshape" and user.types[0].shape == rows.full:
                views.append(Value(user))
            elif isinstance(kind, Gather):
                if view in user.inputs[1:] or user.attrs["axis"] not in rows.reduced:
                    return False
            elif not whole or not isinstance(kind, (Elementwise, Reduction, ArgReduction)):
                return False
    return True
