"""Marks that differentiation sees: `checkpoint` (compute again what was inside) and `custom_vjp` (use this gradient).

A mark is the identity on its first operands, the results of a function; behind them stand the function's inputs, to
which its gradient rule sends the cotangents, past everything in between. The first pass of a compilation removes marks
(`graphc.passes.drop_marks`). What users call is `graphc.marking`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphc.build import Tensor
from graphc.graph import RECOMPUTED, Attrs, Graph, Node, Op, Types, Value, inherit_origin, make_node, topological_order
from graphc.ops.lowering import Elementwise
from graphc.ops.operands import same_type
from graphc.ops.registry import register
from graphc.ops.samples import ALL, unary
from graphc.ops.sources import zeros_like

_MARK = {
    "lowering": "the first pass removes it",
    "samples": "tests/test_marking.py builds it, of functions",
    "example": "docs/differentiation.md has one",
}


def _first(types: Types, attrs: Attrs) -> Types:
    return types[: attrs["outputs"]]


def _reference(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
    return tuple(array.copy() for array in arrays[: attrs["outputs"]])


def between(results: Sequence[Value], inputs: Sequence[Value]) -> list[Node]:
    """The nodes that `results` need and that follow from `inputs`, in order."""
    reached, found = set(inputs), []
    for node in topological_order([v.node for v in results]):
        if not reached.isdisjoint(node.inputs) and reached.isdisjoint(node.outputs):
            found.append(node)
            reached.update(node.outputs)
    return found


def _again(results: Sequence[Value], inputs: Sequence[Value]) -> dict[Value, Value]:
    """Copies of all nodes between, which no pass merges with the originals: value -> copy."""
    inside = between(results, inputs)
    level = 1 + max((node.attrs.get(RECOMPUTED, 0) for node in inside), default=0)
    copies: dict[Value, Value] = {}
    for node in inside:
        operands = [copies.get(v, v) for v in node.inputs]
        with inherit_origin(node):
            copy = make_node(node.op, operands, {**node.attrs, RECOMPUTED: level})
        copies.update(zip(node.outputs, copy.outputs, strict=True))
    return copies


def _checkpoint_gradient(node: Node, cotangents: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
    """The gradient of a copy of what is inside, so that nothing of the original is kept for it."""
    from graphc.autodiff import vjp

    outputs, kept = node.attrs["outputs"], node.attrs["kept"]
    results, saved, inputs = node.inputs[:outputs], node.inputs[outputs : outputs + kept], node.inputs[outputs + kept :]
    copies = _again([*results, *saved], inputs)
    flowing = [(copies.get(y, y), g) for y, g in zip(results, cotangents, strict=True) if g is not None]
    floats = [v for v in inputs if v.type.dtype.is_float]
    ends, seeds = [Tensor(y) for y, _ in flowing], [g for _, g in flowing]
    found = vjp(ends, [Tensor(v) for v in floats], seeds, unused="zero", name="checkpoint")
    used: Mapping[Value, Value] = {copies[v]: v for v in saved if v in copies}
    if used:
        found = [Tensor(v) for v in Graph((), tuple(t.ref for t in found)).replace(used).outputs]
    gradients = dict(zip(floats, found, strict=True))
    return [None] * (outputs + kept) + [gradients.get(v) for v in inputs]


def _custom_gradient(node: Node, cotangents: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
    """What the user's function gave when it was traced, for these cotangents."""
    outputs, backward, flows = node.attrs["outputs"], node.attrs["backward"], node.attrs["flows"]
    whole = [zeros_like(Tensor(y)) if g is None else g for y, g in zip(node.outputs, cotangents, strict=True)]
    floats = [g.ref for g in whole if g.dtype.is_float]
    found = backward.replace(dict(zip(backward.inputs, (*node.inputs[outputs:], *floats), strict=True))).outputs
    return [None] * outputs + [Tensor(found[n]) if n >= 0 else None for n in flows]


register(
    Op(
        "checkpoint_input",
        "x as an input of a function that `graphc.checkpoint` marks.",
        same_type("biuf"),
        lambda arrays, attrs: (arrays[0].copy(),),
        lambda node, g: (g[0],),
        Elementwise(lambda h, attrs, x: x),
        lambda: unary(ALL),
        formula="x",
        exempt={"example": _MARK["example"]},
    )
)
register(
    Op(
        "checkpoint",
        "checkpoint(outputs, kept)(results, kept values, inputs): the results, which follow from the inputs. Their"
        " gradient computes what is in between again, other than the kept values.",
        _first,
        _reference,
        _checkpoint_gradient,
        exempt=_MARK,
        formula="results",
    )
)
register(
    Op(
        "custom_vjp",
        "custom_vjp(outputs, backward, flows, name)(results, inputs): the results. Their gradient is the graph"
        " `backward` of the inputs and the cotangents of float results; flows[i] is its output for input i, or -1.",
        _first,
        _reference,
        _custom_gradient,
        exempt=_MARK,
        formula="results",
    )
)
