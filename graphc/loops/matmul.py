"""Contraction kernels: the operands as strides of labelled axes, and a fused epilogue evaluated on register tiles.

Enter at `lower_contraction`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping, Sequence

from graphc.errors import InternalError
from graphc.graph import Graph, Value
from graphc.loops.builder import Builder, Ranges, Scalar, linear_address
from graphc.loops.contraction import contract
from graphc.loops.evaluate import Checks, Evaluator, Point
from graphc.loops.ir import BufferParam, LoopKernel, Prefetch
from graphc.loops.kernel import Lowered
from graphc.loops.nest import Arrangement, Loop, Reach, arrange
from graphc.loops.prepack import Pack, prepacked
from graphc.loops.prologue import BUFFER as COMPUTED
from graphc.loops.prologue import with_prologues
from graphc.loops.schedule import GUESS, known
from graphc.ops.lowering import Contraction, Movement
from graphc.passes.domain import ContractionShape
from graphc.target import Target
from graphc.types import Dim, Size, product, substitute, symbols, terms_of

_TERM = re.compile(r"(\d*)(\w)")


def lower_contraction(
    name: str, graph: Graph, shape: ContractionShape, target: Target, checks: Checks, shared: Callable[[Pack], bool]
) -> Lowered:
    """The kernel for one contraction and its epilogue. shared: whether another one packs an operand in this way."""
    dtype = shape.matmul.types[0].dtype
    builder = Builder(target.lanes(dtype.itemsize))
    buffers = {value: f"b{i}" for i, value in enumerate(graph.inputs)}
    labels, arranged = arranged_contraction(graph, shape, buffers, target)
    behind = _Behind(builder, graph, shape, buffers, labels, arranged, checks)
    asks = arranged.col is not None and outgrows_cache(graph, target)
    packed = [f"b{len(graph.inputs) + len(graph.outputs) + i}" for i in range(2)]
    problem, packs = prepacked(arranged.problem, target, sizes_of(buffers), packed, shared)
    schedule = contract(builder, problem, behind.epilogue, target, behind.ahead if asks else None)
    params = [BufferParam(buffers[v], v.type.dtype, v.type.size) for v in graph.inputs]
    params += [BufferParam(buffer, v.type.dtype, v.type.size, writable=True) for v, buffer in behind.outputs]
    params += [BufferParam(buffer, pack.dtype, pack.size) for buffer, pack in zip(packed, packs, strict=False)]
    sizes = tuple(sorted({*builder.sizes, *symbols(schedule.chunks)} - {"chunk"}))
    body = tuple(builder.levels[0].statements)
    kernel = LoopKernel(name, tuple(params), sizes, body, schedule.chunks)
    return Lowered(kernel, tuple(map(Dim.symbol, sizes)), packs=tuple(packs))


class _Behind:
    """What stands behind a product: the kernel's results, each with its buffer, at an element of C."""

    def __init__(
        self, builder: Builder, graph: Graph, shape: ContractionShape, buffers: Mapping[Value, str],
        labels: Sequence[str], arranged: Arrangement, checks: Checks,
    ) -> None:  # fmt: skip
        axes = [f"f{i}" for i in range(len(shape.full))]
        self.index = tuple(Dim.symbol(axis) for axis in axes)
        self.product = Value(shape.matmul)
        self.outputs = [(value, f"b{len(graph.inputs) + i}") for i, value in enumerate(graph.outputs)]
        self.evaluator = Evaluator(builder, graph, buffers, dict(zip(axes, shape.full, strict=True)), checks)
        self.names = [f"@{n}" for n in range(len(arranged.batch) + 2)]  # batch, row and column of an element of C
        *batches, of_row, of_col = map(Dim.symbol, self.names)
        at = arranged.place(tuple(batches), of_row, of_col)
        self.axis_of: dict[str, Size] = {axis: at.get(label, 0) for axis, label in zip(axes, labels, strict=True)}
        # without columns the only element that there is lies in lane 0
        lane: Size = of_col if arranged.col is None else 0
        addresses = [substitute(linear_address(self.index, v.type.shape), self.axis_of) + lane for v, _ in self.outputs]
        self.addresses = addresses
        self.touched = [(buffer, address, True) for (_, buffer), address in zip(self.outputs, addresses, strict=True)]
        self.touched += [(buffers[v], addresses[0], False) for v in _read_in_place(shape)]
        self.is_bare = all(v == self.product for v, _ in self.outputs)

    def _here(self, row: Size, col: Size, batch: tuple[Size, ...]) -> dict[str, Size]:
        return dict(zip(self.names, (*batch, row, col), strict=True))

    def epilogue(
        self, h: Builder, value: Scalar, row: Size, col: Size, batch: tuple[Size, ...], mask: Scalar | None
    ) -> None:
        """Stores the results that follow from a vector of the product."""
        here = self._here(row, col, batch)
        place = {} if self.is_bare else {axis: substitute(size, here) for axis, size in self.axis_of.items()}
        point = Point(place, mask, {self.product: value})
        results = [self.evaluator.at(v, self.index, point) for v, _ in self.outputs]
        for (_, buffer), address, result in zip(self.outputs, self.addresses, results, strict=True):
            h.store(buffer, substitute(address, here), result, mask)

    def ahead(self, h: Builder, row: Size, col: Size, batch: tuple[Size, ...]) -> None:
        """Asks for the cache lines that the epilogue will touch."""
        here = self._here(row, col, batch)
        for buffer, address, write in self.touched:
            adjacent, place = h.lane_form(substitute(address, here))
            if adjacent:
                h.emit(Prefetch(buffer, h.index(place).expr, write))


def _read_in_place(shape: ContractionShape) -> list[Value]:
    """The operands of a kernel that its epilogue reads where it stores its results."""
    found: dict[Value, None] = {}
    for value in dict.fromkeys(v for node in shape.epilogue for v in node.inputs):
        whole = value.type.shape == shape.full
        while value.op.name == "reshape":
            value = value.node.inputs[0]
        if whole and value.op.name == "placeholder":
            found[value] = None
    return list(found)


def packs_of(graph: Graph, shape: ContractionShape, target: Target) -> list[Pack]:
    """How operands of the contraction could be packed for others too, if they want the same."""
    found: list[Pack] = []
    buffers = {value: f"b{i}" for i, value in enumerate(graph.inputs)}
    _, arranged = arranged_contraction(graph, shape, buffers, target)

    def note(pack: Pack) -> bool:
        found.append(pack)
        return False

    prepacked(arranged.problem, target, sizes_of(buffers), ("", ""), note)
    return found


def sizes_of(buffers: Mapping[Value, str]) -> dict[str, Size]:
    """How many elements buffers have."""
    return {buffer: value.type.size for value, buffer in buffers.items()}


def outgrows_cache(graph: Graph, target: Target) -> bool:
    """Whether the kernel touches so much that its results are not in L2 any more when they are written again."""
    sizes = {v: product(known(size, GUESS) for size in v.type.shape) for v in (*graph.inputs, *graph.outputs)}
    return sum(known(size, 0) * v.type.dtype.itemsize for v, size in sizes.items()) > target.l2_bytes // 4


def arranged_contraction(
    graph: Graph, shape: ContractionShape, buffers: dict[Value, str], target: Target
) -> tuple[list[str], Arrangement]:
    """The labels of the result's axes, and the Problem that the node's labels and its operands' strides make."""
    node = shape.matmul
    buffers = buffers | {root: f"{COMPUTED}{position}" for position, root in shape.computed.items()}
    kind = node.op.lowering
    assert isinstance(kind, Contraction)
    types = tuple(v.type for v in node.inputs)
    *of_operands, of_result = [list(map(_terms, axes)) for axes in kind.labels(types, node.attrs)]
    labels = [axis[0][0] for axis in of_result]
    sizes = dict(zip(labels, node.types[0].shape, strict=True))
    for axes, type_ in zip(of_operands, types, strict=True):
        plain = [axis[0][0] if len(axis) == 1 and axis[0][1] == 1 else "" for axis in axes]
        sizes |= {label: size for label, size in zip(plain, type_.shape, strict=True) if label}
    ranges = Ranges({label_symbol(label): size for label, size in sizes.items()})
    order = [*labels, *(label for label in sizes if label not in labels)]
    found = [strides_of(v, axes, buffers, ranges) for v, axes in zip(node.inputs, of_operands, strict=True)]
    result = linear_address([Dim.symbol(label_symbol(label)) for label in labels], node.types[0].shape)
    loops = []
    for label in order:
        used = [any(label == name for axis in axes for name, _ in axis) for axes in of_operands]
        a, b = (strides.get(label_symbol(label), 0) for _, _, strides, _ in found)
        c = _stride(result, label_symbol(label))
        loops.append(Loop((label,), sizes[label], a, b, c, used[0], used[1], label in labels))
    (first, in_a, _, beyond), (second, in_b, _, more) = found
    both = [loop.labels[0] for loop in loops if loop.in_a and loop.in_b and loop.in_c]
    reaches = [_reach(*each, labels, both) for each in (*beyond, *more)]
    arranged = arrange(node.types[0].dtype, loops, (first, second), (in_a, in_b), target, reaches)
    if not shape.computed:
        return labels, arranged
    roots = {n: (v, _index_of(node.inputs[n], of_operands[n], {v}, ranges)[1]) for n, v in shape.computed.items()}
    names = {label: label_symbol(label) for label in order}
    return labels, with_prologues(arranged, roots, graph, names, target)


def _reach(place: Size, extent: Size, labels: list[str], both: list[str]) -> Reach:
    """What is read of an axis that does not have all places: a sum of a label of the result and of one that is summed,
    or of `both` operands and the result.
    """
    i, t, u, by, lane = "", "", 0, 0, ""
    before: Size = 0
    for monomial, factor in terms_of(place):
        name = monomial[0][:-1] if len(monomial) == 1 and isinstance(monomial[0], str) else ""
        if monomial == (label_symbol(name),) and name in both and factor == 1:
            lane = name
        elif monomial == (label_symbol(name),) and name in labels:
            i, u = name, factor
        elif monomial == (label_symbol(name),):
            t, by = name, factor
        else:
            before = before - Dim.from_terms({monomial: factor})
    return Reach(i, t, u, by, before, extent, lane)


def _terms(axis: str) -> list[tuple[str, int]]:
    """The labels of an axis such as `2h+p`, with their factors."""
    return [(label, int(factor or 1)) for factor, label in _TERM.findall(axis)]


def label_symbol(label: str) -> str:
    """The index symbol of a label: no size has such a name."""
    return f"{label}'"


def strides_of(
    value: Value, axes: list[list[tuple[str, int]]], buffers: dict[Value, str], ranges: Ranges
) -> tuple[str, Size, dict[str, Size], list[tuple[Size, Size]]]:
    """(buffer, offset, stride of each label, places that it may not have and the extent of their axis) of a view of an
    operand: movement turned into strides.
    """
    base, index, beyond = _index_of(value, axes, buffers, ranges)
    address = linear_address(index, base.type.shape)
    names = [label_symbol(label) for axis in axes for label, _ in axis]
    strides = {name: _stride(address, name) for name in names}
    offset: Size = address
    for name, stride in strides.items():
        offset = offset - stride * Dim.symbol(name)
    if symbols(offset) & set(names):
        raise InternalError(f"an operand of a contraction without strides: {value.type} at {address}")
    return buffers[base], offset, strides, beyond


def _index_of(
    value: Value, axes: list[list[tuple[str, int]]], bases: Container[Value], ranges: Ranges
) -> tuple[Value, tuple[Size, ...], list[tuple[Size, Size]]]:
    """The one of `bases` that an operand is a view of, where an element of the product reads it, and as `strides_of`
    what it may not have.
    """
    index: tuple[Size, ...] = tuple(
        sum((Dim.symbol(label_symbol(label)) * factor for label, factor in axis), 0) for axis in axes
    )
    beyond: list[tuple[Size, Size]] = []
    while value not in bases:
        node = value.node
        if not isinstance(node.op.lowering, Movement):
            raise InternalError(f"an operand of a contraction that is not in memory: {node!r}")
        types = (node.inputs[0].type, node.types[0])
        if node.op.lowering.inside is not None:
            beyond += node.op.lowering.inside(ranges, types, node.attrs, index)
        index = tuple(node.op.lowering.source(ranges, types, node.attrs, index))
        value = node.inputs[0]
    return value, index, beyond


def _stride(address: Size, name: str) -> Size:
    """The factor of `name` in an address."""
    total: Size = 0
    for monomial, factor in terms_of(address):
        if name in monomial:
            atoms = list(monomial)
            atoms.remove(name)
            total = total + Dim.from_terms({tuple(atoms): factor})
    return total
