"""Kernels of blocks: contractions with rows between them, for a block of rows at a time (docs/design/blocks.md).

Enter at `lower_blocks`. The numbers are in `block_plan.py`, the steps and slots in `block_values.py`, the tiles in
`block_products.py`; `block_rows.py` has the loops over the columns. Here are the loops around them, what the products
read and where their results go.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator

from graphc.graph import Graph, Node, Value
from graphc.loops.block_bounds import columns_of_block
from graphc.loops.block_operands import emit_turned, panel_dtype, read_turned, turned_operands
from graphc.loops.block_plan import plan_blocks
from graphc.loops.block_products import BlockProduct, emit_product
from graphc.loops.block_rows import Frame, RowLoops
from graphc.loops.block_values import plan_values
from graphc.loops.blocks import bind, branch, opaque
from graphc.loops.builder import LANE, Builder, Ranges, Scalar, linear_address
from graphc.loops.evaluate import Checks, Evaluator, Point
from graphc.loops.folds import Fold
from graphc.loops.ir import BufferParam, Let, Load, LoopKernel, Scratch, Stmt, Var, VType
from graphc.loops.kernel import Lowered, symbol_of
from graphc.loops.lanes import below, load_here
from graphc.loops.matmul import label_symbol, strides_of
from graphc.loops.packing import Source, pack, pack_gathered
from graphc.loops.tile import View
from graphc.ops.registry import OPS
from graphc.passes.blocks_shape import COLUMN_PRODUCT, PRODUCT, ROW_PRODUCT, BlocksShape, Product
from graphc.passes.domain import ROW
from graphc.target import Target
from graphc.types import Dim, DType, Size, ceildiv, int64, minimum, product, symbols

TILE_ROWS = tuple(range(1, 27))
PADDING = 32  # columns behind the last one that a slot has room for: a tile may run over


def lower_blocks(name: str, graph: Graph, shape: BlocksShape, target: Target, checks: Checks) -> Lowered:
    """The kernel for a graph of blocks."""
    return _Lowering(name, graph, shape, target, checks).run()


class _Side:
    """An operand of a matmul in memory: where it lies, and the steps of its axes by label."""

    def __init__(self, node: Node, side: int, buffers: dict[Value, str], batch: dict[str, Size]) -> None:
        labels = node.op.lowering.labels(tuple(v.type for v in node.inputs), node.attrs)
        axes = labels[side]
        value = node.inputs[side]
        extents = {label_symbol(c): size for c, size in zip(axes, value.type.shape, strict=True)}
        self.buffer, self.base, steps, _ = strides_of(value, [[(c, 1)] for c in axes], buffers, Ranges(extents))
        self.step = {label: steps[label_symbol(label)] for label in axes}
        for label, index in zip(axes[:-2], batch.values(), strict=True):
            self.base = self.base + self.step[label] * index


class _Lowering:
    def __init__(self, name: str, graph: Graph, shape: BlocksShape, target: Target, checks: Checks) -> None:
        self.name, self.graph, self.shape, self.target = name, graph, shape, target
        self.dtype: DType = shape.entering[0].types[0].dtype
        self.h = Builder(target.lanes(self.dtype.itemsize))
        self.buffers = {value: f"b{n}" for n, value in enumerate(graph.inputs)}
        self.outputs = [(v, f"b{len(graph.inputs) + n}") for n, v in enumerate(graph.outputs)]
        self.rows, self.columns = shape.full[shape.row], shape.full[shape.column]
        self.batches = product(shape.full[:-2])
        self.extents: dict[str, Size] = {symbol_of(i): size for i, size in enumerate(shape.full)}
        self.evaluator = Evaluator(self.h, graph, self.buffers, self.extents, checks)
        self.values = plan_values(graph, shape)
        self.adds = [p for p in shape.products if p.kind == COLUMN_PRODUCT]
        count = self.values.count
        self.plan = plan_blocks(
            self.rows, self.columns, self.batches, count, bool(self.adds), self.dtype.itemsize, target
        )
        self.partials: list[tuple[DType, Size]] = []
        self.sum_of: dict[Node, str] = {}  # the buffer into which a column product adds

    def run(self) -> Lowered:
        h, plan, shape = self.h, self.plan, self.shape
        chunks = self.batches * plan.parts
        self.cell = h.fresh("cell")
        h.emit(Scratch(self.cell, int64, 1))
        self._declare(chunks)
        chunk: Size = Dim.symbol("chunk")
        ranges = Ranges({"chunk": chunks})
        self.part = 0 if plan.parts == 1 else bind(h, "part", ranges.mod(chunk, plan.parts))
        rest: Size = opaque(h, "batch", ranges.div(chunk, plan.parts), self.cell)
        self.where: dict[str, Size] = {}
        for axis in range(len(shape.full) - 3, -1, -1):
            size = shape.full[axis]
            if axis == 0:
                self.where[symbol_of(axis)] = rest
                continue
            whole = bind(h, "whole", rest // size)
            self.where[symbol_of(axis)] = opaque(h, "digit", rest - whole * size, self.cell)
            rest = whole
        self.where = dict(reversed(self.where.items()))
        for each in self.adds:
            self._clear(each)
        count = ceildiv(self.rows, plan.height)
        first = self.part * plan.blocks
        with h.loop("block", first, minimum(first + plan.blocks, count)) as block:
            self._block(block)
        body, h.levels = h.levels[0].statements, [type(h.levels[0])()]
        finish = self._finish()
        params = [BufferParam(name, v.type.dtype, v.type.size) for v, name in self.buffers.items()]
        params += [BufferParam(name, v.type.dtype, v.type.size, writable=True) for v, name in self.outputs]
        behind = len(params)
        params += [BufferParam(f"b{behind + n}", d, size, writable=True) for n, (d, size) in enumerate(self.partials)]
        sizes = tuple(sorted({*h.sizes, *symbols(chunks)} - {"chunk"}))
        kernel = LoopKernel(self.name, tuple(params), sizes, tuple(body), chunks, finish)
        return Lowered(kernel, tuple(map(Dim.symbol, sizes)), tuple(self.partials))

    # memory

    def _partial(self, dtype: DType, size: Size) -> str:
        self.partials.append((dtype, size))
        return f"b{len(self.graph.inputs) + len(self.graph.outputs) + len(self.partials) - 1}"

    def _declare(self, chunks: Size) -> None:
        """Slots, packed blocks of the entering products, and where column products add."""
        h, height = self.h, self.plan.height
        self.slots: list[str] = []
        self.slot_base: Size = 0
        length = (self.columns + PADDING) * height
        dtypes = {number: value.type.dtype for value, number in self.values.slots.items()}
        for number in range(self.values.count):
            if isinstance(length, int):
                self.slots.append(h.fresh("slot"))
                h.emit(Scratch(self.slots[-1], dtypes[number], length))
            else:
                self.slots.append(self._partial(dtypes[number], chunks * length))
                self.slot_base = bind(h, "slots", Dim.symbol("chunk") * length)
        self.turned: dict[Value, str] = {}
        if isinstance(length, int):
            for view in turned_operands(self.graph, self.shape, self.evaluator.ranges):
                self.turned[view] = h.fresh("turned")
                h.emit(Scratch(self.turned[view], panel_dtype(view), length))
        self.panels: dict[Node, str] = {}
        for node in self.shape.entering:
            self.panels[node] = h.fresh("packed")
            inner = self._inner(node)
            h.emit(Scratch(self.panels[node], self.dtype, -(-inner // h.lane_count) * h.lane_count * height))
        self.kept_rows: dict[Node, str] = {}
        for each in self.shape.products:
            for node in self._rows_behind(each) if each.kind == ROW_PRODUCT else ():
                if node not in self.kept_rows:
                    self.kept_rows[node] = h.fresh("kept")
                    h.emit(Scratch(self.kept_rows[node], node.types[0].dtype, height))
        for each in self.adds:
            (buffer,) = (name for v, name in self.outputs if v == Value(each.node))
            if self.plan.parts != 1:
                buffer = self._partial(self.dtype, self.plan.parts * each.node.types[0].size)
            self.sum_of[each.node] = buffer

    def _outputs_of(self, each: Product) -> list[tuple[Value, str]]:
        """The results that a product and its epilogue give."""
        found = [(v, name) for v, name in self.outputs if self.shape.classes[v] == PRODUCT]
        return [(v, name) for v, name in found if each.node in _below(v, {each.node})]

    def _rows_behind(self, each: Product) -> list[Node]:
        """The reductions that the epilogue of a product reads."""
        ends = {each.node, *self.shape.reductions}
        nodes = {node for v, _ in self._outputs_of(each) for node in _below(v, ends)}
        return [node for node in self.shape.reductions if node in nodes]

    def _inner(self, node: Node) -> int:
        size = node.inputs[0].type.shape[-1]
        assert isinstance(size, int)
        return size

    def _slot(self, value: Value) -> tuple[str, Size]:
        return self.slots[self.values.slots[value]], self.slot_base

    # one block

    def _block(self, block: Size) -> None:
        h, plan, shape = self.h, self.plan, self.shape
        self.start = opaque(h, "first", block * plan.height, self.cell)
        self.stop: Size = self.start + plan.height
        if not plan.exact:
            self.stop = bind(h, "last", minimum(self.start + plan.height, self.rows))
        self.low, self.high = columns_of_block(h, self.graph, shape, self.start, self.stop, self.cell)
        rows, columns = (self.start, self.stop), (self.low, self.high)
        emit_turned(h, self.evaluator, shape, self.turned, plan.height, self.where, rows, columns)
        for node in shape.entering:
            self._enter(node)
        frame = Frame(
            plan, self.where, self.start, self.stop, self.low, self.high, self._slot, self._mask, self.cell,
            self.turned,
        )  # fmt: skip
        results = [(v, name) for v, name in self.outputs if shape.classes[v] == ROW]
        RowLoops(h, self.evaluator, shape, self.values, results, self.kept_rows).emit(frame)
        for each in shape.products:
            if each.kind == ROW_PRODUCT:
                self._row_product(each)
            else:
                self._column_product(each)

    def _mask(self, first: Size) -> Scalar | None:
        """Which of the rows first, first + 1, ... (lanes) exist."""
        return None if self.plan.exact else below(self.h, self.stop - first)

    def _enter(self, node: Node) -> None:
        """S.T = columns' side @ (rows' side of the block).T, into the slot of its leaf."""
        h, plan, shape = self.h, self.plan, self.shape
        rows_first = shape.row < shape.column
        rows = _Side(node, 0 if rows_first else 1, self.buffers, self.where)
        columns = _Side(node, 1 if rows_first else 0, self.buffers, self.where)
        row, column = ("m", "n") if rows_first else ("n", "m")
        source = Source(
            rows.buffer, self.dtype, rows.base + self.start * rows.step[row], rows.step["k"], rows.step[row],
            plan.height if plan.exact else self.stop - self.start,
        )  # fmt: skip
        length, panel, leaf = self._inner(node), self.panels[node], self.values.leaves[node]
        self._pack(source, length, panel, plan.height // plan.lanes)
        slot, base = self._slot(leaf)
        index = tuple(Dim.symbol(symbol_of(axis)) for axis in range(len(shape.full)))

        def store(h: Builder, value: Scalar, c: Size, lane: Size, where: tuple[Size, ...], mask: Scalar | None) -> None:
            place = {**self.where, symbol_of(shape.row): self.start + lane, symbol_of(shape.column): c}
            exists = self._mask(self.start + lane - Dim.symbol(LANE))
            point = Point(place, exists, {Value(node): value})
            for view in self.turned if leaf != Value(node) else ():
                point.bound[view] = read_turned(h, view, self.turned[view], c * plan.height + lane)
            h.store(slot, base + c * plan.height + lane, self.evaluator.at(leaf, index, point), None)

        emit_product(
            h,
            self.target,
            BlockProduct(
                self.dtype, self.low, self.high, self.columns, plan.height, length,
                View(columns.buffer, columns.base, columns.step["k"], columns.step[column]),
                View(panel, 0, plan.height, 1), True, TILE_ROWS,
            ),
            store,
        )  # fmt: skip

    def _pack(self, source: Source, length: Size, panel: str, groups: int) -> None:
        """Pack a block; zips in registers would take a third of the time to compile."""
        (pack_gathered if self.target.masked_memory else pack)(self.h, source, length, panel, 0, groups)

    # products

    def _row_product(self, each: Product) -> None:
        """The rows of the block of C[row, n] = sum over the columns; its epilogue is evaluated on the tile."""
        h, plan = self.h, self.plan
        side = _Side(each.node, 1 - each.side, self.buffers, self.where)
        n = "n" if each.side == 0 else "m"
        slot, base = self._slot(each.source)
        shape = each.node.types[0].shape
        row_axis, n_axis = (len(shape) - 2, len(shape) - 1) if each.side == 0 else (len(shape) - 1, len(shape) - 2)
        count = shape[n_axis]
        assert isinstance(count, int)
        outputs = self._outputs_of(each)
        symbol = [f"o{axis}" for axis in range(len(shape))]
        index = tuple(map(Dim.symbol, symbol))
        self.evaluator.ranges.extents.update(zip(symbol, shape, strict=True))
        behind = self._rows_behind(each)

        def finish(h: Builder, value: Scalar, row: Size, j: Size, mask: Scalar | None) -> None:
            place = dict(zip(symbol, self.where.values(), strict=False))
            place[symbol[row_axis]], place[symbol[n_axis]] = self.start + row, j
            bound = {Value(each.node): value}
            for node in behind:
                bound[Value(node)] = self._row_value(self.kept_rows[node], node.types[0].dtype, row)
            point = Point(place, mask, bound)
            results = [self.evaluator.at(v, index, point) for v, _ in outputs]
            for (v, buffer), result in zip(outputs, results, strict=True):
                address = self.evaluator.placed(linear_address(index, v.type.shape), point)
                h.store(buffer, address, result, mask)

        def straight(h: Builder, value: Scalar, i: Size, j: Size, where: tuple[Size, ...], mask: Scalar | None) -> None:
            with self._guarded(i, None if plan.exact else self.stop - self.start) as row:
                finish(h, value, row, j, mask)

        def turned(h: Builder, value: Scalar, i: Size, j: Size, where: tuple[Size, ...], mask: Scalar | None) -> None:
            finish(h, value, j, i, self._mask(self.start + j - Dim.symbol(LANE)))

        low = self.low
        length = self.high - low if low != 0 else self.high
        of_slot = View(slot, base + low * plan.height, plan.height, 1)
        of_side = View(side.buffer, side.base + low * side.step["k"], side.step["k"], side.step[n])
        heights = tuple(r for r in TILE_ROWS if plan.height % r == 0)
        if side.step[n] == 1:
            made = BlockProduct(self.dtype, 0, plan.height, plan.height, count, length, of_slot, of_side, True, heights)
            emit_product(h, self.target, made, straight)
        else:
            made = BlockProduct(self.dtype, 0, count, count, plan.height, length, of_side, of_slot, True, TILE_ROWS)
            emit_product(h, self.target, made, turned)

    def _row_value(self, buffer: str, dtype: DType, row: Size) -> Scalar:
        """What the loops over the columns have left for a row of the block, or for a vector of them."""
        if LANE in symbols(row):
            return load_here(self.h, buffer, dtype, row)
        var = Var(self.h.fresh("x"), VType(dtype))
        self.h.emit(Let(var, Load(buffer, self.h.index(row).expr, var.vtype)))
        return Scalar(var, self.h.depth)

    @contextlib.contextmanager
    def _guarded(self, index: Size, limit: Size | None) -> Iterator[Size]:
        """A block for `index` below `limit`; gives it under a name that keeps what follows inside."""
        if limit is None:
            yield index
            return
        with branch(self.h, self.h.lt(self.h.index(index), self.h.index(limit))):
            yield bind(self.h, "row", index)

    def _sum_place(self, each: Product) -> tuple[str, Size, int]:
        """Where a column product adds: its buffer, the offset of the chunk's matrix, and the number of its columns."""
        *batch, _, count = each.node.types[0].shape
        assert isinstance(count, int)
        matrix = self.columns * count
        offset: Size = 0
        for size, index in zip(batch, self.where.values(), strict=True):
            offset = offset * size + index
        if self.plan.parts != 1:
            offset = offset + self.part * self.batches
        return self.sum_of[each.node], offset * matrix, count

    def _clear(self, each: Product) -> None:
        """Zeros where a column product will add."""
        h = self.h
        buffer, offset, count = self._sum_place(each)
        zero = h.constant(0, self.dtype)
        with h.loop("c", 0, self.columns) as c:
            for first in range(0, count, h.lane_count):
                mask = below(h, count - first) if count - first < h.lane_count else None
                h.store(buffer, offset + c * count + first + Dim.symbol(LANE), zero, mask)

    def _column_product(self, each: Product) -> None:
        """C[column, n] += sum over the rows of the block."""
        h, plan = self.h, self.plan
        side = _Side(each.node, 1, self.buffers, self.where)
        slot, base = self._slot(each.source)
        buffer, offset, count = self._sum_place(each)
        view = View(side.buffer, side.base + self.start * side.step["k"], side.step["k"], side.step["n"])
        if side.step["n"] != 1:
            groups = -(-count // plan.lanes)
            panel = h.fresh("packed")
            h.emit(Scratch(panel, self.dtype, plan.height * groups * plan.lanes))
            source = Source(side.buffer, self.dtype, view.base, view.k_stride, view.stride, count)
            self._pack(source, self.stop - self.start, panel, groups)
            view = View(panel, 0, groups * plan.lanes, 1)

        def add(h: Builder, value: Scalar, c: Size, j: Size, where: tuple[Size, ...], mask: Scalar | None) -> None:
            with self._guarded(c, self.high) as column:
                address = offset + column * count + j
                old = load_here(h, buffer, self.dtype, address, mask)
                h.store(buffer, address, h.add(old, value), mask)

        length = plan.height if plan.exact else self.stop - self.start
        made = BlockProduct(
            self.dtype, self.low, self.high, self.columns, count, length,
            View(slot, base, 1, plan.height), view, False, TILE_ROWS, True,
        )  # fmt: skip
        emit_product(h, self.target, made, add)

    def _finish(self) -> tuple[Stmt, ...]:
        """The private sums of the parts, added in their order."""
        if self.plan.parts == 1 or not self.adds:
            return ()
        h = self.h
        combine = OPS["sum"].lowering
        for each in self.adds:
            (result,) = (name for v, name in self.outputs if v == Value(each.node))
            size = each.node.types[0].size
            with h.loop("i", 0, size, h.lane_count) as i:
                mask = below(h, size - i)
                fold = Fold(h, combine, self.dtype, h.lane_count, 1)
                with h.loop("part", 0, self.plan.parts) as part:
                    address = part * size + i + Dim.symbol(LANE)
                    fold.add(h, [load_here(h, self.sum_of[each.node], self.dtype, address, mask)], [None])
                h.store(result, i + Dim.symbol(LANE), fold.lanes(h), mask)
        return tuple(h.levels[0].statements)


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
