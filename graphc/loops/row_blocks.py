"""Kernels of blocks: contractions with rows between them, for a block of rows at a time (docs/design/blocks.md).

Enter at `lower_blocks`. The numbers are in `block_plan.py`, the steps and slots in `block_values.py`, the tiles in
`block_products.py`; `block_rows.py` has the loops over the columns. Here are the loops around them, what the products
read and where their results go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from graphc.graph import Graph, Node, Value
from graphc.loops.block_bounds import columns_of_block, masks_of
from graphc.loops.block_operands import emit_turned, panel_dtype, read_turned, turned_operands
from graphc.loops.block_plan import PADDING, plan_blocks, sweeps_pay
from graphc.loops.block_products import BlockProduct, Tiles
from graphc.loops.block_results import Products
from graphc.loops.block_rows import Frame, RowLoops
from graphc.loops.block_running import RunningRows
from graphc.loops.block_sweeps import plan_sweeps
from graphc.loops.block_values import BlockValues, plan_values, stages_of
from graphc.loops.blocks import bind, opaque
from graphc.loops.builder import LANE, Builder, Ranges, Scalar
from graphc.loops.evaluate import Checks, Evaluator, Point
from graphc.loops.folds import wide_dtype
from graphc.loops.ir import BufferParam, LoopKernel, Scratch
from graphc.loops.kernel import Lowered, symbol_of
from graphc.loops.lanes import below
from graphc.loops.packing import Source
from graphc.loops.tile import View
from graphc.passes.blocks_shape import COLUMN_PRODUCT, ROW_PRODUCT, BlocksShape
from graphc.passes.domain import ROW
from graphc.target import Target
from graphc.types import Dim, DType, Size, ceildiv, int64, minimum, product, symbols


def lower_blocks(name: str, graph: Graph, shape: BlocksShape, target: Target, checks: Checks) -> Lowered:
    """The kernel for a graph of blocks."""
    return _Lowering(name, graph, shape, target, checks).run()


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
        self.whole = plan_values(graph, shape, stages_of(graph, shape), shape.products)
        sweeps, itemsize = plan_sweeps(graph, shape), self.dtype.itemsize
        swept = sweeps_pay(len(sweeps), self.columns, self.whole.count, itemsize, target)
        self.sweeps = sweeps if swept else []
        self.values = [sweep.values for sweep in sweeps] if swept else [self.whole]
        slots = max(values.count for values in self.values)
        adds = any(each.kind == COLUMN_PRODUCT for each in shape.products)
        self.masks = masks_of(graph, shape)
        self.plan = plan_blocks(
            self.rows, self.columns, self.batches, slots, adds, itemsize, target, swept, bool(self.masks)
        )
        self.tiles = Tiles(self.h, self.dtype, target.vector_registers)
        self.products = Products(self.h, target, shape, self.plan, self.evaluator, self.outputs, self.tiles)
        self.partials: list[tuple[DType, Size]] = []

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
        self.products.part = self.part
        self.products.clear_columns(self.where)
        count = ceildiv(self.rows, plan.height)
        first = self.part * plan.blocks
        with h.loop("block", first, minimum(first + plan.blocks, count)) as block:
            self._block(block)
        body, h.levels = h.levels[0].statements, [type(h.levels[0])()]
        self.products.finish()
        finish = tuple(h.levels[0].statements)
        params = [BufferParam(name, v.type.dtype, v.type.size) for v, name in self.buffers.items()]
        params += [BufferParam(name, v.type.dtype, v.type.size, writable=True) for v, name in self.outputs]
        behind = len(params)
        params += [BufferParam(f"b{behind + n}", d, size, writable=True) for n, (d, size) in enumerate(self.partials)]
        sizes = tuple(sorted({*h.sizes, *symbols(chunks)} - {"chunk"}))
        routines = tuple(self.tiles.routines.values())
        kernel = LoopKernel(self.name, tuple(params), sizes, tuple(body), chunks, finish, routines)
        return Lowered(kernel, tuple(map(Dim.symbol, sizes)), tuple(self.partials))

    # memory

    def _partial(self, dtype: DType, size: Size) -> str:
        self.partials.append((dtype, size))
        return f"b{len(self.graph.inputs) + len(self.graph.outputs) + len(self.partials) - 1}"

    def _declare(self, chunks: Size) -> None:
        """Slots, packed blocks of the entering products, rows that wait for products, and where products add."""
        h, height, swept = self.h, self.plan.height, self.plan.width
        self.slots: dict[tuple[int, DType], str] = {}
        self.slot_base: Size = 0
        length = (swept + 2 * PADDING if swept else self.columns + PADDING) * height
        if not isinstance(length, int):
            self.slot_base = bind(h, "slots", Dim.symbol("chunk") * length)
        for key in dict.fromkeys((n, v.type.dtype) for values in self.values for v, n in values.slots.items()):
            if isinstance(length, int):
                self.slots[key] = self._scratch("slot", key[1], length)
            else:
                self.slots[key] = self._partial(key[1], chunks * length)
        self.turned: dict[Value, str] = {}
        if isinstance(length, int):
            for view in turned_operands(self.graph, self.shape, self.evaluator.ranges):
                self.turned[view] = self._scratch("turned", panel_dtype(view), length)
        self.panels: dict[Node, str] = {}
        for node in self.shape.entering:
            whole = -(-self._inner(node) // h.lane_count) * h.lane_count
            self.panels[node] = self._scratch("packed", self.dtype, whole * height)
        self.products.declare(self._partial)
        if swept:
            self._declare_running()
            return
        for each in self.shape.products:
            for node in self.products.rows_behind(each) if each.kind == ROW_PRODUCT else ():
                dtype = node.types[0].dtype
                self.products.kept.setdefault(node, (self._scratch("kept", dtype, height), dtype))

    def _declare_running(self) -> None:
        """Values of rows that sweeps hand on, and sums of row products."""
        height = self.plan.height
        running = {n: self._scratch("running", wide_dtype(n), height) for n in self.shape.reductions}
        self.products.kept.update({node: (name, wide_dtype(node)) for node, name in running.items()})
        self.running = []
        for sweep in self.sweeps:
            scale = self._scratch("scale", self.dtype, height) if sweep.maximum else ""
            self.running.append(RunningRows(self.h, self.evaluator, self.shape, sweep, running, scale))
            for each in sweep.products:
                if each.kind == ROW_PRODUCT:
                    self.products.declare_sums(each, scale if each.node in sweep.scaled else None)

    def _scratch(self, stem: str, dtype: DType, length: int) -> str:
        name = self.h.fresh(stem)
        self.h.emit(Scratch(name, dtype, length))
        return name

    def _inner(self, node: Node) -> int:
        size = node.inputs[0].type.shape[-1]
        assert isinstance(size, int)
        return size

    # one block

    def _block(self, block: Size) -> None:
        h, plan, shape = self.h, self.plan, self.shape
        start = opaque(h, "first", block * plan.height, self.cell)
        stop: Size = start + plan.height
        if not plan.exact:
            stop = bind(h, "last", minimum(start + plan.height, self.rows))
        low, high = columns_of_block(h, self.masks, shape, start, stop, self.cell)

        def mask(first: Size) -> Scalar | None:
            return None if plan.exact else below(h, stop - first)

        frame = Frame(plan, self.where, start, stop, low, high, self._slots(self.whole), mask, self.cell, self.turned)
        for node in shape.entering:
            self._pack(frame, node)
        self.products.pack_sides(frame)
        results = [(v, name) for v, name in self.outputs if shape.classes[v] == ROW]
        if self.sweeps:
            for number in range(len(self.sweeps)):
                self._sweep(frame, number)
            self.running[0].results(frame, results)
            return
        self._enter(frame, self.whole)
        kept = {node: name for node, (name, _) in self.products.kept.items()}
        RowLoops(h, self.evaluator, shape, self.whole).emit(frame, kept, results)
        for each in shape.products:
            if each.kind == ROW_PRODUCT:
                self.products.row_product(frame, each)
            else:
                self.products.column_product(frame, each)

    def _sweep(self, block: Frame, number: int) -> None:
        """One sweep over the columns of a block of rows."""
        h, plan, sweep, rows = self.h, self.plan, self.sweeps[number], self.running[number]
        known = [node for earlier in self.sweeps[:number] for node in earlier.reductions]
        rows.start(block)
        sums = [each for each in sweep.products if each.kind == ROW_PRODUCT]
        for each in sums:
            self.products.clear(each)
        with h.loop("from", block.low, block.high, plan.width) as column:
            low = opaque(h, "low", column, self.cell)
            high = opaque(h, "high", minimum(low + plan.width, block.high), self.cell)
            base = bind(h, "base", (PADDING - low) * plan.height)
            frame = replace(block, low=low, high=high, base=base, slot=self._slots(sweep.values, base))
            self._enter(frame, sweep.values)
            rows.step(frame, known)
            for each in sweep.products:
                if each.kind == ROW_PRODUCT:
                    self.products.add(frame, each)
                else:
                    self.products.column_product(frame, each)
        rows.finish(block)
        for each in sums:
            self.products.finish_rows(block, each)

    def _slots(self, values: BlockValues, base: Size = 0) -> Callable[[Value], tuple[str, Size]]:
        return lambda v: (self.slots[values.slots[v], v.type.dtype], self.slot_base + base)

    def _pack(self, frame: Frame, node: Node) -> None:
        """The block's rows of what an entering product reads, transposed."""
        plan, axis = self.plan, 0 if self.shape.row < self.shape.column else 1
        rows, row = self.products.side(node, axis, self.where), "mn"[axis]
        source = Source(
            rows.buffer, self.dtype, rows.base + frame.start * rows.step[row], rows.step["k"], rows.step[row],
            plan.height if plan.exact else frame.stop - frame.start,
        )  # fmt: skip
        self.tiles.pack(self.target, source, self._inner(node), self.panels[node], plan.height // plan.lanes)

    def _enter(self, frame: Frame, values: BlockValues) -> None:
        """The matrices that entering products make, and operands of that size."""
        rows: tuple[Size, Size] = (frame.start, frame.start + self.plan.height if self.plan.exact else frame.stop)
        emit_turned(
            self.h, self.evaluator, self.shape, self.turned, self.plan.height, self.where, rows,
            (frame.low, frame.high), frame.base, self.target.masked_memory,
        )  # fmt: skip
        for node, leaf in values.leaves.items():
            self._entering(frame, node, leaf)

    def _entering(self, frame: Frame, node: Node, leaf: Value) -> None:
        """S.T = columns' side @ (rows' side of the block).T, into the slot of its leaf."""
        plan, shape = self.plan, self.shape
        axis = 1 if shape.row < shape.column else 0
        columns, column = self.products.side(node, axis, self.where), "mn"[axis]
        slot, base = frame.slot(leaf)
        index = tuple(Dim.symbol(symbol_of(axis)) for axis in range(len(shape.full)))

        def store(h: Builder, value: Scalar, c: Size, lane: Size, where: tuple[Size, ...], mask: Scalar | None) -> None:
            place = {**self.where, symbol_of(shape.row): frame.start + lane, symbol_of(shape.column): c}
            exists = frame.mask(frame.start + lane - Dim.symbol(LANE))
            point = Point(place, exists, {Value(node): value})
            for view in self.turned if leaf != Value(node) else ():
                point.bound[view] = read_turned(h, view, self.turned[view], frame.base + c * plan.height + lane)
            h.store(slot, base + c * plan.height + lane, self.evaluator.at(leaf, index, point), None)

        whole = (slot, base, plan.height)
        a = View(columns.buffer, columns.base, columns.step["k"], columns.step[column])
        b = View(self.panels[node], 0, plan.height, 1)
        made = BlockProduct(frame.low, frame.high, self.columns, plan.height, self._inner(node), a, b, whole)
        self.tiles.product(made, None if leaf == Value(node) else store)
