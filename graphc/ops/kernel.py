"""The node of a fused group: its attribute is the graph of what it computes. Only fusion makes it."""

from __future__ import annotations

from graphc.errors import ShapeError
from graphc.graph import Attrs, Op, Types
from graphc.ops.registry import register


def _kernel_type(types: Types, attrs: Attrs) -> Types:
    graph = attrs["graph"]
    expected = tuple(v.type for v in graph.inputs)
    if types != expected:
        given, wanted = (", ".join(map(str, t)) for t in (types, expected))
        raise ShapeError(f"{attrs['name']} takes ({wanted}), not ({given})")
    return tuple(v.type for v in graph.outputs)


register(
    Op(
        "kernel",
        "kernel(graph, name): the outputs of `graph`, whose inputs are the operands in order: one loop nest.",
        _kernel_type,
        exempt={
            "reference": "the interpreter evaluates its graph",
            "gradient": "it is made after differentiation",
            "lowering": "the loop level lowers the nodes of its graph",
            "samples": "fusion makes it: the tests of fusion run it",
            "example": "only fusion makes it",
        },
        formula="the outputs of graph",
    )
)
