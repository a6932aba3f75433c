"""Rows of a product are finished by the kernel that computes it: softmax(x @ w), layer_norm(x @ w + b), ...

Enter at `join_rows`. A kernel of rows that reads the result of a contraction and reduces its last axis becomes part of
the contraction's kernel, which keeps a few rows of the product at a time in scratch, in the first cache. What else
reads the product still finds it in memory; if nothing does, it is never stored. docs/design/row_statistics.md has the
reasons and the rule. To allow more kernels of rows, edit `_pays`.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.graph import RECOMPUTED, Graph, Node, Value
from graphc.observe import enabled, log
from graphc.ops.lowering import FUNCTIONS
from graphc.passes.domain import FULL, ContractionShape, KernelShape, RowsShape, kernel_shape
from graphc.passes.fusion_groups import MOST_NODES, MOST_OPERANDS
from graphc.passes.kernel_nodes import copy_nodes, follow, kernel_node, placeholder
from graphc.passes.product_rows import product_rows
from graphc.types import product as product_of

MOST_COLUMNS = 1024  # of a product whose rows are kept
MOST_BYTES = 1 << 20  # of the matrix that every few rows read: half of the second cache
LEAST_BYTES = 1 << 20  # of a product that is worth not to be stored, or not to be read again


def join_rows(graph: Graph) -> Graph:
    """The graph with kernels of rows inside the contractions that they read."""
    joining = _Joining(graph)
    return joining.result() if joining.inner else graph


class _Joining:
    """What is joined in a graph. inner: the graph of each joined kernel, by its kernel of rows."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.users, self.inner = graph, graph.users(), dict[Node, Graph]()
        self.partner: dict[Node, Node] = {}  # a contraction and the rows that join it, both ways
        self.operands: dict[Node, list[Value]] = {}  # of a joined kernel, by its kernel of rows
        self.results: dict[Node, list[Value]] = {}  # the values that it stores
        order = graph.order()
        self.rank = {node: number for number, node in enumerate(order)}
        shapes = {node: kernel_shape(node.attrs["graph"]) for node in order if node.op.name == "kernel"}
        for node, shape in shapes.items():
            if isinstance(shape, RowsShape) and _is_by_itself(node, shape):
                products = dict.fromkeys(v.node for v in node.inputs if _pays(v.node, shapes.get(v.node)))
                any(self._join(product, node, shape) for product in products if product not in self.partner)

    def _join(self, product: Node, rows: Node, shape: RowsShape) -> bool:
        """Join two kernels if that is right; says whether it is."""
        updated = set(self.graph.outputs[len(self.graph.results) :])
        if updated.intersection((*product.outputs, *rows.outputs)) or self._leads_back(product, rows):
            return False
        results = [v for v in product.outputs if v in self.graph.outputs or set(self.users[v]) != {rows}]
        if len(results) + len(_matrices(rows, shape)) > 1 or (results and not _is_light(shape)):
            return False
        results += rows.outputs
        operands, inner = _joined(product, rows, results)
        if len(operands) > MOST_OPERANDS or len(inner.order()) > MOST_NODES or product_rows(inner) is None:
            return False
        self.partner |= {product: rows, rows: product}
        self.inner[rows], self.operands[rows], self.results[rows] = inner, operands, results
        return True

    def _leads_back(self, product: Node, rows: Node) -> bool:
        """Whether a kernel between the two needs the one and is needed by the other."""
        seen: set[Node] = set()
        stack = [v.node for v in rows.inputs if v.node is not product]
        while stack:
            unit = self._unit(stack.pop())
            if product in unit:
                return True
            if unit[-1] not in seen and self.rank[unit[-1]] > self.rank[product]:
                seen.add(unit[-1])
                stack.extend(self._below(unit))
        return False

    def _unit(self, node: Node) -> tuple[Node, ...]:
        """The nodes that are one: a contraction and its rows, or the node alone."""
        partner = self.partner.get(node)
        return (node,) if partner is None else (partner, node) if node in self.inner else (node, partner)

    def _below(self, unit: tuple[Node, ...]) -> list[Node]:
        return [v.node for node in unit for v in node.inputs if v.node not in unit]

    def result(self) -> Graph:
        new: dict[Value, Value] = {}
        for unit in self._order():
            last = unit[-1]
            if last in self.inner:
                joined = kernel_node([new.get(v, v) for v in self.operands[last]], self.inner[last], unit)
                new.update(zip(self.results[last], joined.outputs, strict=True))
                if enabled("fusion"):
                    log("fusion", f"{last.attrs['name']} runs inside of {unit[0].attrs['name']}, row by row")
            else:
                follow(last, new)
        return self.graph.with_outputs([new.get(v, v) for v in self.graph.outputs])

    def _order(self) -> list[tuple[Node, ...]]:
        """All units, operands first."""
        done: dict[tuple[Node, ...], None] = {}
        stack = [self._unit(v.node) for v in reversed(self.graph.outputs)]
        while stack:
            unit = stack[-1]
            missing = [] if unit in done else [u for u in map(self._unit, self._below(unit)) if u not in done]
            if missing:
                stack.extend(reversed(missing))
            else:
                done[stack.pop()] = None
        return list(done)


def _is_by_itself(node: Node, shape: RowsShape) -> bool:
    """Whether a kernel reduces rows and nothing else, and none of them is computed again for the backward pass."""
    plain = bool(shape.reductions) and not (shape.totals or shape.columns)
    return plain and not any(each.attrs.get(RECOMPUTED) for each in node.attrs["graph"].order())


def _matrices(node: Node, shape: RowsShape) -> list[Value]:
    """The results of a kernel of rows that are as large as what it reads."""
    return [v for v in node.attrs["graph"].outputs if shape.classes[v] == FULL]


def _is_light(shape: RowsShape) -> bool:
    """Whether rows take few instructions an element: no function that is a polynomial."""
    return not any(kind == FULL and v.op.name in FUNCTIONS for v, kind in shape.classes.items())


def _pays(product: Node, contraction: KernelShape | None) -> bool:
    """Whether rows of a contraction can wait in the first cache, and gain from it."""
    if not isinstance(contraction, ContractionShape) or contraction.matmul.op.name != "matmul":
        return False
    inner: Graph = product.attrs["graph"]
    if any(node.attrs.get(RECOMPUTED) for node in inner.order()):
        return False
    itemsize = contraction.matmul.types[0].dtype.itemsize
    if itemsize < 4:
        return False  # more elements in a register than rows have lanes
    length, columns = contraction.matmul.inputs[1].type.shape[-2:]
    if not isinstance(length, int) or not isinstance(columns, int) or not 1 < columns <= MOST_COLUMNS:
        return False
    size = product_of(contraction.full) * itemsize
    return length * columns * itemsize <= MOST_BYTES and (not isinstance(size, int) or size >= LEAST_BYTES)


def _joined(product: Node, rows: Node, results: Sequence[Value]) -> tuple[list[Value], Graph]:
    """The operands and the inner graph of a kernel that computes both, and stores `results`."""
    operands: dict[Value, Value] = {}  # outer value -> placeholder
    made: dict[Value, Value] = {}  # outer value -> inner one
    for node in (product, rows):
        graph: Graph = node.attrs["graph"]
        inside: dict[Value, Value] = {}
        for p, outer in zip(graph.inputs, node.inputs, strict=True):
            inside[p] = made[outer] if outer in made else placeholder(operands, outer, outer.type)
        copy_nodes(graph, inside)
        made.update((outer, inside[v]) for outer, v in zip(node.outputs, graph.outputs, strict=True))
    name = "_".join([product.attrs["name"], rows.attrs["name"]])
    return list(operands), Graph(tuple(operands.values()), tuple(made[v] for v in results), (), name)
