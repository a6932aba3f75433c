"""What the kernels over a full shape share: buffers, indices by class, chunks, stores and the finish.

`RowsLowering` (rows.py) and `ColumnsLowering` (columns.py) add the loops: `_loops` emits the body for one chunk and
gives the number of chunks, `_finish` what runs once after all of them. Enter at `KernelLowering.run`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from graphc.errors import InternalError
from graphc.graph import Graph, Node, Value
from graphc.loops.builder import Builder, Ranges, linear_address
from graphc.loops.cost import TRANSCENDENTAL, body_cost, element_cost
from graphc.loops.evaluate import Checks, Evaluator, Index, Point
from graphc.loops.ir import I64, BufferParam, Const, Let, Load, LoopKernel, Op, Prefetch, Stmt, Store
from graphc.loops.lanes import Body, lane_loop, named
from graphc.loops.prepack import Pack
from graphc.passes.domain import VIEW, Rows, RowsShape, class_of_shape
from graphc.target import Target
from graphc.types import Dim, DType, Size, ceildiv, maximum, minimum, product, symbols

AHEAD = 2048  # bytes between what a loop touches and what it asks for at the same time
CACHE_LINE = 64  # bytes that come at once
GRAIN = 16 * 1024  # simple vector instructions (about 5 us) that make a chunk worth handing over


@dataclass(frozen=True)
class Lowered:
    """A kernel and what its task needs: the values of its sizes, and the temporary buffers behind its operands."""

    kernel: LoopKernel
    sizes: tuple[Size, ...]
    partials: tuple[tuple[DType, Size], ...] = ()
    packs: tuple[Pack, ...] = ()  # operands that an earlier region packs; their buffers come last


def lanes_for(graph: Graph, target: Target) -> int:
    """The one lane count of a kernel: a register of the smallest dtype that arithmetic runs in (4 bytes, or 8)."""
    sizes = [v.type.dtype.itemsize for node in graph.order() for v in node.outputs if v.type.rank]
    return target.lanes(8 if sizes and all(size == 8 for size in sizes) else 4)


class KernelLowering(ABC):
    """One kernel being lowered; `run` gives it. `partials`: which reductions leave results of chunks, and where."""

    def __init__(
        self, name: str, graph: Graph, shape: RowsShape, target: Target, checks: Checks, partials: Sequence[Node]
    ) -> None:
        self.name, self.graph, self.shape, self.target = name, graph, shape, target
        self.h = Builder(self._lanes())
        self.axes = [i for i, size in enumerate(shape.full) if size != 1]
        self.kept = [i for i in self.axes if i not in shape.reduced]
        self.reduced = [i for i in self.axes if i in shape.reduced]
        self.extents: dict[str, Size] = {symbol_of(i): size for i, size in enumerate(shape.full)}
        self.buffers = {value: f"b{n}" for n, value in enumerate(graph.inputs)}
        self.evaluator = Evaluator(self.h, graph, self.buffers, self.extents, checks)
        self.checks = checks
        first = len(graph.inputs) + len(graph.outputs)
        self.partials = {node: f"b{first + n}" for n, node in enumerate(partials)}
        inner = self._inner()
        self.heavy = any(body_cost(node) >= TRANSCENDENTAL for node in inner)
        self.cost = element_cost(graph, inner)
        # what one row after another reads
        again = {product(shape.full[first:]) for first in range(1, len(shape.full) + 1)}
        # buffers that need no asking (any more)
        self.prefetched = {*self.partials.values(), *(b for v, b in self.buffers.items() if v.type.size in again)}
        self.top = Point({symbol_of(i): 0 for i, size in enumerate(shape.full) if size == 1})

    def _inner(self) -> Sequence[Node]:
        """The nodes that are computed for each element, or often enough to count so."""
        return self.graph.order()

    def _lanes(self) -> int:
        """How many elements all vectors of the kernel have."""
        return lanes_for(self.graph, self.target)

    @abstractmethod
    def _loops(self) -> Size:
        """Emit the body for the chunk with the number `chunk`; gives the number of chunks."""

    @abstractmethod
    def _finish(self, chunks: Size) -> tuple[Stmt, ...]:
        """What runs once after all chunks; empty if nothing does."""

    @abstractmethod
    def _partial(self, node: Node, chunks: Size) -> tuple[DType, Size]:
        """The dtype and the number of the partial results that a reduction leaves."""

    def run(self) -> Lowered:
        """The kernel, its sizes, and the buffers of its partial results."""
        chunks = self._loops()
        body, self.h.levels = self.h.levels, [type(self.h.levels[0])()]
        finish = self._finish(chunks)
        sizes = tuple(sorted({*self.h.sizes, *symbols(chunks)}))
        outputs = [(v, f"b{len(self.graph.inputs) + n}") for n, v in enumerate(self.graph.outputs)]
        params = [BufferParam(name, v.type.dtype, v.type.size) for v, name in self.buffers.items()]
        params += [BufferParam(name, v.type.dtype, v.type.size, writable=True) for v, name in outputs]
        partials = [self._partial(node, chunks) for node in self.partials]
        params += [
            BufferParam(name, dtype, size, writable=True)
            for name, (dtype, size) in zip(self.partials.values(), partials, strict=True)
        ]
        kernel = LoopKernel(self.name, tuple(params), sizes, tuple(body[0].statements), chunks, finish)
        return Lowered(kernel, tuple(Dim.symbol(name) for name in sizes), tuple(partials))

    # chunks and loops

    def _vectors(self, axes: list[int]) -> Size:
        """How many vectors the elements along `axes` make."""
        sizes = [self.shape.full[i] for i in axes]
        if axes and axes[-1] == self.axes[-1]:
            sizes[-1] = ceildiv(sizes[-1], self.h.lane_count)
        return product(sizes)

    def _share(self, vectors: Size) -> Size:
        """How many pieces of so many vectors a chunk takes: enough to be worth handing over, at least one."""
        work = vectors * self.cost
        return ceildiv(GRAIN, work) if isinstance(work, int) and work else GRAIN // maximum(work, 1) + 1

    def _range(self, chunk: Size, share: Size, stop: Size, step: int = 0) -> tuple[Size, Size]:
        """What chunk number `chunk` takes of 0..stop; both ends show it if they are multiples of `step` (lanes)."""
        step = step or self.h.lane_count
        unit = step if stop % step == 0 == share % step else 1
        first = named(self.h, "first", chunk * share, unit)
        last = minimum((first + share) // unit, stop // unit)
        return first, named(self.h, "last", last * unit, unit)

    def _lane_loop(self, start: Size, stop: Size, unroll: int, point: Point, body: Body) -> None:
        """`body` over vectors of the last axis; the first loop that touches a buffer asks for it ahead of time."""

        def streaming(points: list[Point]) -> None:
            level = self.h.levels[-1].statements
            done = len(level)
            body(points)
            if points[0].mask is None and self.h.depth:
                self._prefetch(level[done:])

        lane_loop(self.h, self.target, start, stop, unroll, point, symbol_of(self.axes[-1]), streaming)

    def _prefetch(self, statements: Sequence[Stmt]) -> None:
        """Ask for what the next iterations will read, and for the lines that they will store to."""
        loads = [s.value for s in statements if isinstance(s, Let) and isinstance(s.value, Load)]
        touched = [(x.buffer, x.index, x.vtype, False) for x in loads]
        touched += [(s.buffer, s.index, s.value.vtype, True) for s in statements if isinstance(s, Store)]
        new = [t for t in touched if t[0] not in self.prefetched and t[1].vtype.lanes < t[2].lanes]
        for buffer, index, vtype, write in new:
            size = vtype.dtype.itemsize
            for line in range(0, vtype.lanes * size, CACHE_LINE):
                ahead = Const((AHEAD + line) // size, I64)
                self.h.emit(Prefetch(buffer, Op("add", (index, ahead), I64), write))
        self.prefetched.update(buffer for buffer, *_ in new)

    def _at_row(self, row: Dim, axes: Sequence[int]) -> Point:
        """Where `row` is, an index over `axes` flattened into one (a symbol)."""
        ranges = Ranges({**self.extents, str(row): product(self.shape.full[i] for i in axes)})
        places, rest = dict(self.top.axes), row
        for axis in reversed(axes[1:]):
            places[symbol_of(axis)] = ranges.mod(rest, self.shape.full[axis])
            rest = ranges.div(rest, self.shape.full[axis])  # type: ignore[assignment]
        places[symbol_of(axes[0])] = rest
        return Point(places)

    def _store_all(self, wanted: Sequence[tuple[Value, Point]]) -> None:
        """Evaluate everything, then store: an update in place reads all of its old values first."""
        values = [(v, p, self.evaluator.at(v, self.index_of(v), p)) for v, p in wanted]
        for value, point, result in values:
            address = self.evaluator.placed(linear_address(self.index_of(value), value.type.shape), point)
            for buffer in self._buffers_of(value):
                self.h.store(buffer, address, result, point.mask)

    def _buffers_of(self, result: Value) -> list[str]:
        """The buffers that a result is stored to."""
        first = len(self.graph.inputs)
        return [f"b{first + position}" for position, output in enumerate(self.graph.outputs) if output == result]

    def _results(self, kind: str) -> list[Value]:
        """The results of a class, each once."""
        return [v for v in dict.fromkeys(self.graph.outputs) if self._class(v) == kind]

    # classes and indices

    def _class(self, value: Value) -> str:
        """full, row, scalar or column; a view counts as what its shape is read as."""
        found = self.shape.classes[value]
        if found != VIEW:
            return found
        read = class_of_shape(value.type.shape, Rows(self.shape.full, self.shape.reduced))
        if read is None:
            raise InternalError(f"a view of shape {value.type} in a kernel over {self.shape.full}")
        return read

    def index_of(self, value: Value) -> Index:
        """The index of a value in terms of the axis symbols, by its class."""
        shape, full = value.type.shape, self.shape.full
        kind = self._class(value)
        if kind == "scalar":
            return (0,) * len(shape)
        kept = [i for i in range(len(full)) if i not in self.shape.reduced]
        along = {"row": kept, "column": self.reduced}.get(kind, range(len(full)))
        if kind == "row" and shape == tuple(size if i in kept else 1 for i, size in enumerate(full)):
            return tuple(Dim.symbol(symbol_of(i)) if i in self.kept else 0 for i in range(len(full)))
        # of the same rank or not, a movement of ones may have put the sizes on other axes
        axes = [i for i in along if full[i] != 1]
        if [s for s in shape if s != 1] != [full[i] for i in axes]:
            raise InternalError(f"{kind} value {value.type} in a kernel over {full} reduced over {self.shape.reduced}")
        left = iter(axes)
        return tuple(0 if size == 1 else Dim.symbol(symbol_of(next(left))) for size in shape)


def symbol_of(axis: int) -> str:
    """The symbol that stands for the index along an axis of the full shape."""
    return f"f{axis}"
