"""Operands of the size of the matrices (masks, biases), turned block by block: lanes along the rows then read them.

Enter at `turned_operands`, which finds them, and `emit_turned`, which copies those of one block into scratch: read
along the columns, as they lie, and stored along the rows. An element is gathered otherwise, a bool by 16 loads.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphc.graph import Graph, Value
from graphc.loops.builder import LANE, Builder, Ranges, Scalar, linear_address
from graphc.loops.evaluate import Evaluator, Point
from graphc.loops.kernel import symbol_of
from graphc.loops.lanes import below, load_here
from graphc.ops.lowering import Elementwise, Movement
from graphc.passes.blocks_shape import BlocksShape
from graphc.passes.domain import FULL, VIEW
from graphc.types import Dim, DType, Size, int32, symbols, terms_of


def turned_operands(graph: Graph, shape: BlocksShape, ranges: Ranges) -> list[Value]:
    """The views of shape `full` whose elements for neighbouring rows lie apart."""
    found: dict[Value, None] = {}
    for node in graph.order():
        if isinstance(node.op.lowering, Elementwise) and shape.classes[Value(node)] == FULL:
            views = [v for v in node.inputs if shape.classes[v] == VIEW]
            found.update(dict.fromkeys(v for v in views if _is_apart(v, shape, ranges)))
    return list(found)


def _is_apart(view: Value, shape: BlocksShape, ranges: Ranges) -> bool:
    index: tuple[Size, ...] = tuple(Dim.symbol(symbol_of(axis)) for axis in range(len(shape.full)))
    node = view.node
    while isinstance(node.op.lowering, Movement) and node.op.lowering.inside is None:
        index = tuple(node.op.lowering.source(ranges, (node.inputs[0].type, node.types[0]), node.attrs, index))
        node = node.inputs[0].node
    if node.op.name != "placeholder":
        return False
    address, row, column = linear_address(index, node.types[0].shape), symbol_of(shape.row), symbol_of(shape.column)
    beside = any(monomial == (row,) and factor == 1 for monomial, factor in terms_of(address))
    return {row, column} <= symbols(address) and not beside


def panel_dtype(view: Value) -> DType:
    """The dtype of the elements in scratch: bools are stored wider, as lanes hold them."""
    return int32 if view.type.dtype.kind == "b" else view.type.dtype


def emit_turned(
    h: Builder, evaluator: Evaluator, shape: BlocksShape, panels: Mapping[Value, str], height: int,
    where: Mapping[str, Size], rows: tuple[Size, Size], columns: tuple[Size, Size], base: Size,
) -> None:  # fmt: skip
    """Copy the block of each operand to panel[base + column * height + row of the block]."""
    index = tuple(Dim.symbol(symbol_of(axis)) for axis in range(len(shape.full)))
    low, high = columns
    for view, panel in panels.items():
        with h.loop("c", low, high, h.lane_count) as c, h.loop("r", rows[0], rows[1]) as row:
            place = {**where, symbol_of(shape.row): row, symbol_of(shape.column): c + Dim.symbol(LANE)}
            mask = below(h, high - c)
            value = evaluator.at(view, index, Point(place, mask))
            at = base + (c + Dim.symbol(LANE)) * height + (row - rows[0])
            h.store(panel, at, h.cast(value, panel_dtype(view)), mask)


def read_turned(h: Builder, view: Value, panel: str, address: Size) -> Scalar:
    """A vector of rows from a panel."""
    loaded = load_here(h, panel, panel_dtype(view), address)
    return h.ne(loaded, h.constant(0, int32)) if view.type.dtype.kind == "b" else loaded
