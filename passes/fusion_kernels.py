"""Writing the groups that fusion formed as kernel nodes: inner graphs, operands, results, names.

Enter at `build`. A kernel's inner graph has one placeholder `p0, p1, ...` for each operand, its own copies of the
inline nodes that its members read through, and one output for each value that something outside needs. A graph output
that no kernel computes (an input or a parameter itself, or a value that is an output twice) gets a kernel that copies
it, so every output is a result of its own; only an update may share its value with one result. To change how kernels
are called, edit `kernel_name`.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from graphc.errors import InternalError
from graphc.graph import Graph, Node, Value, inherit_origin, make_node
from graphc.ops.lowering import Contraction
from graphc.passes.domain import SOURCES, is_indexed, is_total
from graphc.passes.fusion_groups import Group, Groups, is_reduction
from graphc.passes.fusion_roles import Roles
from graphc.passes.kernel_nodes import kernel_node, placeholder


def build(roles: Roles, groups: Groups, hosted: set[Node]) -> Graph:
    """The graph of kernels for `groups`; `hosted` are the scalars that are stored, the others are copied inside."""
    graph = roles.graph
    wanted = _wanted(roles, groups, hosted)
    new: dict[Value, Value] = {}
    for group in _order(roles, groups, hosted):
        group.members.sort(key=roles.rank.__getitem__)
        results = [value for node in group.members for value in node.outputs if value in wanted]
        inner = _Inner(group, groups, roles, hosted)
        outputs = [inner.value(value) for value in results]
        inner_graph = Graph(tuple(inner.operands.values()), tuple(outputs), (), kernel_name(group, roles))
        node = kernel_node([new.get(value, value) for value in inner.operands], inner_graph, group.members)
        new.update(zip(results, node.outputs, strict=True))
    used: set[Value] = set()
    final: list[Value] = []
    for position, value in enumerate(graph.outputs):
        result = new.get(value, value)
        shared = position >= len(graph.results) and value in graph.results and final.count(result) == 1
        if value.node.op.name in SOURCES or (result in used and not shared):
            result = _copy(result)
        used.add(result)
        final.append(result)
    return graph.with_outputs(final)


def _wanted(roles: Roles, groups: Groups, hosted: set[Node]) -> set[Value]:
    """The values that kernels store: outputs, and what another group reads."""
    wanted = set(roles.graph.outputs)
    for user, group in groups.of.items():
        for edge in roles.edges[user]:
            root = edge.root.node
            if groups.of.get(root) is not group and (root not in roles.scalars or root in hosted):
                wanted.add(edge.root)
    return wanted


def _order(roles: Roles, groups: Groups, hosted: set[Node]) -> list[Group]:
    """The groups, producers first; ties by the first member."""
    everything = groups.all()
    first = {group: min(roles.rank[node] for node in group.members) for group in everything}
    waiting: dict[Group, int] = {}
    behind: dict[Group, list[Group]] = {group: [] for group in everything}
    for group in everything:
        before = {
            groups.of[edge.root.node]
            for node in group.members
            for edge in roles.edges[node]
            if edge.root.node in groups.of and (edge.root.node not in roles.scalars or edge.root.node in hosted)
        } - {group}
        waiting[group] = len(before)
        for producer in before:
            behind[producer].append(group)
    ready = [(first[group], group) for group in everything if not waiting[group]]
    heapq.heapify(ready)
    order: list[Group] = []
    while ready:
        _, group = heapq.heappop(ready)
        order.append(group)
        for consumer in behind[group]:
            waiting[consumer] -= 1
            if not waiting[consumer]:
                heapq.heappush(ready, (first[consumer], consumer))
    if len(order) != len(everything):
        raise InternalError("fusion formed kernels that wait for each other")
    return order


class _Inner:
    """The inner graph of one kernel, grown from the values that are asked for."""

    def __init__(self, group: Group, groups: Groups, roles: Roles, hosted: set[Node]) -> None:
        self.group, self.groups, self.roles, self.hosted = group, groups, roles, hosted
        self.read = {edge.root.node for node in group.members for edge in roles.edges[node]}
        self.inner: dict[Value, Value] = {}
        self.operands: dict[Value, Value] = {}  # outer value -> placeholder
        for node in group.members:
            if isinstance(node.op.lowering, Contraction):
                self._in_memory(node)

    def value(self, wanted: Value) -> Value:
        """The inner value that stands for an outer one."""
        stack = [wanted]
        while stack:
            value = stack[-1]
            if value in self.inner:
                stack.pop()
            elif self._is_operand(value):
                self._operand(value)
            elif missing := [v for v in value.node.inputs if v not in self.inner]:
                stack.extend(reversed(missing))
            else:
                inputs = [self.inner[v] for v in value.node.inputs]
                with inherit_origin(value.node):
                    copy = make_node(value.node.op, inputs, value.node.attrs)
                self.inner.update(zip(value.node.outputs, copy.outputs, strict=True))
        return self.inner[wanted]

    def _is_operand(self, value: Value) -> bool:
        node = value.node
        if node.op.name in SOURCES:
            return node not in self.roles.indexed
        if node not in self.roles.is_member:
            return False
        if self.groups.of.get(node) is self.group or node in self.roles.indexed:
            return False  # positions and sizes are made anew, stored or not: what follows from them is a view
        # A stored scalar that only a repeated one reads is repeated too: this kernel need not wait for its host.
        return node not in self.roles.scalars or (node in self.hosted and node in self.read)

    def _operand(self, value: Value) -> None:
        self.inner[value] = placeholder(self.operands, value, value.type)

    def _in_memory(self, matmul: Node) -> None:
        """A matmul reads memory only, so a constant of one element or an iota is an operand for once."""
        for operand in matmul.inputs:
            while operand.node.op.name in ("transpose", "reshape") and operand.node not in self.roles.is_member:
                operand = operand.node.inputs[0]
            if is_indexed(operand.node) and operand not in self.inner:
                self._operand(operand)


def _copy(value: Value) -> Value:
    """A kernel that copies a value."""
    operands: dict[Value, Value] = {}
    inner = placeholder(operands, value, value.type)
    return Value(kernel_node(list(operands), Graph((inner,), (inner,), (), "copy"), [value.node]))


SHORT = {
    "broadcast_to": "broadcast", "subtract": "sub", "multiply": "mul", "divide": "div", "negative": "neg",
    "maximum": "max", "minimum": "min", "take_along_axis": "gather", "scatter_add_along_axis": "scatter_add",
}  # fmt: skip


def kernel_name(group: Group, roles: Roles) -> str:
    """A short summary of what a group computes, such as matmul_bias_relu or softmax_loss."""
    members = group.members
    names = [node.op.name for node in members]
    products = [node for node in members if isinstance(node.op.lowering, Contraction)]
    if products:
        behind = [node for node in members if node not in products and node not in roles.updates]
        update = ["update"] if group.domain.update else []
        return "_".join([products[0].op.name, *_words([_epilogue_word(node, roles) for node in behind]), *update])
    if group.domain.update:
        return "update"
    words: list[str] = []
    if "max" in names and "exp" in names and "sum" in names:
        words.append("softmax")
        names = [name for name in names if name not in ("max", "exp", "sum", "subtract", "divide", "log")]
    if any(is_total(node) for node in members):
        words.append("loss" if words else "total")
    if words:
        return "_".join(words)
    folds = [SHORT.get(node.op.name, node.op.name) for node in members if is_reduction(node)]
    others = [SHORT.get(name, name) for name in names if SHORT.get(name, name) not in folds]
    axes = ["".join(map(str, group.domain.reduced or ()))] if folds else []
    columns = ["columns"] if group.domain.columns else []
    return "_".join([*_words(others)[:3], *_words(folds), *axes, *columns])


def _words(names: Sequence[str]) -> list[str]:
    """The first few different words."""
    return [name for name in dict.fromkeys(names) if name][:4]


def _epilogue_word(node: Node, roles: Roles) -> str:
    name = node.op.name
    if name == "add" and any("broadcast_to" in [step.op.name for step in edge.chain] for edge in roles.edges[node]):
        return "bias"
    return "mask" if name == "where" else SHORT.get(name, name)
