"""Which columns of a block of rows a mask leaves: all others are exactly 0 where they are summed, and not computed.

Enter at `masks_of` and `columns_of_block`. A mask is a comparison of positions, or several joined by `and`; `_Masked`
says whether a place that it masks can be left out, with the meaning for NaN and infinities that docs/design/blocks.md
gives. To teach it another op, add it to `_value`.
"""

from __future__ import annotations

import numpy as np

from graphc.graph import Graph, Node, Value
from graphc.loops.blocks import bind, opaque
from graphc.loops.builder import Builder, Ranges
from graphc.loops.kernel import symbol_of
from graphc.ops.lowering import IndexValue, Movement
from graphc.passes.blocks_shape import BlocksShape
from graphc.passes.domain import FULL
from graphc.types import Dim, Size, maximum, minimum, substitute, terms_of

STEP = 4  # columns: bounds are rounded outwards to multiples, so that loops have no remainder
SIGNS = {"greater_equal": (1, 0), "greater": (1, -1), "less_equal": (-1, 0), "less": (-1, -1)}
OPPOSITE = {"greater_equal": "less", "less": "greater_equal", "greater": "less_equal", "less_equal": "greater"}


def columns_of_block(
    h: Builder, masks: list[Size], shape: BlocksShape, start: Size, stop: Size, cell: str
) -> tuple[Size, Size]:
    """The first column and the one behind the last for the rows from `start` below `stop`; at least one column.

    `masks` are what `masks_of` finds. `cell` is scratch for `opaque`: LLVM would follow the bounds through all loops,
    which takes its time.
    """
    columns = shape.full[shape.column]
    low: Size = 0
    high: Size = columns
    row, column = symbol_of(shape.row), symbol_of(shape.column)
    for slack in masks:
        of_row, of_column = factor_of(slack, row), factor_of(slack, column)
        if of_row is None or of_column not in (1, -1):
            continue
        rest = substitute(slack, {row: stop - 1 if of_row > 0 else start, column: 0})  # the most that a row allows
        if of_column == -1:
            high = minimum(high, rest + 1)
        else:
            low = maximum(low, -rest)
    if low == 0 and high is columns:
        return 0, columns
    high = maximum(high, 1)
    high = minimum((high + (STEP - 1)) // STEP * STEP, columns)
    high = opaque(h, "high", high, cell)
    if low == 0:
        return 0, high
    low = bind(h, "low", maximum(minimum(low, high - 1), 0))
    return opaque(h, "low", low // STEP * STEP, cell), high


def factor_of(slack: Size, name: str) -> int | None:
    """The factor of a symbol in an expression that is linear in it; None if it is not."""
    found = 0
    for monomial, factor in terms_of(slack):
        if monomial == (name,):
            found = factor
        elif any(name in _names(atom) for atom in monomial):
            return None
    return found


def _names(atom: object) -> set[str]:
    if isinstance(atom, str):
        return {atom}
    names: set[str] = set()
    stack = list(getattr(atom, "args", ()))
    while stack:
        for monomial, _ in terms_of(stack.pop()):
            for inner in monomial:
                if isinstance(inner, str):
                    names.add(inner)
                else:
                    stack.extend(inner.args)
    return names


def masks_of(graph: Graph, shape: BlocksShape) -> list[Size]:
    """The slacks of all comparisons of positions whose masked places can be left out."""
    found: dict[Size, None] = {}
    for node in graph.order():
        if node.op.name == "where" and shape.classes[Value(node)] == FULL:
            for mask, holds in _parts(node.inputs[0], True) + _parts(node.inputs[0], False):
                slack = _slack(mask, holds, shape)
                if slack is not None and slack not in found and _Masked(graph, shape, slack).can_be_left_out():
                    found[slack] = None
    return list(found)


def _parts(mask: Value, holds: bool) -> list[tuple[Value, bool]]:
    """Comparisons that all hold (or fail) wherever `mask` is `holds`."""
    found: list[tuple[Value, bool]] = []
    stack = [(mask, holds)]
    while stack:
        value, wanted = stack.pop()
        node = value.node
        while isinstance(node.op.lowering, Movement) and node.inputs[0].type.dtype == value.type.dtype:
            if node.op.name != "broadcast_to" and node.inputs[0].node.op.name not in SIGNS:
                break
            node = node.inputs[0].node
        name = value.op.name
        if name == "logical_not":
            stack.append((value.node.inputs[0], not wanted))
        elif (name == "logical_and" and wanted) or (name == "logical_or" and not wanted):
            stack += [(v, wanted) for v in value.node.inputs]
        else:
            found.append((value, wanted))
    return found


def _slack(mask: Value, holds: bool, shape: BlocksShape) -> Size | None:
    """The expression that is not negative exactly where `mask` is `holds`; None if it is no comparison of positions."""
    index: tuple[Size, ...] = tuple(Dim.symbol(symbol_of(axis)) for axis in range(len(shape.full)))
    ranges = Ranges({symbol_of(axis): size for axis, size in enumerate(shape.full)})
    node = mask.node
    while isinstance(node.op.lowering, Movement) and node.op.lowering.inside is None:
        index = tuple(node.op.lowering.source(ranges, (node.inputs[0].type, node.types[0]), node.attrs, index))
        node = node.inputs[0].node
    name = node.op.name
    if name not in SIGNS:
        return None
    if not holds:
        name = OPPOSITE[name]
    sides = [_position(v, index, ranges) for v in node.inputs]
    if sides[0] is None or sides[1] is None:
        return None
    sign, offset = SIGNS[name]
    return (sides[0] - sides[1]) * sign + offset


def _position(value: Value, index: tuple[Size, ...], ranges: Ranges) -> Size | None:
    """An integer value at an index as an expression over the index."""
    total: Size = 0
    stack: list[tuple[Value, tuple[Size, ...], int]] = [(value, index, 1)]
    while stack:
        found, at, sign = stack.pop()
        node = found.node
        if not found.type.dtype.is_integer:
            return None
        if isinstance(node.op.lowering, IndexValue):
            total = total + at[node.attrs["axis"]] * sign
        elif node.op.name == "constant" and node.attrs["data"].array.size == 1:
            total = total + int(node.attrs["data"].array.reshape(-1)[0]) * sign
        elif node.op.name == "dim_value":
            total = total + node.attrs["size"] * sign
        elif node.op.name in ("add", "subtract"):
            second = sign if node.op.name == "add" else -sign
            stack += [(node.inputs[0], at, sign), (node.inputs[1], at, second)]
        elif node.op.name == "cast" and node.inputs[0].type.dtype.is_integer:
            stack.append((node.inputs[0], at, sign))
        elif isinstance(node.op.lowering, Movement) and node.op.lowering.inside is None:
            types = (node.inputs[0].type, node.types[0])
            stack.append((node.inputs[0], tuple(node.op.lowering.source(ranges, types, node.attrs, at)), sign))
        else:
            return None
    return total


class _Masked:
    """What the full values are at the places where `slack` is negative: -inf, 0, or anything (None)."""

    def __init__(self, graph: Graph, shape: BlocksShape, slack: Size) -> None:
        self.graph, self.shape, self.slack = graph, shape, slack
        self.values: dict[Value, float | None] = {}
        for node in graph.order():
            if shape.classes[Value(node)] == FULL:
                self.values[Value(node)] = self._value(node)

    def can_be_left_out(self) -> bool:
        """Whether no reduction and no product notices such places."""
        neutral = {"max": -np.inf, "sum": 0.0}
        for node in self.shape.reductions:
            if node.op.name not in neutral or self.values[node.inputs[0]] != neutral[node.op.name]:
                return False
        return all(self.values[product.source] == 0.0 for product in self.shape.products)

    def _value(self, node: Node) -> float | None:
        """Finite numbers and rows that are neither NaN nor masked everywhere are taken for granted."""
        name = node.op.name
        known = [self.values.get(v, constant_of(v)) for v in node.inputs]
        if name == "where":
            for mask, holds in ((node.inputs[0], True), (node.inputs[0], False)):
                if self.slack in [_slack(part, held, self.shape) for part, held in _parts(mask, holds)]:
                    return known[2 if holds else 1]
            return known[1] if known[1] == known[2] else None
        if name in ("negative", "cast", "stop_gradient", "exp"):
            x = known[0]
            if name == "exp":
                return 0.0 if x == -np.inf else None
            return x if x is None or name != "negative" else -x
        if name in ("multiply", "divide", "add", "subtract"):
            return _combined(name, *known)
        return None


def _combined(name: str, a: float | None, b: float | None) -> float | None:
    """What arithmetic makes of -inf, 0, another number, or a finite number that is not known (None)."""
    if name in ("multiply", "divide"):
        if a == 0.0 or (b == 0.0 and name == "multiply"):
            return 0.0
        return a if a == -np.inf and b is not None and 0 < b < np.inf else None
    if a == b == 0.0:
        return 0.0
    if a == -np.inf and b not in (np.inf, -np.inf if name == "subtract" else np.inf):
        return a
    return b if name == "add" and b == -np.inf and a != np.inf else None


def constant_of(value: Value) -> float | None:
    """The one number of a value that is a constant, maybe broadcast."""
    node = value.node
    while isinstance(node.op.lowering, Movement) and node.op.lowering.inside is None:
        node = node.inputs[0].node
    if node.op.name == "constant" and node.attrs["data"].array.size == 1:
        return float(node.attrs["data"].array.reshape(-1)[0])
    return None
