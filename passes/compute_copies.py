"""What only copies and windows read is computed as they read it: no array of it is stored.

Enter at `compute_copies`. An elementwise kernel whose one result a single elementwise kernel (or copy) reads through
movement alone, be it a transpose, the padding of a convolution or the shifted slices of a depthwise one, becomes part
of that: the movement is done to its operands instead, and what lies in the padding is 0 by a mask. `_pays` says where
that saves a pass over memory. docs/design/prologues.md has the reasons.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphc.graph import ConstantData, Graph, Node, Value, inherit_origin, make_node
from graphc.observe import enabled, log
from graphc.ops.lowering import Concat, Elementwise, Movement
from graphc.ops.registry import OPS
from graphc.passes.compute_operands import CHEAP, is_producer
from graphc.passes.domain import RowsShape, kernel_shape, one_element, views_of
from graphc.passes.kernel_nodes import copy_nodes, follow, kernel_node, operands_now, placeholder
from graphc.types import Shape, bool_, product

FAR = 1 << 20  # bytes of an array that is not found in the cache again
MOST_WORK = 8  # nodes for an element that is read once
MOST_REPEATED = 32  # nodes for all that windows read of an element, rather than to store it; with 36 nothing is gained
VECTOR = 16  # elements side by side, with fewer of which copies join axes that per-channel factors would keep apart
Chain = tuple[Node, ...]


def compute_copies(graph: Graph) -> Graph:
    """The graph with elementwise kernels inside those that read them moved. The results are the same to the bit."""
    users = graph.users()
    shapes = {node: kernel_shape(node.attrs["graph"]) for node in graph.order() if node.op.name == "kernel"}
    new: dict[Value, Value] = {}
    joined: set[Node] = set()
    for node in graph.order():
        for value in node.inputs:
            alone = len(users.get(value, ())) == 1 and value not in graph.outputs
            if node in joined or value.node in joined or not alone or not _fits(value, node, shapes):
                continue
            ends = _ends(value, node)
            if ends is not None and _pays(value.node, shapes[node], ends):
                kernel = _joined(value, node, ends, new)
                new.update(zip(node.outputs, kernel.outputs, strict=True))
                joined.add(node)
                if enabled("fusion"):
                    log("fusion", f"{kernel.attrs['name']} computes {value.type} as it copies it")
        if node not in joined:
            follow(node, new)
    return graph.with_outputs([new.get(v, v) for v in graph.outputs]) if new else graph


def _fits(value: Value, reader: Node, shapes: Mapping[Node, object]) -> bool:
    """Whether a value is what an elementwise kernel computes for one other such kernel."""
    shape, of_reader = shapes.get(value.node), shapes.get(reader)
    if not (isinstance(shape, RowsShape) and isinstance(of_reader, RowsShape)) or reader.inputs.count(value) != 1:
        return False
    plain = not (of_reader.reduced or of_reader.reductions or of_reader.totals or of_reader.columns)
    work = _work(value.node)
    if len(work) > MOST_REPEATED or not CHEAP.issuperset(work):  # most kernels: nothing else is worked out for them
        return False
    inner: Graph = value.node.attrs["graph"]
    views = views_of(inner.order())  # what is computed is not moved inside
    still = all(Value(each) in views for each in inner.order() if isinstance(each.op.lowering, Movement))
    return plain and still and is_producer(value.node, shape)


def _work(producer: Node) -> list[str]:
    """The names of what is computed for an element of a kernel."""
    return [each.op.name for each in producer.attrs["graph"].order() if isinstance(each.op.lowering, Elementwise)]


def _ends(value: Value, reader: Node) -> dict[Value, Chain] | None:
    """Where movement of the value ends inside of its reader, and the movement; None if something else reads it."""
    inner: Graph = reader.attrs["graph"]
    users = inner.users()
    full = inner.outputs[0].type.shape
    found: dict[Value, Chain] = {}
    stack: list[tuple[Value, Chain]] = [(inner.inputs[reader.inputs.index(value)], ())]
    while stack:
        current, chain = stack.pop()
        if current in inner.outputs:
            found[current] = chain
        for user in users.get(current, []):
            kind = user.op.lowering
            if isinstance(kind, Movement):
                stack.append((Value(user), (*chain, user)))
            elif isinstance(kind, Concat) and len(user.inputs) == 1:
                stack.append((Value(user), chain))  # a copy
            elif isinstance(kind, Elementwise):
                found[current] = chain
            else:
                return None
    return found if found and all(end.type.shape == full for end in found) and any(found.values()) else None


def _pays(producer: Node, shape: object, ends: dict[Value, Chain]) -> bool:
    """Whether computing at each read costs less than the array, which is written and read again."""
    assert isinstance(shape, RowsShape)
    inner: Graph = producer.attrs["graph"]
    result = inner.outputs[0].type
    work = _work(producer)
    alike = all(v.type.shape == result.shape or one_element(v.type.shape) for v in inner.inputs)
    if not (alike or _is_long(shape.full)):
        return False
    if len(ends) == 1:
        return len(work) <= MOST_WORK
    size, read = product(result.shape), product(shape.full)
    if not (isinstance(size, int) and isinstance(read, int)) or size * result.dtype.itemsize < FAR:
        return False
    return (len(work) + 1) * len(ends) * read <= MOST_REPEATED * size


def _is_long(full: Shape) -> bool:
    """Whether the last axis fills vectors."""
    return bool(full) and (not isinstance(full[-1], int) or full[-1] >= VECTOR)


def _joined(value: Value, reader: Node, ends: dict[Value, Chain], new: dict[Value, Value]) -> Node:
    """The kernel of the reader with the producer's nodes at the ends of movement."""
    producer, inner = value.node, reader.attrs["graph"]
    before: Graph = producer.attrs["graph"]
    operands: dict[Value, Value] = {}  # outer value -> placeholder
    made: dict[Value, Value] = {}
    sources: dict[Value, Value] = {}
    for p, outer in zip(inner.inputs, reader.inputs, strict=True):
        if outer != value:
            now = new.get(outer, outer)
            made[p] = placeholder(operands, now, now.type)
            continue
        for q, under in zip(before.inputs, operands_now(producer, new), strict=True):
            sources[q] = placeholder(operands, under, under.type)
        made[p] = p  # replaced at its ends
    for end, chain in ends.items():
        made[end] = _moved(before, sources, chain)
    copy_nodes(inner, made)
    name = f"{reader.attrs['name']}_of_{producer.attrs['name']}"
    graph = Graph(tuple(operands.values()), tuple(made[v] for v in inner.outputs), (), name)
    return kernel_node(list(operands), graph, [reader, producer])


def _moved(graph: Graph, sources: dict[Value, Value], chain: Chain) -> Value:
    """The result of a producer as a chain of movement would show it, computed from operands that are moved."""
    views = views_of(graph.order())
    still: dict[Value, Value] = dict(sources)
    moved: dict[Value, Value] = {}
    for each in graph.order():
        out = Value(each)
        with inherit_origin(each):
            if out in views:
                if out not in still:
                    still[out] = Value(make_node(each.op, [still[v] for v in each.inputs], each.attrs))
            else:
                operands = [moved[v] if v in moved else _along(still[v], chain) for v in each.inputs]
                moved[out] = Value(make_node(each.op, operands, each.attrs))
    result = moved[graph.outputs[0]]
    if not any(getattr(step.op.lowering, "inside", None) is not None for step in chain):
        return result
    shape = graph.outputs[0].type.shape
    inside = _along(_filled(np.ones((), bool_.numpy), shape), chain)
    zero = _filled(np.zeros((), result.type.dtype.numpy), result.type.shape)
    return Value(make_node(OPS["where"], [inside, result, zero]))


def _along(value: Value, chain: Chain) -> Value:
    for step in chain:
        value = Value(make_node(step.op, [value], step.attrs))
    return value


def _filled(number: np.ndarray, shape: Shape) -> Value:
    scalar = Value(make_node(OPS["constant"], (), {"data": ConstantData(number)}))
    return Value(make_node(OPS["broadcast_to"], [scalar], {"shape": shape})) if shape else scalar
