"""Kernels that hand on matrices of one shape become one kernel, which has them block by block in scratch.

Enter at `join_blocks`; what is joined and how it runs: docs/design/blocks.md. `block_families.py` finds what can be
joined. Here the kernels of each stage of a family become one inner graph (`_Joined`), with copies of the kernels of
earlier stages whose matrices it reads; what those reduced to values of a row is handed on through memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from graphc.graph import Graph, Node, Value, inherit_origin, make_node
from graphc.ops.lowering import Reduction
from graphc.ops.registry import OPS
from graphc.passes.block_families import COLUMN_SUM, ROWS, Family, families
from graphc.passes.blocks_shape import has_blocks_shape
from graphc.passes.domain import ContractionShape, KernelShape, kernel_shape
from graphc.passes.kernel_nodes import follow, kernel_node, placeholder


def join_blocks(graph: Graph) -> Graph:
    """The graph with the kernels of each family joined."""
    shapes = {node: kernel_shape(node.attrs["graph"]) for node in graph.order() if node.op.name == "kernel"}
    for family in families(graph, shapes):
        graph = _Joining(graph, family, shapes).result()
    return graph


class _Joined:
    """One kernel of blocks being made: the kernels of one stage and copies of earlier ones.

    made: the inner value for each outer one that it computes; inside: for each value of each kernel's inner graph.
    operands: the placeholder of each operand, a value of the graph or (another _Joined, inner value).
    """

    def __init__(self) -> None:
        self.members: list[Node] = []
        self.made: dict[Value, Value] = {}
        self.inside: dict[tuple[Node, Value], Value] = {}
        self.operands: dict[Value | tuple[_Joined, Value], Value] = {}
        self.results: dict[Value, None] = {}

    def operand(self, key: Value | tuple[_Joined, Value], like: Value) -> Value:
        return placeholder(self.operands, key, like.type)

    def graph(self, name: str) -> Graph:
        return Graph(tuple(self.operands.values()), tuple(self.results), (), name)


class _Joining:
    """The joining of one family of a graph."""

    def __init__(self, graph: Graph, family: Family, shapes: Mapping[Node, KernelShape]) -> None:
        self.graph, self.family, self.shapes = graph, family, shapes
        self.users = graph.users()
        self.joined = {stage: _Joined() for stage in sorted(set(family.stage.values()))}
        self.behind: dict[Node, tuple[Value, bool]] = {}  # column product -> its inner value and whether that is turned
        self.stands_for: dict[Value, tuple[_Joined, Value]] = {}  # outer values that are results of joined kernels
        order = [node for node in graph.order() if node in family.kinds]
        for stage, joined in self.joined.items():
            needed = self._needed(stage, order)
            for node in order:
                if node in needed:
                    self._add(joined, node, stage)

    def result(self) -> Graph:
        """The graph with the family joined; as it was if its kernels do not fit together."""
        self._find_results()
        graphs = {joined: joined.graph(_name(joined, self.family)) for joined in self.joined.values()}
        if not all(has_blocks_shape(graph) for graph in graphs.values()):
            return self.graph
        new: dict[Value, Value] = {}
        results: dict[_Joined, dict[Value, Value]] = {}

        def resolved(key: Value | tuple[_Joined, Value]) -> Value:
            if isinstance(key, Value):
                return new.get(key, key)
            return results[key[0]][key[1]]

        for unit in self._order():
            if isinstance(unit, _Joined):
                node = kernel_node([resolved(key) for key in unit.operands], graphs[unit], unit.members)
                results[unit] = dict(zip(unit.results, node.outputs, strict=True))
                new.update({v: results[unit][inner] for v, (home, inner) in self.stands_for.items() if home is unit})
                for column in (n for n in unit.members if n in self.behind):
                    operands = [new.get(v, v) for v in column.inputs]
                    product, turned = self.behind[column]
                    rest = self._rest(column, operands, results[unit][product], turned)
                    new.update(zip(column.outputs, rest, strict=True))
            elif not any(v in new for v in unit.outputs):
                follow(unit, new)
        return self.graph.with_outputs([new.get(v, v) for v in self.graph.outputs])

    # the inner graphs

    def _home(self, node: Node) -> _Joined:
        return self.joined[self.family.stage[node]]

    def _needed(self, stage: int, order: Sequence[Node]) -> set[Node]:
        """The kernels of a stage, and those whose matrices they read."""
        needed = {node for node in order if self.family.stage[node] == stage}
        for node in reversed(order):
            if node in needed:
                needed |= {v.node for v in node.inputs if v in self.family.matrices}
        return needed

    def _add(self, joined: _Joined, kernel: Node, stage: int) -> None:
        """Copy a kernel's inner graph into a joined one."""
        copied = self.family.stage[kernel] != stage
        inner: Graph = kernel.attrs["graph"]
        new: dict[Value, Value] = {}
        for inside, outer in zip(inner.inputs, kernel.inputs, strict=True):
            new[inside] = self._read(joined, outer)
        joined.members.append(kernel)
        if self.family.kinds[kernel] == COLUMN_SUM:
            self._add_column_product(joined, kernel, new)
            return
        for node in inner.order():
            if node.op.name == "placeholder":
                continue
            if copied and isinstance(node.op.lowering, Reduction):
                home = self._home(kernel)
                there = home.inside[kernel, Value(node)]
                home.results[there] = None
                new[Value(node)] = joined.operand((home, there), Value(node))
                continue
            with inherit_origin(node):
                made = make_node(node.op, [new[v] for v in node.inputs], node.attrs)
            new.update(zip(node.outputs, made.outputs, strict=True))
        joined.inside.update({(kernel, v): copy for v, copy in new.items()})
        joined.made.update({outer: new[v] for outer, v in zip(kernel.outputs, inner.outputs, strict=True)})

    def _read(self, joined: _Joined, outer: Value) -> Value:
        """The inner value of what a kernel reads."""
        if outer in joined.made:
            return joined.made[outer]
        if outer.node in self.family.kinds and outer in self._home(outer.node).made:
            home = self._home(outer.node)
            home.results[home.made[outer]] = None
            return joined.operand((home, home.made[outer]), outer)
        return joined.operand(outer, outer)

    def _add_column_product(self, joined: _Joined, kernel: Node, new: dict[Value, Value]) -> None:
        """The product with the columns as its rows, which is how the blocks add it up; its epilogue comes behind."""
        shape = self.shapes[kernel]
        assert isinstance(shape, ContractionShape)
        inner: Graph = kernel.attrs["graph"]
        matmul = shape.matmul
        for node in inner.order():
            if node is not matmul and node.inputs and all(v in new for v in node.inputs) and _is_view(node):
                with inherit_origin(node):
                    new[Value(node)] = Value(make_node(node.op, [new[v] for v in node.inputs], node.attrs))
        left, right = (new[v] for v in matmul.inputs)
        flipped = self._is_flipped(joined, left)
        with inherit_origin(matmul):
            pair = (_transposed(right), _transposed(left)) if flipped else (left, right)
            product = Value(make_node(matmul.op, pair, matmul.attrs))
        joined.results[product] = None
        plain = inner.outputs == (Value(matmul),)
        turned = self._turned_back(kernel) if plain and flipped else []
        if plain and not flipped:
            joined.made[kernel.outputs[0]] = product
        elif turned:
            self.stands_for.update(dict.fromkeys(turned, (joined, product)))
        else:
            self.behind[kernel] = (product, flipped)

    def _is_flipped(self, joined: _Joined, left: Value) -> bool:
        """Whether the matrix is the right operand of a column product."""
        while left.op.name == "transpose":
            left = left.node.inputs[0]
        return left not in {joined.made.get(v) for v in self.family.matrices}

    def _turned_back(self, kernel: Node) -> list[Value]:
        """The results of the readers of a column product, if all they do is transpose it."""
        if kernel.outputs[0] in self.graph.outputs:
            return []
        found = []
        for user in self.users[kernel.outputs[0]]:
            inner: Graph | None = user.attrs["graph"] if user.op.name == "kernel" else None
            if inner is None or len(inner.outputs) != 1 or _transposed(inner.inputs[0]) != inner.outputs[0]:
                return []
            found.append(user.outputs[0])
        return found

    def _rest(self, kernel: Node, operands: Sequence[Value], product: Value, turned: bool) -> Sequence[Value]:
        """What a kernel does with its column product, which may be `turned`, as a kernel of its own."""
        shape = self.shapes[kernel]
        assert isinstance(shape, ContractionShape)
        inner: Graph = kernel.attrs["graph"]
        attrs = {"name": "product", "type": product.type}
        result = Value(make_node(OPS["placeholder"], (), attrs))
        whole = _transposed(result) if turned else result
        graph = Graph(inner.inputs, inner.outputs).replace({Value(shape.matmul): whole})
        used = {v for node in graph.order() for v in node.inputs} & set(inner.inputs)
        pairs = [(p, v) for p, v in zip(inner.inputs, operands, strict=True) if p in used]
        name = f"{kernel.attrs['name']}_rest"
        graph = Graph((result, *(p for p, _ in pairs)), graph.outputs, (), name)
        return kernel_node([product, *(v for _, v in pairs)], graph, [kernel]).outputs

    # the graph around them

    def _find_results(self) -> None:
        """Which values the joined kernels give: what is read outside of the family, or is a result of the graph."""
        outputs = set(self.graph.outputs)
        for node in self.family.kinds:
            home = self._home(node)
            for value in node.outputs:
                outside = value in outputs or any(u not in self.family.kinds for u in self.users.get(value, []))
                if value in home.made and value not in self.family.matrices:
                    self.stands_for[value] = (home, home.made[value])
                    if outside:
                        home.results[home.made[value]] = None
        self.stands_for = {v: (j, inner) for v, (j, inner) in self.stands_for.items() if inner in j.results}

    def _order(self) -> list[Node | _Joined]:
        """Joined kernels and other nodes, operands first."""
        order: dict[Node | _Joined, None] = {}
        stack: list[Node | _Joined] = [self._unit(v) for v in reversed(self.graph.outputs)]
        while stack:
            unit = stack[-1]
            missing = [u for u in self._below(unit) if u not in order] if unit not in order else []
            if missing:
                stack.extend(missing)
            else:
                order[stack.pop()] = None
        return list(order)

    def _unit(self, value: Value) -> Node | _Joined:
        if value in self.stands_for:
            return self.stands_for[value][0]
        return self._home(value.node) if value.node in self.family.kinds else value.node

    def _below(self, unit: Node | _Joined) -> Iterable[Node | _Joined]:
        if isinstance(unit, Node):
            return [self._unit(v) for v in unit.inputs]
        found = [key[0] if not isinstance(key, Value) else self._unit(key) for key in unit.operands]
        for kernel in (n for n in unit.members if n in self.behind):
            found += [u for u in (self._unit(v) for v in kernel.inputs) if u is not unit]
        return found


def _is_view(node: Node) -> bool:
    return node.op.name in ("transpose", "reshape")


def _transposed(value: Value) -> Value:
    rank = value.type.rank
    axes = (*range(rank - 2), rank - 1, rank - 2)
    if value.op.name == "transpose" and tuple(value.node.attrs["axes"]) == axes:
        return value.node.inputs[0]
    return Value(make_node(OPS["transpose"], [value], {"axes": axes}))


def _name(joined: _Joined, family: Family) -> str:
    names = [node.attrs["name"] for node in joined.members if family.kinds[node] == ROWS]
    return "_".join(["blocks", *list(dict.fromkeys(names))[:2]])
