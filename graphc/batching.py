"""Batching: a graph computed for many values at once, along a new leading axis.

    batched([f(v)], {v: vs}, n)    # vs[i] in place of v gives the i-th item of the result

Only what depends on the batched values is rebuilt. One rule serves nearly all ops: every operand gets the new axis in
front, and attributes that hold positions or shapes move one further (`_shifted`); the type that comes out must be the
old one with the new axis. The exceptions are `broadcast_to`, whose operand may have fewer axes than its result, and
`matmul`, where the items become rows of one product. Enter at `batched`; used by `graphc.jacobians` and `vmap`.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any, cast

from graphc.build import Tensor, apply, lines_of
from graphc.errors import ArgumentError, GraphcError
from graphc.graph import Attrs, Graph, Node, Value, describe, inherit_origin, topological_order
from graphc.ops.lowering import Reduction
from graphc.ops.movement import reshape
from graphc.types import Shape, Size

# Attributes that mean the same with one more axis.
_KEPT = frozenset(
    {"descending", "dtype", "keepdims", "lower", "order", "recomputed", "reverse", "size", "stream", "unit", "word"}
)


def batched(outputs: Sequence[Value], items: Mapping[Value, Tensor], size: Size) -> list[Tensor]:
    """`outputs` for each of `size` items: a result of shape [size, *shape] for each.

    `items` gives each batched value its items, along a leading axis. An output that depends on none of them is
    repeated. Raises ArgumentError for an op that has no batched form.
    """
    found: dict[Value, Tensor] = dict(items)
    for node in topological_order([value.node for value in outputs]):
        if any(value in found for value in node.inputs) and not all(value in found for value in node.outputs):
            with inherit_origin(node):
                for value, tensor in zip(node.outputs, _batched(node, found, size), strict=True):
                    found.setdefault(value, tensor)
    return [found[value] if value in found else _repeated(Tensor(value), size) for value in outputs]


def _repeated(tensor: Tensor, size: Size) -> Tensor:
    return cast(Tensor, apply("broadcast_to", tensor, shape=(size, *tensor.shape)))


def _batched(node: Node, found: Mapping[Value, Tensor], size: Size) -> tuple[Tensor, ...]:
    """The results of `node` for all items."""
    if node.op.name == "matmul" and _is_rows(node, found):
        return (_product_of_rows(node, found[node.inputs[0]]),)
    if node.op.name == "contract":
        return (_contraction(node, found, size),)
    if node.op.name == "checkpoint":  # a mark stands on the values themselves, whether they have items or not
        results = apply(node.op, *(found.get(v, Tensor(v)) for v in node.inputs), **node.attrs)
        tensors = results if isinstance(results, tuple) else (results,)
        return tuple(t if v in found else _repeated(t, size) for v, t in zip(node.inputs, tensors))
    if node.op.name == "custom_vjp":
        return _custom(node, found, size)
    operands = [found[v] if v in found else _repeated(Tensor(v), size) for v in node.inputs]
    if node.op.name == "broadcast_to":
        missing = len(node.types[0].shape) - node.inputs[0].type.rank
        operands = [reshape(operands[0], (size, *(1,) * missing, *node.inputs[0].type.shape))]
    attrs, made = _shifted(node, size), None
    try:
        made = apply(node.op, *operands, **attrs)
    except GraphcError:
        pass
    results = made if isinstance(made, tuple) else (made,)
    expected = [type_.with_shape((size, *type_.shape)) for type_ in node.types]
    if made is None or [t.type for t in results] != expected:
        message = f"the op {node.op.name} (of {describe(node.inputs[0])}) has no batched form"
        raise ArgumentError(message, lines_of(Tensor(node.outputs[0])), "vmap and Jacobians cannot go through it")
    return results


def _is_rows(node: Node, found: Mapping[Value, Tensor]) -> bool:
    """Whether only the left operand of a product of matrices differs from item to item."""
    return node.inputs[0] in found and node.inputs[1] not in found and node.types[0].rank == 2


def _product_of_rows(node: Node, items: Tensor) -> Tensor:
    """The rows of all items times the one matrix on the right."""
    count, rows, inner = items.shape
    flat = apply("matmul", reshape(items, (count * rows, inner)), node.inputs[1])
    return reshape(flat, (count, *node.types[0].shape))


def _contraction(node: Node, found: Mapping[Value, Tensor], size: Size) -> Tensor:
    """A sum over labelled axes: one more label, in front of the result and of the operands that have items."""
    spec: str = node.attrs["spec"]
    new = next(label for label in string.ascii_letters if label not in spec)
    operands, out = spec.split("->")
    parts = [f"{new} {p}" if v in found else p for p, v in zip(operands.split(","), node.inputs, strict=True)]
    tensors = [found.get(v, Tensor(v)) for v in node.inputs]
    shape = (size, *node.types[0].shape)
    return cast(Tensor, apply("contract", *tensors, spec=f"{','.join(parts)}-> {new} {out}", shape=shape))


def _custom(node: Node, found: Mapping[Value, Tensor], size: Size) -> tuple[Tensor, ...]:
    """A function with a gradient of its own: all operands have items, and so has the graph of the gradient."""
    backward: Graph = node.attrs["backward"]
    items: dict[Value, Tensor] = {}
    for value in backward.inputs:
        shape = (size, *value.type.shape)
        items[value] = cast(Tensor, apply("placeholder", name="argument", type=value.type.with_shape(shape)))
    outputs = tuple(t.ref for t in batched(backward.outputs, items, size))
    graph = Graph(tuple(t.ref for t in items.values()), outputs, (), backward.name)
    operands = [found[v] if v in found else _repeated(Tensor(v), size) for v in node.inputs]
    results = apply(node.op, *operands, **{**node.attrs, "backward": graph})
    return results if isinstance(results, tuple) else (results,)


def _shifted(node: Node, size: Size) -> Attrs:
    """The attributes with one more axis in front, which the op leaves alone."""
    fold = isinstance(node.op.lowering, Reduction)
    attrs: dict[str, Any] = {}
    for name, value in node.attrs.items():
        if name == "axis":
            attrs[name] = value + 1
        elif name == "axes":  # of a reduction those that go; else an order of all
            attrs[name] = tuple(a + 1 for a in value) if fold else (0, *(a + 1 for a in value))
        elif name in _FRONT:
            first: Size = {"shape": size, "starts": 0, "stops": size, "steps": 1}[name]
            attrs[name] = (first, *cast(Shape, value))
        elif name in _KEPT:
            attrs[name] = value
        else:
            message = f"the op {node.op.name} has no batched form: its attribute {name} may be a position"
            raise ArgumentError(message, lines_of(Tensor(node.outputs[0])), "name it in graphc/batching.py")
    return attrs


_FRONT = ("shape", "starts", "stops", "steps")  # attributes with an entry for each axis
