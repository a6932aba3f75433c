"""Checks that a graph is one: recompute every type with the op's own rule, and hold inputs and updates to theirs.

The pass manager calls `verify(graph, after="fuse")` when GRAPHC_VERIFY is on (always in tests). A failure is an
InternalError that names the pass and shows the node in text form: a user cannot cause one. To check one more thing,
add a line to `check` or `check_node`.
"""

from __future__ import annotations

from typing import NoReturn

from graphc.build import OPS
from graphc.errors import GraphcError, InternalError
from graphc.graph import ConstantData, Graph, Node, Value
from graphc.observe import reproducer
from graphc.text import line_of, to_text

_SOURCES = ("placeholder", "parameter")


def verify(graph: Graph, after: str | None = None) -> None:
    """Raise InternalError, naming the pass `after` and the node, if `graph` is not well formed. Nested graphs too."""
    stack: list[tuple[Graph, str]] = [(graph, "")]
    while stack:
        checked, within = stack.pop()
        verifier = _Verifier(graph, checked, after, within)
        verifier.check()
        for node in checked.order():
            for value in node.attrs.values():
                if isinstance(value, Graph):
                    stack.append((value, f" in {value.name} inside of {node.op.name}"))


class _Verifier:
    """Checks one graph on its own; `whole` is the outermost one, which the reproducer holds."""

    def __init__(self, whole: Graph, graph: Graph, after: str | None, within: str) -> None:
        self.whole, self.graph, self.after, self.within = whole, graph, after, within

    def check(self) -> None:
        graph, inputs = self.graph, set(self.graph.inputs)
        for value in (*graph.inputs, *graph.outputs, *graph.updates):
            if not isinstance(value, Value) or not 0 <= value.index < len(value.node.types):
                self.fail(f"{value!r} is no value of a node")
        if len(inputs) != len(graph.inputs):
            self.fail("an input is listed twice")
        for value in graph.inputs:
            if value.op.name not in _SOURCES:
                self.fail("an input that is neither a placeholder nor a parameter", value)
        for node in graph.order():
            self.check_node(node)
            if node.op.name in _SOURCES and node.outputs[0] not in inputs:
                self.fail(f"a {node.op.name} that is not among the inputs", node.outputs[0])
        self.check_updates(inputs)

    def check_updates(self, inputs: set[Value]) -> None:
        graph = self.graph
        if len(graph.updates) > len(graph.outputs):
            self.fail(f"{len(graph.updates)} updates but only {len(graph.outputs)} outputs")
        if len(set(graph.updates)) != len(graph.updates):
            self.fail("a parameter is updated twice")
        new = graph.outputs[len(graph.outputs) - len(graph.updates) :]
        for parameter, value in zip(graph.updates, new, strict=True):
            if parameter.op.name != "parameter" or parameter not in inputs:
                self.fail("an update of something that is no parameter among the inputs", parameter)
            if parameter.type != value.type:
                self.fail(f"an update of type {value.type} for a parameter of type {parameter.type}", value)

    def check_node(self, node: Node) -> None:
        value = node.outputs[0] if node.types else None
        if OPS.get(node.op.name) is not node.op:
            self.fail(f"the op {node.op.name} is not the registered one", value)
        for operand in node.inputs:
            if not isinstance(operand, Value) or not 0 <= operand.index < len(operand.node.types):
                self.fail(f"an operand that is no value of a node: {operand!r}", value)
        data = node.attrs.get("data")
        if isinstance(data, ConstantData) and data.array.flags.writeable:
            self.fail("a constant whose array can be written to", value)
        try:
            types = node.op.type_rule(tuple(operand.type for operand in node.inputs), node.attrs)
        except (GraphcError, LookupError, TypeError, ValueError) as error:
            message = error.message if isinstance(error, GraphcError) else repr(error)
            self.fail(f"its type rule says: {message}", value)
        if types != node.types:
            shown = [", ".join(map(str, some)) for some in (node.types, types)]
            self.fail(f"the node says {shown[0]}, the type rule of {node.op.name} says {shown[1]}", value)
        for inner in node.attrs.values():
            if isinstance(inner, Graph) and node.op.name == "kernel":
                self.check_nested(node, inner)

    def check_nested(self, node: Node, inner: Graph) -> None:
        """The graph of a kernel takes the kernel's operands, gives its results and has no state."""
        value = node.outputs[0] if node.types else None
        if tuple(v.type for v in inner.inputs) != tuple(v.type for v in node.inputs):
            self.fail("the inputs of the inner graph have other types than the operands", value)
        if tuple(v.type for v in inner.outputs) != node.types:
            self.fail("the outputs of the inner graph have other types than the results", value)
        if inner.updates or any(v.op.name == "parameter" for v in inner.inputs):
            self.fail("an inner graph with parameters", value)

    def fail(self, problem: str, value: Value | None = None) -> NoReturn:
        where = f"after the pass {self.after}" if self.after else "before any pass"
        node = f"\n  at {line_of(value)}" if value is not None else ""
        try:
            path = reproducer(to_text(self.whole))
        except Exception as error:  # the graph is broken: its text may not exist, and the first error matters more
            path = f"none, the graph does not print ({error!r})"
        raise InternalError(f"the graph is not valid {where}{self.within}: {problem}{node}", path)
