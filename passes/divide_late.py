"""In kernels of blocks, a softmax is divided by its sums behind its product: `(e / sum(e)) @ v` is `(e @ v) / sum(e)`.

Enter at `divide_late`. A row of `v` is shorter than one of the scores, so there are fewer divisions, and no loop over
the scores waits for their sums. Only exponentials are divided late, and only by their own sum: they do not cancel,
and where their sum is 0 or NaN both forms are NaN. But a product over no columns is 0, not 0 / 0: where their number
has a name and is 0, it is divided by 1. The same for sums over rows of products with such a softmax, as its gradient
has them. Rounding differs as it does between orders of a sum.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.build import Tensor
from graphc.graph import Graph, Node, Value, make_node, origin_of
from graphc.ops.lowering import Movement
from graphc.ops.registry import OPS
from graphc.ops.sources import dim_value
from graphc.passes.blocks_shape import ROW_PRODUCT, BlocksShape, Product, has_blocks_shape
from graphc.passes.domain import FULL, kernel_shape
from graphc.types import Size


def divide_late(graph: Graph) -> Graph:
    """The graph with such divisions moved in its kernels of blocks."""

    def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if node.op.name != "kernel":
            return None
        inner: Graph = node.attrs["graph"]
        shape = kernel_shape(inner)
        moved = _moved(inner, shape, _given_sums(inner, inputs)) if isinstance(shape, BlocksShape) else inner
        if moved is inner or not has_blocks_shape(moved):
            return None
        return make_node(node.op, inputs, {"graph": moved, "name": node.attrs["name"]}, origin_of(node)).outputs

    return graph.rewrite(visit)


def _given_sums(inner: Graph, operands: Sequence[Value]) -> set[Value]:
    """The operands of a kernel that are sums of exponentials which another kernel of blocks has made."""
    found = set()
    for placeholder, value in zip(inner.inputs, operands, strict=True):
        if value.op.name == "kernel" and _is_sum_of(value.node.attrs["graph"].outputs[value.index], None, set()):
            found.add(placeholder)
    return found


def _moved(inner: Graph, shape: BlocksShape, given: set[Value]) -> Graph:
    users = inner.users()
    found = {each.node: each for each in shape.products if each.kind == ROW_PRODUCT and _is_late(each, inner, users)}

    columns = shape.full[shape.column]
    bare: dict[Value, tuple[Value, tuple[Value, ...]]] = {}  # a product -> the same without its divisors, and those

    def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if node in found:
            return _divided(found[node], inputs, shape)
        if node.op.name == "sum" and inputs[0] in bare:
            return _sum_divided(node, *bare[inputs[0]], columns)
        if shape.classes[Value(node)] == FULL:
            _find_divisors(node, inputs, bare, given)
        return None

    moved = inner.rewrite(visit)
    return inner if moved.outputs == inner.outputs else moved


def _find_divisors(
    node: Node, inputs: tuple[Value, ...], bare: dict[Value, tuple[Value, tuple[Value, ...]]], given: set[Value]
) -> None:
    """Note what a product of matrices is without the sums of exponentials that its factors are divided by."""
    if node.op.name not in ("negative", "multiply", "divide"):
        return
    parts = [bare.get(v, (v, ())) for v in inputs]
    divisors = tuple(d for _, some in parts for d in some)
    if node.op.name == "divide":
        (left, divisors), right = parts[0], inputs[1]
        if right.op.name == "broadcast_to" and _is_sum_of(right, None, given):
            bare[Value(make_node(node.op, inputs, node.attrs))] = left, (*divisors, right.node.inputs[0])
            return
        parts[1] = right, ()
    if divisors:
        without = Value(make_node(node.op, [v for v, _ in parts], node.attrs))
        bare[Value(make_node(node.op, inputs, node.attrs))] = without, divisors


def _sum_divided(node: Node, bare: Value, divisors: Sequence[Value], columns: Size) -> Sequence[Value]:
    """The sum of what is left without the divisors, divided by those."""
    result = Value(make_node(node.op, [bare], node.attrs))
    for divisor in divisors:
        if divisor.type.shape != result.type.shape:
            divisor = Value(make_node(OPS["reshape"], [divisor], {"shape": result.type.shape}))
        result = Value(make_node(OPS["divide"], [result, _unless_none(divisor, columns)], {}))
    return (result,)


def _unless_none(sums: Value, columns: Size) -> Value:
    """Sums over columns; 1 instead of 0 where there are none of those."""
    if isinstance(columns, int):
        return sums
    none = dim_value(columns) == 0
    return (Tensor(sums) + none.astype(sums.type.dtype)).ref


def _is_sum_of(value: Value, powers: Value | None, given: set[Value]) -> bool:
    """Whether a value, in front of movement, is the sum of these exponentials (None: of any), or one of `given`."""
    while isinstance(value.op.lowering, Movement):
        value = value.node.inputs[0]
    if value in given:
        return True
    if value.op.name != "sum" or value.node.inputs[0].op.name != "exp":
        return False
    return powers is None or value.node.inputs[0] == powers


def _is_late(each: Product, inner: Graph, users: dict[Value, list[Node]]) -> bool:
    """Whether a product is of exponentials over their sums, which nothing else reads, and is narrower than they are."""
    chain = [each.node.inputs[each.side]]
    while chain[-1] != each.source:
        chain.append(chain[-1].node.inputs[0])
    if any(v in inner.outputs or len(users[v]) > 1 for v in chain) or each.source.op.name != "divide":
        return False
    powers, sums = each.source.node.inputs
    width, columns = each.other.type.shape[-1 - each.side], each.other.type.shape[-2 + each.side]
    narrow = not isinstance(columns, int) or (isinstance(width, int) and width < columns)
    return narrow and _is_sum_of(sums, powers, set())


def _divided(each: Product, inputs: tuple[Value, ...], shape: BlocksShape) -> Sequence[Value] | None:
    """The product of the exponentials, divided by their sums."""
    full, swapped = inputs[each.side], (*range(len(shape.full) - 2), len(shape.full) - 1, len(shape.full) - 2)
    turns = 0
    while full.op.name == "transpose":
        full, turns = full.node.inputs[0], turns + 1
    if turns > 1 or full.op.name != "divide" or full.node.inputs[1].op.name != "broadcast_to":
        return None
    powers, sums = full.node.inputs[0], full.node.inputs[1].node.inputs[0]
    if turns:
        powers = Value(make_node(OPS["transpose"], [powers], {"axes": swapped}))
    operands = (powers, inputs[1]) if each.side == 0 else (inputs[0], powers)
    product = Value(make_node(each.node.op, operands, each.node.attrs))
    if sums.type.rank != len(shape.full) or sums.type.shape[shape.column] != 1:
        return None
    if shape.row != len(shape.full) - 2 + each.side:
        sums = Value(make_node(OPS["transpose"], [sums], {"axes": swapped}))
    sums = _unless_none(sums, shape.full[shape.column])
    wide = Value(make_node(OPS["broadcast_to"], [sums], {"shape": product.type.shape}))
    return make_node(OPS["divide"], [product, wide], {}).outputs
