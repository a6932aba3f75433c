"""Contraction kernels: the operands of a matmul as strides, and a fused epilogue evaluated on its register tiles."""

from __future__ import annotations

from graphc.errors import InternalError
from graphc.graph import Graph, Value
from graphc.loops.builder import Builder, Ranges, Scalar, linear_address
from graphc.loops.contraction import contract
from graphc.loops.evaluate import Checks, Evaluator, Point
from graphc.loops.ir import BufferParam, LoopKernel
from graphc.loops.rows import Lowered
from graphc.loops.schedule import Operand, Problem
from graphc.ops.lowering import Movement
from graphc.passes.domain import ContractionShape
from graphc.target import Target
from graphc.types import Dim, Size, symbols, terms_of


def lower_contraction(name: str, graph: Graph, shape: ContractionShape, target: Target, checks: Checks) -> Lowered:
    """The kernel for one matmul and its epilogue."""
    matmul = shape.matmul
    a, b = matmul.inputs
    (m, n), k = shape.full[-2:], a.type.shape[-1]
    axes = [f"f{i}" for i in range(len(shape.full))]
    buffers = {value: f"b{i}" for i, value in enumerate(graph.inputs)}
    outputs = [(value, f"b{len(graph.inputs) + i}") for i, value in enumerate(graph.outputs)]
    dtype = matmul.types[0].dtype
    builder = Builder(target.lanes(dtype.itemsize))
    extents: dict[str, Size] = dict(zip(axes, shape.full, strict=True))
    evaluator = Evaluator(builder, graph, buffers, extents, checks)
    index = tuple(Dim.symbol(axis) for axis in axes)

    def epilogue(h: Builder, value: Scalar, row: Size, col: Size, batch: tuple[Size, ...], mask: Scalar | None) -> None:
        place: dict[str, Size] = dict(zip(axes, (*batch, row, col), strict=True))
        point = Point(place, mask, {Value(matmul): value})
        results = [evaluator.at(v, index, point) for v, _ in outputs]
        for (v, buffer), result in zip(outputs, results, strict=True):
            h.store(buffer, evaluator.placed(linear_address(index, v.type.shape), point), result, mask)

    problem = Problem(dtype, shape.full[:-2], m, n, k, _operand(a, m, k, buffers), _operand(b, k, n, buffers))
    schedule = contract(builder, problem, epilogue, target)
    params = [BufferParam(buffers[v], v.type.dtype, v.type.size) for v in graph.inputs]
    params += [BufferParam(buffer, v.type.dtype, v.type.size, writable=True) for v, buffer in outputs]
    sizes = tuple(sorted({*builder.sizes, *symbols(schedule.chunks)} - {"chunk"}))
    body = tuple(builder.levels[0].statements)
    return Lowered(LoopKernel(name, tuple(params), sizes, body, schedule.chunks), tuple(map(Dim.symbol, sizes)))


def _operand(value: Value, rows: Size, cols: Size, buffers: dict[Value, str]) -> Operand:
    """Where element [batch..., row, col] of a view of an operand lies: movement turned into strides."""
    shape = value.type.shape
    names = [f"view{i}" for i in range(len(shape))]
    ranges = Ranges(dict(zip(names, shape, strict=True)))
    index: tuple[Size, ...] = tuple(Dim.symbol(name) for name in names)
    base = value
    while base not in buffers:
        node = base.node
        if not isinstance(node.op.lowering, Movement):
            raise InternalError(f"an operand of a matmul that is not in memory: {node!r}")
        types = (node.inputs[0].type, node.types[0])
        index = tuple(node.op.lowering.source(ranges, types, node.attrs, index))
        base = node.inputs[0]
    address = linear_address(index, base.type.shape)
    strides = [_stride(address, name) for name in names]
    offset: Size = address
    for name, stride in zip(names, strides, strict=True):
        offset = offset - stride * Dim.symbol(name)
    if symbols(offset) & set(names):
        raise InternalError(f"an operand of a matmul without strides: {value.type} at {address}")
    return Operand(buffers[base], offset, tuple(strides[:-2]), strides[-2], strides[-1])


def _stride(address: Size, name: str) -> Size:
    """The factor of `name` in an address."""
    total: Size = 0
    for monomial, factor in terms_of(address):
        if name in monomial:
            atoms = list(monomial)
            atoms.remove(name)
            total = total + Dim.from_terms({tuple(atoms): factor})
    return total
