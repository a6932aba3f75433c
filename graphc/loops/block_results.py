"""The products of a block: what their tiles read, where their sums go, and what is behind them.

Enter at `Products`. A row product is finished with its block: in one go where the block has whole rows
(`row_product`), or added up in scratch by a sweep (`clear`, `add`, then `finish_rows`). A column product adds to its
result in memory (`column_product`), or to a private copy of a chunk; `finish` adds those.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from graphc.graph import Node, Value
from graphc.loops.block_plan import BlockPlan
from graphc.loops.block_products import BlockProduct, Tiles
from graphc.loops.block_rows import Frame
from graphc.loops.builder import LANE, Builder, Ranges, Scalar, linear_address
from graphc.loops.evaluate import Evaluator, Point
from graphc.loops.folds import Fold
from graphc.loops.ir import Let, Load, Scratch, Var, VType
from graphc.loops.kernel import symbol_of
from graphc.loops.lanes import below, load_here
from graphc.loops.matmul import label_symbol, strides_of
from graphc.loops.packing import Source
from graphc.loops.tile import View
from graphc.ops.registry import OPS
from graphc.passes.blocks_shape import COLUMN_PRODUCT, PRODUCT, BlocksShape, Product
from graphc.target import Target
from graphc.types import Dim, DType, Size, product, symbols


class Side:
    """An operand of a matmul in memory: where it lies, and the steps of its axes by label."""

    def __init__(self, node: Node, side: int, buffers: dict[Value, str], batch: Sequence[Size]) -> None:
        labels = node.op.lowering.labels(tuple(v.type for v in node.inputs), node.attrs)
        axes = labels[side]
        value = node.inputs[side]
        extents = {label_symbol(c): size for c, size in zip(axes, value.type.shape, strict=True)}
        self.buffer, self.base, steps, _ = strides_of(value, [[(c, 1)] for c in axes], buffers, Ranges(extents))
        self.step = {label: steps[label_symbol(label)] for label in axes}
        for label, index in zip(axes[:-2], batch, strict=True):
            self.base = self.base + self.step[label] * index


@dataclass(frozen=True)
class Sum:
    """A row product that a sweep adds up: element (row, n) is buffer[row * row_step + n * step]. n: how many.

    scale: scratch with a factor for each row, by which what is there already is multiplied; None: by 1.
    """

    buffer: str
    row_step: int
    step: int
    n: int
    scale: str | None


class Products:
    """The products of one kernel. kept: where the row values are that epilogues read. part: of a batch element."""

    def __init__(
        self, h: Builder, target: Target, shape: BlocksShape, plan: BlockPlan, evaluator: Evaluator,
        outputs: list[tuple[Value, str]], tiles: Tiles,
    ) -> None:  # fmt: skip
        self.tiles = tiles
        self.h, self.target, self.shape, self.plan = h, target, shape, plan
        self.evaluator, self.outputs = evaluator, outputs
        self.buffers = dict(evaluator.buffers)
        self.dtype: DType = shape.entering[0].types[0].dtype
        self.rows, self.columns = shape.full[shape.row], shape.full[shape.column]
        self.adds = [p for p in shape.products if p.kind == COLUMN_PRODUCT]
        self.kept: dict[Node, tuple[str, DType]] = {}
        self.sum_of: dict[Node, str] = {}  # the buffer into which a column product adds
        self.sums: dict[Node, Sum] = {}
        self.sides: dict[tuple[Node, int, tuple[Size, ...]], Side] = {}
        self.packed: dict[Node, View] = {}  # sides of column products that are packed
        self.part: Size = 0

    def declare(self, partial: Callable[[DType, Size], str]) -> None:
        """Buffers of the column products. partial: names a new temporary one."""
        for each in self.adds:
            (buffer,) = (name for v, name in self.outputs if v == Value(each.node))
            if self.plan.parts != 1:
                buffer = partial(self.dtype, self.plan.parts * each.node.types[0].size)
            self.sum_of[each.node] = buffer

    def declare_sums(self, each: Product, scale: str | None) -> None:
        """Scratch in which a sweep adds up a row product."""
        lanes, height = self.plan.lanes, self.plan.height
        buffer, n = self.h.fresh("sums"), self._width(each)
        if self._is_straight(each):
            made = Sum(buffer, -(-n // lanes) * lanes, 1, n, scale)
        else:
            made = Sum(buffer, 1, height, n, scale)
        self.sums[each.node] = made
        self.h.emit(Scratch(buffer, self.dtype, height * max(made.row_step, n)))

    def rows_behind(self, each: Product) -> list[Node]:
        """The reductions that the epilogue of a row product reads."""
        ends = {each.node, *self.shape.reductions}
        found = {node for v, _ in self._outputs_of(each) for node in _below(v, ends)}
        return [node for node in self.shape.reductions if node in found]

    def _outputs_of(self, each: Product) -> list[tuple[Value, str]]:
        """The results that a product and its epilogue give."""
        found = [(v, name) for v, name in self.outputs if self.shape.classes[v] == PRODUCT]
        return [(v, name) for v, name in found if each.node in _below(v, {each.node})]

    def _side(self, frame: Frame, each: Product) -> Side:
        return self.side(each.node, 1 - each.side, frame.where)

    def side(self, node: Node, side: int, where: Mapping[str, Size]) -> Side:
        """Operand `side` of a matmul for a batch element."""
        key = node, side, tuple(where.values())
        if key not in self.sides:
            self.sides[key] = Side(node, side, self.buffers, key[2])
        return self.sides[key]

    def _is_straight(self, each: Product) -> bool:
        """Whether the lanes of a row product run along what it makes, not along its rows."""
        first = {symbol_of(axis): 0 for axis in range(len(self.shape.full) - 2)}
        return self.side(each.node, 1 - each.side, first).step["n" if each.side == 0 else "m"] == 1

    def _width(self, each: Product) -> int:
        n = each.node.types[0].shape[-1 - each.side]
        assert isinstance(n, int)
        return n

    # row products

    def row_product(self, frame: Frame, each: Product) -> None:
        """The rows of the block of C[row, n] = sum over the columns; its epilogue is evaluated on the tile."""
        finish = self._finisher(frame, each)

        def straight(h: Builder, value: Scalar, i: Size, j: Size, where: tuple[Size, ...], mask: Scalar | None) -> None:
            finish(value, i, j, mask)

        def turned(h: Builder, value: Scalar, i: Size, j: Size, where: tuple[Size, ...], mask: Scalar | None) -> None:
            finish(value, j, i, frame.mask(frame.start + j - Dim.symbol(LANE)))

        self.tiles.product(self._row_tiles(frame, each), straight if self._is_straight(each) else turned)

    def _row_tiles(self, frame: Frame, each: Product) -> BlockProduct:
        side, n, count = self._side(frame, each), "n" if each.side == 0 else "m", self._width(each)
        slot, base = frame.slot(each.source)
        height, low = self.plan.height, frame.low
        length = frame.high - low if low != 0 else frame.high
        of_slot = View(slot, base + low * height, height, 1)
        of_side = View(side.buffer, side.base + low * side.step["k"], side.step["k"], side.step[n])
        if self._is_straight(each):
            rows = height if self.plan.exact else frame.stop - frame.start
            return BlockProduct(0, rows, height, count, length, of_slot, of_side)
        return BlockProduct(0, count, count, height, length, of_side, of_slot)

    def clear(self, each: Product) -> None:
        """Zeros where `add` will add."""
        h, made = self.h, self.sums[each.node]
        with h.loop("z", 0, self.plan.height * max(made.row_step, made.n), h.lane_count) as z:
            h.store(made.buffer, z + Dim.symbol(LANE), h.constant(0, self.dtype), None)

    def add(self, frame: Frame, each: Product) -> None:
        """Add the product over the columns of a block of them to the sums of a row product."""
        made = self.sums[each.node]

        def add(h: Builder, value: Scalar, i: Size, j: Size, where: tuple[Size, ...], mask: Scalar | None) -> None:
            row, n = (i, j) if made.step == 1 else (j, i)
            address = row * made.row_step + n * made.step
            old = load_here(h, made.buffer, self.dtype, address)
            if made.scale is None:
                h.store(made.buffer, address, h.add(old, value), None)
            else:
                factor = self._row_value(made.scale, self.dtype, row)
                h.store(made.buffer, address, h.fma(old, h.widened(factor, h.lane_count), value), None)

        self.tiles.product(self._row_tiles(frame, each), add)

    def finish_rows(self, frame: Frame, each: Product) -> None:
        """What is behind a row product, when its sums are complete."""
        h, made, finish = self.h, self.sums[each.node], self._finisher(frame, each)

        def one(row: Size, n: Size, mask: Scalar | None) -> None:
            value = load_here(h, made.buffer, self.dtype, row * made.row_step + n * made.step)
            if made.scale is not None:
                value = h.mul(value, self._row_value(made.scale, self.dtype, row))
            finish(value, row, n, mask)

        if made.step == 1:
            with h.loop("row", 0, frame.stop - frame.start) as row, h.loop("j", 0, made.n, h.lane_count) as j:
                one(row, j + Dim.symbol(LANE), None if made.n % h.lane_count == 0 else below(h, made.n - j))
            return
        with h.loop("n", 0, made.n) as n, h.loop("row", 0, frame.stop - frame.start, h.lane_count) as row:
            one(row + Dim.symbol(LANE), n, frame.mask(frame.start + row))

    def _finisher(self, frame: Frame, each: Product) -> Callable[[Scalar, Size, Size, Scalar | None], None]:
        """Stores the results of a product, given its value at (row of the block, n)."""
        h, shape, outputs = self.h, each.node.types[0].shape, self._outputs_of(each)
        kept = [(node, *self.kept[node]) for node in self.rows_behind(each)]
        row_axis, n_axis = len(shape) - 2 + each.side, len(shape) - 1 - each.side
        symbol = [f"o{axis}" for axis in range(len(shape))]
        index = tuple(map(Dim.symbol, symbol))
        self.evaluator.ranges.extents.update(zip(symbol, shape, strict=True))

        def finish(value: Scalar, row: Size, n: Size, mask: Scalar | None) -> None:
            place = dict(zip(symbol, frame.where.values(), strict=False))
            place[symbol[row_axis]], place[symbol[n_axis]] = frame.start + row, n
            bound = {Value(each.node): value}
            for node, buffer, dtype in kept:
                bound[Value(node)] = h.cast(self._row_value(buffer, dtype, row), node.types[0].dtype)
            point = Point(place, mask, bound)
            results = [self.evaluator.at(v, index, point) for v, _ in outputs]
            for (v, buffer), result in zip(outputs, results, strict=True):
                address = self.evaluator.placed(linear_address(index, v.type.shape), point)
                h.store(buffer, address, result, mask)

        return finish

    def _row_value(self, buffer: str, dtype: DType, row: Size) -> Scalar:
        """What the loops over the columns have left for a row of the block, or for a vector of them."""
        if LANE in symbols(row):
            return load_here(self.h, buffer, dtype, row)
        var = Var(self.h.fresh("x"), VType(dtype))
        self.h.emit(Let(var, Load(buffer, self.h.index(row).expr, var.vtype)))
        return Scalar(var, self.h.depth)

    # column products

    def _sum_place(self, where: Mapping[str, Size], each: Product) -> tuple[str, Size, int]:
        """Where a column product adds: its buffer, the offset of the chunk's matrix, and the number of its columns."""
        *batch, _, count = each.node.types[0].shape
        assert isinstance(count, int)
        matrix = self.columns * count
        offset: Size = 0
        for size, index in zip(batch, where.values(), strict=True):
            offset = offset * size + index
        if self.plan.parts != 1:
            offset = offset + self.part * product(batch)
        return self.sum_of[each.node], offset * matrix, count

    def clear_columns(self, where: Mapping[str, Size]) -> None:
        """Zeros where column products will add."""
        h = self.h
        for each in self.adds:
            buffer, offset, count = self._sum_place(where, each)
            zero = h.constant(0, self.dtype)
            with h.loop("c", 0, self.columns) as c:
                for first in range(0, count, h.lane_count):
                    mask = below(h, count - first) if count - first < h.lane_count else None
                    h.store(buffer, offset + c * count + first + Dim.symbol(LANE), zero, mask)

    def pack_sides(self, frame: Frame) -> None:
        """The block's rows of what column products read, where its lanes lie apart in memory."""
        h, plan = self.h, self.plan
        for each in self.adds:
            side, count = self._side(frame, each), self._width(each)
            if side.step["n"] == 1:
                continue
            groups = -(-count // plan.lanes)
            panel = h.fresh("packed")
            h.emit(Scratch(panel, self.dtype, plan.height * groups * plan.lanes))
            base = side.base + frame.start * side.step["k"]
            source = Source(side.buffer, self.dtype, base, side.step["k"], side.step["n"], count)
            self.tiles.pack(self.target, source, frame.stop - frame.start, panel, groups)
            self.packed[each.node] = View(panel, 0, groups * plan.lanes, 1)

    def column_product(self, frame: Frame, each: Product) -> None:
        """C[column, n] += sum over the rows of the block."""
        plan, side = self.plan, self._side(frame, each)
        slot, base = frame.slot(each.source)
        buffer, offset, count = self._sum_place(frame.where, each)
        view = self.packed.get(each.node)
        if view is None:
            view = View(side.buffer, side.base + frame.start * side.step["k"], side.step["k"], 1)

        def add(h: Builder, value: Scalar, c: Size, j: Size, where: tuple[Size, ...], mask: Scalar | None) -> None:
            address = offset + c * count + j
            old = load_here(h, buffer, self.dtype, address, mask)
            h.store(buffer, address, h.add(old, value), mask)

        length = plan.height if plan.exact else frame.stop - frame.start
        of_slot = View(slot, base, 1, plan.height)  # has room behind its last column
        self.tiles.product(BlockProduct(frame.low, frame.high, None, count, length, of_slot, view), add)

    def finish(self) -> None:
        """The private sums of the parts, added in their order."""
        h, combine = self.h, OPS["sum"].lowering
        for each in self.adds if self.plan.parts != 1 else ():
            (result,) = (name for v, name in self.outputs if v == Value(each.node))
            size = each.node.types[0].size
            with h.loop("i", 0, size, h.lane_count) as i:
                mask = below(h, size - i)
                fold = Fold(h, combine, self.dtype, h.lane_count, 1)
                with h.loop("part", 0, self.plan.parts) as part:
                    address = part * size + i + Dim.symbol(LANE)
                    fold.add(h, [load_here(h, self.sum_of[each.node], self.dtype, address, mask)], [None])
                h.store(result, i + Dim.symbol(LANE), fold.lanes(h), mask)


def _below(value: Value, ends: Collection[Node]) -> set[Node]:
    """The nodes that a value follows from, its own included; of what an end follows from, the end alone."""
    found: set[Node] = set()
    stack = [value.node]
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack.extend(v.node for v in node.inputs if node not in ends)
    return found
