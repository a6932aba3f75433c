"""Operands of the size of the matrices (masks, biases), turned block by block: lanes along the rows then read them.

Enter at `turned_operands`, which finds them, and `emit_turned`, which copies those of one block into scratch: read
along the columns, as they lie, and stored along the rows. An element is gathered otherwise, a bool by 16 loads. Where
columns lie side by side, they are transposed in registers: one by one, as others are, took a fifth of an attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphc.graph import Graph, Value
from graphc.loops.block_bounds import factor_of
from graphc.loops.builder import LANE, Builder, Ranges, Scalar, linear_address
from graphc.loops.evaluate import Evaluator, Point
from graphc.loops.kernel import symbol_of
from graphc.loops.lanes import below, load_here
from graphc.loops.packing import Source, pack
from graphc.ops.lowering import Elementwise, Movement
from graphc.passes.blocks_shape import BlocksShape
from graphc.passes.domain import FULL, VIEW
from graphc.types import Dim, DType, Size, int32, substitute, symbols

MOVED_BYTES = 4  # of elements that are transposed in registers


def turned_operands(graph: Graph, shape: BlocksShape, ranges: Ranges) -> list[Value]:
    """The views of shape `full` whose elements for neighbouring rows lie apart."""
    found: dict[Value, None] = {}
    for node in graph.order():
        if isinstance(node.op.lowering, Elementwise) and shape.classes[Value(node)] == FULL:
            views = [v for v in node.inputs if shape.classes[v] == VIEW]
            found.update(dict.fromkeys(v for v in views if _is_apart(v, shape, ranges)))
    return list(found)


def _placed(view: Value, shape: BlocksShape, ranges: Ranges) -> tuple[Value, Size] | None:
    """The operand that a view shows, and the address there of the element at a point; None where it computes."""
    index: tuple[Size, ...] = tuple(Dim.symbol(symbol_of(axis)) for axis in range(len(shape.full)))
    node = view.node
    while isinstance(node.op.lowering, Movement) and node.op.lowering.inside is None:
        index = tuple(node.op.lowering.source(ranges, (node.inputs[0].type, node.types[0]), node.attrs, index))
        node = node.inputs[0].node
    return (Value(node), linear_address(index, node.types[0].shape)) if node.op.name == "placeholder" else None


def _is_apart(view: Value, shape: BlocksShape, ranges: Ranges) -> bool:
    placed = _placed(view, shape, ranges)
    if placed is None:
        return False
    row, column = symbol_of(shape.row), symbol_of(shape.column)
    return {row, column} <= symbols(placed[1]) and factor_of(placed[1], row) != 1


def panel_dtype(view: Value) -> DType:
    """The dtype of the elements in scratch: bools are stored wider, as lanes hold them."""
    return int32 if view.type.dtype.kind == "b" else view.type.dtype


def emit_turned(
    h: Builder, evaluator: Evaluator, shape: BlocksShape, panels: Mapping[Value, str], height: int,
    where: Mapping[str, Size], rows: tuple[Size, Size], columns: tuple[Size, Size], base: Size, masked_memory: bool,
) -> None:  # fmt: skip
    """Copy the block of each operand to panel[base + column * height + row of the block]."""
    index = tuple(Dim.symbol(symbol_of(axis)) for axis in range(len(shape.full)))
    low, high = columns
    for view, panel in panels.items():
        source = _lines(view, evaluator, shape, {**where, symbol_of(shape.row): rows[0], symbol_of(shape.column): low})
        if masked_memory and source is not None and source.packed.itemsize >= MOVED_BYTES:
            limit = rows[1] - rows[0]
            pack(h, replace(source, limit=limit), high - low, panel, base + low * height, height // h.lane_count)
            continue
        with h.loop("c", low, high, h.lane_count) as c, h.loop("r", rows[0], rows[1]) as row:
            place = {**where, symbol_of(shape.row): row, symbol_of(shape.column): c + Dim.symbol(LANE)}
            mask = below(h, high - c)
            value = evaluator.at(view, index, Point(place, mask))
            at = base + (c + Dim.symbol(LANE)) * height + (row - rows[0])
            h.store(panel, at, h.cast(value, panel_dtype(view)), mask)


def _lines(view: Value, evaluator: Evaluator, shape: BlocksShape, point: Mapping[str, Size]) -> Source | None:
    """A view as what is packed: rows of columns side by side, from a point on; None where they are not."""
    placed = _placed(view, shape, evaluator.ranges)
    assert placed is not None, "turned_operands has found it"
    (operand, address), step = placed, factor_of(placed[1], symbol_of(shape.row))
    if step is None or factor_of(address, symbol_of(shape.column)) != 1:
        return None
    dtype, wide = operand.type.dtype, panel_dtype(view)
    buffer = evaluator.buffers[operand]
    return Source(buffer, dtype, substitute(address, point), 1, step, 0, wide=None if wide == dtype else wide)


def read_turned(h: Builder, view: Value, panel: str, address: Size) -> Scalar:
    """A vector of rows from a panel."""
    loaded = load_here(h, panel, panel_dtype(view), address)
    return h.ne(loaded, h.constant(0, int32)) if view.type.dtype.kind == "b" else loaded
