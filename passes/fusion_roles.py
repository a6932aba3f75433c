"""What part each node plays in fusion: stored by some kernel (a member), or made anew inside whoever reads it.

Enter at `Roles(graph)`. *Inline* nodes cost no memory and next to no time, so each reader has its own copy: movement
(a change of index), arithmetic on indices and constants, and comparisons of values that are in memory anyway (the mask
of an activation). All others are *members*: each belongs to exactly one kernel. An `Edge` says which stored value a
member reads through which inline nodes. To make a further kind of node inline, extend `_inline`.
"""

from __future__ import annotations

from typing import NamedTuple

from graphc.graph import Graph, Node, Value
from graphc.ops.lowering import (
    Concat,
    Contraction,
    Elementwise,
    Gather,
    Matrices,
    Movement,
    Reduction,
    Scan,
    ScatterAdd,
    Sort,
)
from graphc.passes.domain import SOURCES, is_indexed, one_element
from graphc.passes.windows import in_memory, is_clipped

MOST_INLINE = 12  # inline nodes on a path: a longer one is stored, or every reader would repeat it
COMPARISONS = frozenset({"equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "logical_not"})


class Edge(NamedTuple):
    """`user` reads `root` as its operand number `position`, through the inline nodes of `chain` (root's side first)."""

    user: Node
    position: int
    root: Value
    chain: tuple[Node, ...]


class Roles:
    """The roles of all nodes of a graph.

    members: the nodes that kernels compute, in order; rank: their positions in it. edges: what each member reads;
    readers: who reads a member.
    scalars: members of one element that follow from sources and other such scalars (learning-rate corrections).
    updates: elementwise members that nothing reads but new values of parameters; they stay out of the kernels of
    forward and backward, so that those write nothing in place and all parameters' updates are alike.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes = graph.order()
        self.readers_of_value = graph.users()
        self.outputs = set(graph.outputs)
        self.stored: set[Node] = set()  # nodes whose results some kernel needs in memory, whatever fusion does
        self.indexed: set[Node] = set()
        self.depth: dict[Node, int] = {}  # of inline nodes
        self._find_stored()
        self.members = [node for node in self.nodes if not self._inline(node)]
        self.is_member = set(self.members)
        self.rank = {node: position for position, node in enumerate(self.members)}
        self.edges = {node: self._edges(node) for node in self.members}
        self.readers: dict[Node, list[Edge]] = {node: [] for node in self.members}
        for node in self.members:
            for edge in self.edges[node]:
                if edge.root.node in self.is_member:
                    self.readers[edge.root.node].append(edge)
        self.scalars = self._scalars()
        self.updates = self._updates()
        self.towards_reduction = self._towards_reduction()

    def _find_stored(self) -> None:
        """Outputs, and what a matmul reads: it takes memory through one reshape and transposes, no other view.

        Windows that reach beyond an array take it through its padding too.
        """
        self.stored.update(value.node for value in self.graph.outputs)
        for node in self.nodes:
            if isinstance(node.op.lowering, Contraction):
                for position, operand in enumerate(node.inputs):
                    below = operand.node
                    if is_clipped(node, position):
                        below = in_memory(operand, ())[0].node.inputs[0].node
                    while below.op.name == "transpose":
                        below = below.inputs[0].node
                    under = below.inputs[0].node if below.op.name == "reshape" else below
                    plain = not isinstance(under.op.lowering, Movement) and not is_indexed(under)
                    self.stored.add(under if plain else below)

    def _inline(self, node: Node) -> bool:
        """Whether readers make the node themselves. Called once for each node, in order."""
        if is_indexed(node):
            self.indexed.add(node)
            return node not in self.stored or node.op.name in SOURCES
        if node.op.name in SOURCES:
            return True
        depth = 1 + max((self.depth.get(v.node, 0) for v in node.inputs), default=0)
        kind = node.op.lowering
        indexed = bool(node.inputs) and all(v.node in self.indexed for v in node.inputs)
        if node in self.stored or depth > MOST_INLINE:
            return False
        if not (isinstance(kind, Movement) or (isinstance(kind, Elementwise) and (indexed or self._is_mask(node)))):
            return False
        self.depth[node] = depth
        if indexed:
            self.indexed.add(node)
        return True

    def _is_mask(self, node: Node) -> bool:
        """A comparison of values that are in memory anyway, read by nothing but elementwise nodes."""
        if node.op.name not in COMPARISONS:
            return False
        if not all(self._in_memory(v) for v in node.inputs):
            return False
        users = self.readers_of_value.get(Value(node), [])
        return all(isinstance(user.op.lowering, Elementwise) for user in users)

    def _in_memory(self, value: Value) -> bool:
        node = value.node
        while isinstance(node.op.lowering, Movement) and node not in self.stored:
            node = node.inputs[0].node
        return node in self.stored or node in self.indexed or node.op.name in SOURCES

    def _edges(self, user: Node) -> list[Edge]:
        found: list[Edge] = []
        for position, operand in enumerate(user.inputs):
            stack: list[tuple[Value, tuple[Node, ...]]] = [(operand, ())]
            while stack:
                value, chain = stack.pop()
                if value.node in self.is_member or (value.node.op.name in SOURCES and value.node not in self.indexed):
                    found.append(Edge(user, position, value, chain))
                elif value.node not in self.indexed or isinstance(user.op.lowering, Contraction):
                    stack.extend((v, (value.node, *chain)) for v in reversed(value.node.inputs))
        return found

    def _scalars(self) -> set[Node]:
        found: set[Node] = set()
        for node in self.members:
            if not one_element(node.types[0].shape) or not isinstance(node.op.lowering, (Elementwise, Movement)):
                continue
            if any(_needs_memory(edge) for edge in self.readers[node]):
                continue
            if all(edge.root.node in found or edge.root.node not in self.is_member for edge in self.edges[node]):
                found.add(node)
        return found

    def _updates(self) -> set[Node]:
        results = {value.node for value in self.graph.results}
        found: set[Node] = set()
        for node in reversed(self.members):
            elementwise = isinstance(node.op.lowering, Elementwise) and not one_element(node.types[0].shape)
            if elementwise and node not in results and all(e.user in found for e in self.readers[node]):
                found.add(node)
        return found if self.graph.updates else set()

    def _towards_reduction(self) -> set[Node]:
        """Elementwise members read by one reduction and nothing else: better computed there than stored for it."""
        found: set[Node] = set()
        for node in reversed(self.members):
            users = {edge.user for edge in self.readers[node]}
            if len(users) == 1 and isinstance(node.op.lowering, Elementwise) and node not in self.stored:
                user = users.pop()
                if user in found or isinstance(user.op.lowering, Reduction):
                    found.add(node)
        return found


def _needs_memory(edge: Edge) -> bool:
    """Whether an edge never reads what its kernel repeats: a gather picks from memory or rows, others read views."""
    kind = edge.user.op.lowering
    if any(getattr(node.op.lowering, "inside", None) is not None for node in (*edge.chain, edge.user)):
        return True
    alone = isinstance(kind, (ScatterAdd, Concat, Scan, Sort, Matrices))
    return alone or (isinstance(kind, Gather) and edge.position == 0)
