"""What only contractions read is computed as they read it: prologues.

Enter at `compute_operands`. A kernel whose nodes are all elementwise (or movement) and whose one result nothing but
operands of matmuls reads becomes part of their kernels: its nodes stand before the matmul, and its operands are theirs.
Where the loop level packs the operand, it computes as it packs; `graphc.loops.prologue` says how and when it does not.
docs/design/prologues.md has the reasons. To allow more producers, edit `is_producer`; more readers, `_is_operand_of`.
"""

from __future__ import annotations

from graphc.graph import RECOMPUTED, Graph, Node, Value
from graphc.observe import enabled, log
from graphc.ops.lowering import Elementwise, Movement
from graphc.passes.domain import SOURCES, ContractionShape, RowsShape, is_indexed, kernel_shape, views_of
from graphc.passes.kernel_nodes import copy_nodes, follow, kernel_node, operands_now, placeholder
from graphc.passes.windows import computes_windows
from graphc.types import Size, product

CHEAP = frozenset({"add", "subtract", "multiply", "negative", "cast", "where", "minimum", "maximum", "relu"})
FEW_NODES = 2  # elementwise nodes that several readers may each repeat, where they read no more bytes for it


def compute_operands(graph: Graph) -> Graph:
    """The graph with producers of operands inside the kernels that read them. The results are the same to the bit."""
    users = graph.users()
    shapes = {node: kernel_shape(node.attrs["graph"]) for node in graph.order() if node.op.name == "kernel"}
    outputs = set(graph.outputs)
    inside: set[Value] = set()
    for node, shape in shapes.items():
        if isinstance(shape, RowsShape) and is_producer(node, shape) and node.outputs[0] not in outputs:
            value = node.outputs[0]
            readers = users.get(value, [])
            repeated = len(readers) == 1 or _may_repeat(node)
            if readers and repeated and all(_is_operand_of(value, reader, shapes.get(reader)) for reader in readers):
                inside.add(value)
    new: dict[Value, Value] = {}
    for node in graph.order():
        if any(v in inside for v in node.inputs):
            joined = _joined(node, inside, new)
            new.update(zip(node.outputs, joined.outputs, strict=True))
            _tell(joined, [v for v in node.inputs if v in inside])
        else:
            follow(node, new)
    return graph.with_outputs([new.get(v, v) for v in graph.outputs]) if new else graph


def is_producer(node: Node, shape: RowsShape) -> bool:
    """Whether a kernel computes one array, element by element, without an index that is checked."""
    inner: Graph = node.attrs["graph"]
    plain = not (shape.reductions or shape.totals or shape.columns) and len(node.outputs) == 1
    computed = plain and isinstance(inner.outputs[0].op.lowering, Elementwise)
    if computed and inner.outputs[0] in views_of(inner.order()):
        return False  # it follows from indices alone, which fusion stores for a contraction
    return computed and all(_is_simple(each) for each in inner.order())


def _is_simple(node: Node) -> bool:
    kind = node.op.lowering
    known = node.op.name in SOURCES or is_indexed(node) or isinstance(kind, (Elementwise, Movement))
    return known and not node.attrs.get(RECOMPUTED)


def _may_repeat(node: Node) -> bool:
    """Whether readers do as well to compute the array themselves: a narrow one made wide, say."""
    inner: Graph = node.attrs["graph"]
    work = [each.op.name for each in inner.order() if isinstance(each.op.lowering, Elementwise)]
    read: Size = 0
    for v in inner.inputs:
        read = read + product(v.type.shape) * v.type.dtype.itemsize
    result = inner.outputs[0].type
    written = product(result.shape) * result.dtype.itemsize
    return len(work) <= FEW_NODES and CHEAP.issuperset(work) and any(read * times == written for times in (1, 2, 4, 8))


def _is_operand_of(value: Value, reader: Node, shape: object) -> bool:
    """Whether a kernel reads the value as one operand of its matmul and for nothing else."""
    if not isinstance(shape, ContractionShape):
        return False
    inner: Graph = reader.attrs["graph"]
    placeholders = [p for p, v in zip(inner.inputs, reader.inputs, strict=True) if v == value]
    users = inner.users()
    one_row = shape.matmul.op.name == "matmul" and 1 in shape.matmul.types[0].shape[-2:]
    if len(placeholders) != 1 or one_row:
        return False
    current = placeholders[0]
    while len(users.get(current, ())) == 1 and current not in inner.outputs:
        (user,) = users[current]
        if user is shape.matmul:
            return user.inputs.count(current) == 1 and computes_windows(user, user.inputs.index(current))
        if user.op.name not in ("transpose", "reshape", "unslice"):
            return False
        current = Value(user)
    return False


def _joined(node: Node, inside: set[Value], new: dict[Value, Value]) -> Node:
    """The kernel of a contraction with the graphs of the operands that it computes."""
    inner: Graph = node.attrs["graph"]
    operands: dict[Value, Value] = {}  # outer value -> placeholder
    made: dict[Value, Value] = {}
    names: list[str] = []
    for p, outer in zip(inner.inputs, node.inputs, strict=True):
        if outer not in inside:
            now = new.get(outer, outer)
            made[p] = placeholder(operands, now, now.type)
            continue
        before: Graph = outer.node.attrs["graph"]
        now_read = operands_now(outer.node, new)
        of_producer = {q: placeholder(operands, v, v.type) for q, v in zip(before.inputs, now_read, strict=True)}
        copy_nodes(before, of_producer)
        made[p] = of_producer[before.outputs[0]]
        names.append(outer.node.attrs["name"])
    copy_nodes(inner, made)
    name = "_of_".join([node.attrs["name"], *names])
    graph = Graph(tuple(operands.values()), tuple(made[v] for v in inner.outputs), (), name)
    members = [node, *(v.node for v in node.inputs if v in inside)]
    return kernel_node(list(operands), graph, members)


def _tell(node: Node, values: list[Value]) -> None:
    if enabled("fusion"):
        for value in values:
            log("fusion", f"{node.attrs['name']} computes its operand {value.type} itself: nothing else reads it")
