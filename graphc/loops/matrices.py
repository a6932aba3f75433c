"""Kernels of algorithms over whole matrices: cholesky, lu, pivot_order, solve_triangular. Enter at `lower_matrices`.

A chunk is some of the matrices of the leading axes; one matrix is the work of one thread, so its result cannot depend
on their number. Lanes run along the rows. Sums over earlier rows stand in registers for several vectors of a row at a
time (cholesky, solve_triangular); elimination subtracts one row from another (lu, pivot_order). To add an algorithm,
write a method of the name that the op's `Matrices` has.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.graph import Graph, Value
from graphc.loops.builder import LANE, Builder, Ranges, Scalar, linear_address
from graphc.loops.evaluate import Checks, Evaluator, Index, Point
from graphc.loops.ir import I64, BufferParam, Let, Load, LoopKernel, Reg, Var, VType
from graphc.loops.kernel import GRAIN, Lowered, lanes_for
from graphc.loops.lanes import below, lane_loop, named
from graphc.passes.domain import MatricesShape
from graphc.target import Target
from graphc.types import Dim, Size, ceildiv, int64, maximum, minimum, product, symbols

UNROLL = 4  # vectors of a row at a time
Columns = list[tuple[Size, Scalar | None]]  # of vectors of a row: the column of each lane, and a mask
COLUMN = "column"  # the symbol of the columns of a first operand, where those of the result have others


def lower_matrices(name: str, graph: Graph, shape: MatricesShape, target: Target, checks: Checks) -> Lowered:
    """The kernel for one op over matrices, of views."""
    return _Matrices(graph, shape, target, checks).run(name)


class _Matrices:
    def __init__(self, graph: Graph, shape: MatricesShape, target: Target, checks: Checks) -> None:
        self.graph, self.node, self.target = graph, shape.node, target
        self.x = self.node.inputs[0]
        self.dtype, self.n = self.x.type.dtype, self.x.type.shape[-1]
        self.h = Builder(lanes_for(graph, target))
        self.full = self.node.inputs[-1].type.shape  # of the matrix that is worked on
        self.names = [f"f{a}" for a in range(len(self.full))]
        self.row, self.col = self.names[-2:]
        self.extents: dict[str, Size] = dict(zip(self.names, self.full, strict=True)) | {COLUMN: self.n}
        self.buffers = {value: f"b{i}" for i, value in enumerate(graph.inputs)}
        self.result, self.other = f"b{len(graph.inputs)}", f"b{len(graph.inputs) + 1}"
        self.evaluator = Evaluator(self.h, graph, self.buffers, self.extents, checks)
        self.place: dict[str, Size] = {}  # of the leading axes

    def run(self, name: str) -> Lowered:
        h, batch = self.h, self.full[:-2]
        algorithm: Callable[[], None] = getattr(self, self.node.op.lowering.algorithm)
        lanes = h.lane_count
        share: Size = GRAIN // (maximum(self.n, 1) * self.n * ceildiv(maximum(self.full[-1], 1), lanes) + 1) + 1
        first = named(h, "first", Dim.symbol("chunk") * share)
        with h.loop("i", first, named(h, "last", minimum(first + share, product(batch)))) as matrix:
            ranges = Ranges({**self.extents, str(matrix): product(batch)})
            rest: Size = matrix
            for axis in reversed(range(len(batch))):
                self.place[self.names[axis]] = named(h, "at", ranges.mod(rest, batch[axis]))
                rest = named(h, "rest", ranges.div(rest, batch[axis]))
            algorithm()
        made = self.node.types[0]
        temporary = ((self.dtype, product(self.full)),) if made.dtype is not self.dtype else ()
        params = [BufferParam(self.buffers[v], v.type.dtype, v.type.size) for v in self.graph.inputs]
        params.append(BufferParam(self.result, made.dtype, made.size, writable=True))
        params += [BufferParam(self.other, dtype, size, writable=True) for dtype, size in temporary]
        chunks = ceildiv(product(batch), share)
        sizes = tuple(sorted({*h.sizes, *symbols(chunks), *(s for p in params for s in symbols(p.size))}))
        kernel = LoopKernel(name, tuple(params), sizes, tuple(h.levels[0].statements), chunks)
        return Lowered(kernel, tuple(Dim.symbol(s) for s in sizes), temporary)

    # elements

    def _address(self, row: Size, col: Size) -> Size:
        index: Index = tuple(Dim.symbol(n) for n in self.names)
        point = Point({**self.place, self.row: row, self.col: col})
        return self.evaluator.placed(linear_address(index, self.full), point)

    def _read(self, buffer: str, row: Size, col: Size, mask: Scalar | None = None) -> Scalar:
        """An element of a matrix that the kernel writes (a vector for lanes of columns): read here, not before."""
        h = self.h
        vector, base = h.lane_form(self._address(row, col))
        vtype = VType(self.dtype, h.lane_count if vector else 1)
        var = Var(h.fresh("x"), vtype)
        h.emit(Let(var, Load(buffer, h.index(base).expr, vtype, mask.expr if mask else None)))
        return Scalar(var, h.depth)

    def _write(self, buffer: str, row: Size, col: Size, value: Scalar, mask: Scalar | None = None) -> None:
        self.h.store(buffer, self._address(row, col), value, mask)

    def _given(self, operand: Value, row: Size, col: Size, mask: Scalar | None = None, symbol: str = "") -> Scalar:
        """An element of an operand, through whatever movement it is a view by."""
        col_symbol = symbol or self.col
        index: Index = (*(Dim.symbol(n) for n in self.names[:-1]), Dim.symbol(col_symbol))
        return self.evaluator.at(operand, index, Point({**self.place, self.row: row, col_symbol: col}, mask))

    def _along(self, start: Size, stop: Size, unroll: int, body: Callable[[Columns], None]) -> None:
        """`body` for the vectors of columns from start to stop."""

        def points(found: list[Point]) -> None:
            body([(p.axes[self.col], p.mask) for p in found])

        lane_loop(self.h, self.target, start, stop, unroll, Point(self.place), self.col, points)

    def _accumulators(self, row: Size, columns: Columns, operand: Value) -> list[Reg]:
        h = self.h
        started = [self._given(operand, row, col, mask) for col, mask in columns]
        return [h.register(h.widened(value, h.lane_count)) for value in started]

    def _subtract(self, sums: list[Reg], factor: Scalar, others: list[Scalar]) -> None:
        for register, other in zip(sums, others, strict=True):
            self.h.assign(register, self.h.fma(factor, other, self.h.read(register)))

    # algorithms

    def cholesky(self) -> None:
        """Row i of U: what rows k < i leave of row i of x, over the root of its pivot."""
        h, u = self.h, self.result
        with h.loop("i", 0, self.n) as i:
            self._zeros(u, i)

            def rest(columns: Columns, i: Size = i) -> None:
                sums = self._accumulators(i, columns, self.x)
                with h.loop("k", 0, i) as k:
                    factor = h.neg(self._read(u, k, i))
                    self._subtract(sums, factor, [self._read(u, k, col, mask) for col, mask in columns])
                for register, (col, mask) in zip(sums, columns, strict=True):
                    self._write(u, i, col, h.read(register), mask)

            self._along(i, self.n, UNROLL, rest)
            pivot = self._read(u, i, i)
            nan = h.constant(float("nan"), self.dtype)
            root = h.select(h.gt(pivot, h.constant(0.0, self.dtype)), h.sqrt(pivot), nan)

            def scale(columns: Columns, i: Size = i, root: Scalar = root) -> None:
                for col, mask in columns:
                    self._write(u, i, col, h.div(self._read(u, i, col, mask), root), mask)

            self._along(i + 1, self.n, 1, scale)
            self._write(u, i, i, root)

    def _zeros(self, buffer: str, i: Size) -> None:
        """Nothing below the diagonal."""

        def clear(columns: Columns) -> None:
            for col, mask in columns:
                self._write(buffer, i, col, self.h.constant(0.0, self.dtype), mask)

        self._along(0, i, 1, clear)

    def solve_triangular(self) -> None:
        """Row i of the result: what the rows before it (behind it for an upper matrix) leave of row i of b."""
        h = self.h
        a, b = self.node.inputs
        lower, unit = self.node.attrs["lower"], self.node.attrs["unit"]
        one = h.constant(1.0, self.dtype)
        with h.loop("s", 0, self.n) as step:
            i = step if lower else named(h, "i", self.n - 1 - step)
            pivot = one if unit else self._given(a, i, i, symbol=COLUMN)
            known: tuple[Size, Size] = (0, i) if lower else (i + 1, self.n)
            if self.full[-1] == 1:
                self._dot(a, b, i, known, pivot)
            else:
                self._row_of_solution(a, b, i, known, pivot)

    def _row_of_solution(self, a: Value, b: Value, i: Size, known: tuple[Size, Size], pivot: Scalar) -> None:
        h = self.h

        def row(columns: Columns) -> None:
            sums = self._accumulators(i, columns, b)
            with h.loop("k", *known) as k:
                factor = h.neg(self._given(a, i, k, symbol=COLUMN))
                self._subtract(sums, factor, [self._read(self.result, k, col, mask) for col, mask in columns])
            for register, (col, mask) in zip(sums, columns, strict=True):
                self._write(self.result, i, col, h.div(h.read(register), pivot), mask)

        self._along(0, self.full[-1], UNROLL, row)

    def _dot(self, a: Value, b: Value, i: Size, known: tuple[Size, Size], pivot: Scalar) -> None:
        """For one column: lanes run along a row of a, and along the elements of x that are there."""
        h = self.h
        start, stop = known
        zero = h.constant(0.0, self.dtype)
        total = h.register(h.widened(zero, h.lane_count))
        with h.loop("k", start, stop, h.lane_count) as k:
            mask = below(h, stop - k)
            place = k + Dim.symbol(LANE)
            x = self._read(self.result, place, 0, mask)
            factor = self._given(a, i, place, mask, symbol=COLUMN)
            h.assign(total, h.fma(h.neg(h.widened(factor, h.lane_count)), x, h.read(total)))
        left = h.add(self._given(b, i, 0), h.fold_lanes("add", h.read(total)))
        self._write(self.result, i, 0, h.div(left, pivot))

    def lu(self) -> None:
        """Row i: earlier rows are subtracted so often that their columns become 0; how often is stored there."""
        h, w = self.h, self.result
        with h.loop("i", 0, self.n) as i:
            self._copy_row(w, i)
            with h.loop("k", 0, i) as k:
                self._eliminate(w, i, k)

    def pivot_order(self) -> None:
        """Elimination in a copy that takes the largest pivot of each column; numbers are exchanged with their rows."""
        h, w = self.h, self.other
        with h.loop("i", 0, self.n) as i:
            self._copy_row(w, i)
            h.store(self.result, self._order(i), h.index(i), None)
        with h.loop("k", 0, self.n) as k:
            here = h.register(h.abs(self._read(w, k, k)), "best")
            where = h.register(h.index(k), "row")
            with h.loop("r", k + 1, self.n) as r:
                size = h.abs(self._read(w, r, k))
                best = h.read(here)
                better = h.gt(size, best)
                h.assign(here, h.select(better, size, best))
                h.assign(where, h.select(better, h.index(r), h.read(where)))
            symbol = h.fresh("pick")
            h.symbols[symbol] = h.read(where)
            chosen = Dim.symbol(symbol)

            def exchange(columns: Columns, k: Size = k, chosen: Size = chosen) -> None:
                for col, mask in columns:
                    upper, lower = self._read(w, k, col, mask), self._read(w, chosen, col, mask)
                    self._write(w, k, col, lower, mask)
                    self._write(w, chosen, col, upper, mask)

            self._along(0, self.n, 1, exchange)
            first, second = (self._number(at) for at in (k, chosen))
            h.store(self.result, self._order(k), second, None)
            h.store(self.result, self._order(chosen), first, None)
            with h.loop("i", k + 1, self.n) as i:
                self._eliminate(w, i, k)

    def _copy_row(self, buffer: str, i: Size) -> None:
        def copy(columns: Columns) -> None:
            for col, mask in columns:
                self._write(buffer, i, col, self.h.widened(self._given(self.x, i, col, mask), self.h.lane_count), mask)

        self._along(0, self.n, 1, copy)

    def _eliminate(self, w: str, i: Size, k: Size) -> None:
        """Row i without row k."""
        h = self.h
        pivot, zero = self._read(w, k, k), h.constant(0.0, self.dtype)
        factor = h.select(h.eq(pivot, zero), zero, h.div(self._read(w, i, k), pivot))
        self._write(w, i, k, factor)
        minus = h.neg(factor)

        def subtract(columns: Columns) -> None:
            for col, mask in columns:
                left = h.fma(minus, self._read(w, k, col, mask), self._read(w, i, col, mask))
                self._write(w, i, col, left, mask)

        self._along(k + 1, self.n, 1, subtract)

    def _order(self, row: Size) -> Size:
        index: Index = tuple(Dim.symbol(n) for n in self.names[:-1])
        return self.evaluator.placed(linear_address(index, self.full[:-1]), Point({**self.place, self.row: row}))

    def _number(self, row: Size) -> Scalar:
        var = Var(self.h.fresh("x"), I64)
        self.h.emit(Let(var, Load(self.result, self.h.index(self._order(row)).expr, VType(int64))))
        return Scalar(var, self.h.depth)
