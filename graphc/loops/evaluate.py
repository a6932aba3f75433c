"""The value of a graph node at an index: how every op except reductions and contractions becomes loop IR.

`Evaluator.at(value, index)` asks each op's lowering kind for its value at an index and emits what is missing through
the `Builder`. Movement only changes the index, so it costs nothing. An index is a polynomial over *axis symbols*
(one for each axis of the kernel); a `Point` says what the axis symbols stand for at the moment: a loop variable, or
first lane + lanes. Reductions and contractions are bound to their results by the schedule that computes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from graphc.conversion import widened
from graphc.errors import InternalError
from graphc.graph import Graph, Node, Value
from graphc.loops.builder import LANE, Builder, Ranges, Scalar, linear_address
from graphc.loops.ir import Const, Fail
from graphc.loops.ranges import never_negative
from graphc.ops.lowering import Concat, Elementwise, Gather, IndexValue, Movement
from graphc.types import Dim, Size, int64, substitute, terms_of

Index = tuple[Size, ...]


@dataclass(eq=False)
class Point:
    """What axis symbols stand for, the mask of the lanes (None: all), and the results bound at this point.

    guard: a condition of all lanes, without which nothing may be read (the check of an index that they share).
    """

    axes: dict[str, Size]
    mask: Scalar | None = None
    bound: dict[Value, Scalar] = field(default_factory=dict)
    parent: Point | None = None
    guard: Scalar | None = None

    def lookup(self, value: Value) -> Scalar | None:
        point: Point | None = self
        while point is not None:
            if value in point.bound:
                return point.bound[value]
            point = point.parent
        return None


class Evaluator:
    """Values of one kernel's inner graph. `buffers` names the buffer of each operand (a placeholder of the graph)."""

    def __init__(
        self, builder: Builder, graph: Graph, buffers: Mapping[Value, str], extents: dict[str, Size], checks: Checks
    ) -> None:
        self.builder = builder
        self.graph = graph
        self.buffers = buffers
        self.ranges = Ranges(extents)
        self._placed = Ranges(builder.extents)
        self.checks = checks
        self._sources: dict[tuple[Node, Index], Index] = {}  # asked for again at every point
        self._conditions: dict[tuple[Node, Index], tuple[tuple[Size, Size], ...]] = {}

    def at(self, value: Value, index: Index, point: Point) -> Scalar:
        """`value[index]` at `point`, without recursion over the graph."""
        stack: list[tuple[Value, Index]] = [(value, index)]
        while True:
            wanted = stack[-1]
            found = self._known(wanted, point)
            if found is None:
                needs = self.needs(*wanted)
                operands = [self._known(need, point) for need in needs]
                missing = [need for need, operand in zip(needs, operands, strict=True) if operand is None]
                if missing:
                    stack.extend(reversed(missing))
                    continue
                found = self._compute(*wanted, point, [operand for operand in operands if operand is not None])
                self.builder.remember((wanted, point), found, found.depth)
            stack.pop()
            if not stack:
                return found

    def put(self, wanted: tuple[Value, Index], found: Mapping[Point, Scalar]) -> None:
        """`value[index]` at some points, loaded in another way than each by itself, inside the innermost open loop."""
        for point, result in found.items():
            self.builder.remember((wanted, point), result, self.builder.depth)

    def _known(self, wanted: tuple[Value, Index], point: Point) -> Scalar | None:
        bound = point.lookup(wanted[0])
        return bound if bound is not None else self.builder.recall((wanted, point))

    def needs(self, value: Value, index: Index) -> list[tuple[Value, Index]]:
        """What `value[index]` is computed from, as far as that is known before any of it is computed."""
        node = value.node
        lowering = node.op.lowering
        if isinstance(lowering, Elementwise):
            return [(v, index) for v in node.inputs]
        if isinstance(lowering, Movement) and lowering.inside is None:
            return [(node.inputs[0], self._source(node, lowering, index))]
        if isinstance(lowering, Gather):
            return [(node.inputs[1], index)]
        if isinstance(lowering, Concat) and len(node.inputs) == 1:  # a copy
            return [(node.inputs[0], index)]
        return []

    def _source(self, node: Node, lowering: Movement, index: Index) -> Index:
        found = self._sources.get((node, index))
        if found is None:
            types = (node.inputs[0].type, node.types[0])
            found = self._sources[node, index] = tuple(lowering.source(self.ranges, types, node.attrs, index))
        return found

    def _compute(self, value: Value, index: Index, point: Point, operands: list[Scalar]) -> Scalar:
        node, h = value.node, self.builder
        lowering = node.op.lowering
        if isinstance(lowering, Elementwise):
            return _one(lowering.body(h, node.attrs, *operands), value.index)
        if isinstance(lowering, Movement):
            return operands[0] if operands else self._placed_within(node, index, point)
        if isinstance(lowering, Concat):
            return operands[0] if operands else self._concat(node, index, point)
        if isinstance(lowering, IndexValue):
            return h.cast(h.index(self.placed(index[node.attrs["axis"]], point)), value.type.dtype)
        if isinstance(lowering, Gather):
            return self._gather(node, index, operands[0], point)
        if value in self.buffers:
            if 0 in value.type.shape:
                return self._zero(value)  # of what is read of an empty array, nothing is used
            address = self.placed(linear_address(index, value.type.shape), point)
            return h.load(self.buffers[value], value.type.dtype, address, point.mask, point.guard)
        if node.op.name == "constant":
            return h.constant(widened(node.attrs["data"].array).reshape(-1)[0].item(), value.type.dtype)
        if node.op.name == "dim_value":
            return h.cast(h.index(node.attrs["size"]), value.type.dtype)
        raise InternalError(f"the schedule of a kernel has not bound {node!r}")

    def placed(self, size: Size, point: Point) -> Size:
        """An index over axis symbols as one over loop variables and lanes."""
        return substitute(size, point.axes)

    def _placed_within(self, node: Node, index: Index, point: Point) -> Scalar:
        """The value of a Movement with `inside`: its operand where that holds, 0 elsewhere."""
        lowering, x = node.op.lowering, node.inputs[0]
        pairs = self._conditions.get((node, index))
        if pairs is None:
            found = lowering.inside(self.ranges, (x.type, node.types[0]), node.attrs, index)
            pairs = self._conditions[node, index] = tuple(found)
        inside, inner = self._within(pairs, point)
        value = self.at(x, self._source(node, lowering, index), inner)
        if inside is None or (inside.lanes <= value.lanes and self._is_loaded(x, inner)):  # what is left out is 0
            return value
        if isinstance(value.expr, Const) and value.expr.value is True:
            return inside
        return self.builder.select(inside, value, self._zero(x))

    def _is_loaded(self, value: Value, point: Point) -> bool:
        """Whether a value at `point` is an element of a buffer, and computed from nothing else."""
        while value not in self.buffers and isinstance(value.node.op.lowering, Movement):
            if point.lookup(value) is not None:
                return False
            value = value.node.inputs[0]
        return value in self.buffers and point.lookup(value) is None

    def _concat(self, node: Node, index: Index, point: Point) -> Scalar:
        """Each operand where the index is behind those before it; every element is read from one of them."""
        axis = node.attrs["axis"]
        offset: Size = 0
        result: Scalar | None = None
        for operand in node.inputs:
            position = index[axis] - offset
            size = operand.type.shape[axis]
            inside, inner = self._within([(position, size)], point)
            value = self.at(operand, (*index[:axis], position, *index[axis + 1 :]), inner)
            if result is None or inside is None:  # None: all lanes are of this operand
                result = value
            else:
                result = self.builder.select(inside, value, result)
            offset = offset + size
        assert result is not None
        return result

    def _within(self, pairs: Iterable[tuple[Size, Size]], point: Point) -> tuple[Scalar | None, Point]:
        """Whether 0 <= position < bound for all pairs (None: always), and `point` where nothing else is read."""
        h = self.builder
        inside: Scalar | None = None
        inner = Point(point.axes, point.mask, {}, point, point.guard)
        for position, bound in pairs:
            place = self.placed(position, point)
            found: list[Scalar] = []
            if not (self.ranges.under(position, bound) or self._placed.under(place, bound)):
                found.append(h.lt(h.index(place), h.index(bound)))
            if any(factor < 0 for _, factor in terms_of(position)) and not never_negative(place):
                found.append(h.ge(h.index(place), h.constant(0, int64)))
            for condition in found:
                inside = condition if inside is None else h.and_(inside, condition)
                if condition.lanes == 1:
                    inner.guard = condition if inner.guard is None else h.and_(inner.guard, condition)
                else:
                    inner.mask = condition if inner.mask is None else h.and_(inner.mask, condition)
        return inside, inner

    def _zero(self, value: Value) -> Scalar:
        return self.builder.constant(0, value.type.dtype)

    def _gather(self, node: Node, index: Index, chosen: Scalar, point: Point) -> Scalar:
        """x at the chosen index: checked first, and read at 0 under a false mask where the check fails."""
        h, axis, source = self.builder, node.attrs["axis"], node.inputs[0]
        limit = h.index(source.type.shape[axis])
        inside = self.checked(node, chosen, limit, linear_address(index, node.types[0].shape), point)
        safe = h.select(inside, h.cast(chosen, int64), h.constant(0, int64))
        symbol = h.fresh("pick")
        h.symbols[symbol] = safe
        inner = Point({**point.axes, symbol: Dim.symbol(symbol)}, point.mask, {}, point, point.guard)
        if inside.lanes > 1:
            inner.mask = inside
        else:  # an empty axis has no element 0 to read instead
            inner.guard = inside if point.guard is None else h.and_(point.guard, inside)
        return self.at(source, (*index[:axis], Dim.symbol(symbol), *index[axis + 1 :]), inner)

    def checked(self, node: Node, chosen: Scalar, limit: Scalar, flat: Size, point: Point) -> Scalar:
        """0 <= chosen < limit, lane by lane; reports the first lane where it is not."""
        h = self.builder
        wide = h.cast(chosen, int64)
        inside = h.and_(h.ge(wide, h.constant(0, int64)), h.lt(wide, limit))
        number = self.checks.number(node)
        place = self.placed(flat, point)
        address = h.index(place)
        if inside.lanes == 1:
            # one index for all lanes: the first of them, which is never masked off, reports it
            address = h.fold_lanes("min", h.index(substitute(place, {LANE: 0})))
            h.emit(Fail(h.not_(inside).expr, number, address.expr), max(inside.depth, address.depth))
            return inside
        bad = h.not_(inside)
        if point.mask is not None:
            bad = h.and_(bad, point.mask)
            inside = h.and_(inside, point.mask)
        first = h.select(bad, h.widened(address, inside.lanes), h.constant(2**40 - 1, int64))
        lowest = h.fold_lanes("min", first)
        failed = h.fold_lanes("any", bad)
        h.emit(Fail(failed.expr, number, lowest.expr), max(failed.depth, lowest.depth))
        return inside


class Checks:
    """The table of index checks of a Program: a node's position is its number in the error word."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def number(self, node: Node) -> int:
        if node not in self.nodes:
            self.nodes.append(node)
        return self.nodes.index(node)


def _one(result: Scalar | Sequence[Scalar], index: int) -> Scalar:
    return result if isinstance(result, Scalar) else result[index]
