"""The groups that fusion grows: what each may still become, and merging without ever making a cycle.

Enter at `Groups`. Every member starts as a group of its own; `merge(a, b)` makes one of two if their domains join,
every edge between them is one that loops can follow, and no path leads out of one and into the other. Reachability is
kept as a bit set of ancestors for each group, so a test costs the group's direct producers, not the graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from graphc.graph import RECOMPUTED, Node
from graphc.ops.lowering import ArgReduction, Concat, Contraction, Elementwise, Gather, Movement, Reduction
from graphc.passes.domain import (
    FULL,
    ROW,
    SPREAD,
    Alignment,
    Rows,
    across,
    alignment,
    class_of_shape,
    is_total,
    moved,
    one_element,
    reaches,
    reduced_axes,
)
from graphc.passes.fusion_roles import Edge, Roles
from graphc.types import Shape

MOST_NODES = 512  # in one kernel: what LLVM compiles in a moment
MOST_OPERANDS = 96


@dataclass(frozen=True)
class Domain:
    """What loops a group needs. `reduced` None: nothing is reduced yet, so `full` may still become a row of others."""

    kind: str  # rows, contraction, or single: what stands alone
    full: Shape
    reduced: tuple[int, ...] | None = None
    total: bool = False  # holds a total reduction
    update: bool = False
    columns: bool = False  # sums over columns ride beside its rows

    @property
    def rows(self) -> Rows:
        return Rows(self.full, self.reduced or ())


def domain_of(node: Node, roles: Roles) -> Domain:
    """The domain of a member by itself."""
    kind, shape = node.op.lowering, node.types[0].shape
    if isinstance(kind, Contraction):
        return Domain("contraction", shape)
    if isinstance(kind, (Reduction, ArgReduction)):
        operand = node.inputs[0].type.shape
        if isinstance(kind, Reduction) and is_total(node):
            return Domain("single" if one_element(operand) else "rows", operand, total=True)
        axes = reduced_axes(node)
        trivial = not axes or all(operand[axis] == 1 for axis in axes)
        return Domain("single" if trivial else "rows", operand, axes)
    if isinstance(kind, (Elementwise, Movement, Gather, Concat)):
        return Domain("rows", shape, update=node in roles.updates)
    return Domain("single", shape)


def joint(a: Domain, b: Domain) -> Domain | None:
    """The domain of the nodes of both, or None if no kernel can hold them."""
    if "single" in (a.kind, b.kind) or a.kind == b.kind == "contraction":
        return None
    if "contraction" in (a.kind, b.kind):
        matmul, other = (a, b) if a.kind == "contraction" else (b, a)
        fits = other.full == matmul.full and other.reduced is None and not other.total and not other.update
        return matmul if fits else None
    for x, y in ((a, b), (b, a)):
        if one_element(x.full) and x.reduced is None and not x.total:
            return y  # scalars go anywhere; the edges decide
    if a.update != b.update:
        return None
    total = a.total or b.total
    if a.reduced is not None and b.reduced is not None:
        return replace(a, total=total) if a.rows == b.rows else None
    if a.reduced is None and b.reduced is None:
        return replace(a, total=total) if a.full == b.full else None
    fixed, free = (a, b) if a.reduced is not None else (b, a)
    if free.full == fixed.full:
        return None if free.total and fixed.reduced else replace(fixed, total=total)
    return replace(fixed, total=total) if alignment(free.full, fixed.rows) is not None else None


@dataclass(eq=False)
class Group:
    """Members of one kernel to be. Bit i of `mask` says that it holds what was once group number i."""

    domain: Domain
    members: list[Node]
    mask: int
    ancestors: int = 0
    producers: set[Group] = field(default_factory=set)
    consumers: set[Group] = field(default_factory=set)
    operands: set[Node] = field(default_factory=set)


@dataclass(frozen=True)
class _Merger:
    """Two groups that can be one: its domain and operands, the edges inside, the members that become late."""

    domain: Domain
    operands: set[Node]
    edges: list[Edge]
    late: set[Node]


class Groups:
    """All groups of a graph, and the merging of them."""

    def __init__(self, roles: Roles) -> None:
        self.roles = roles
        self.of: dict[Node, Group] = {}
        self.late: set[Node] = set()  # members that need a total of their own kernel: only its finish has them
        self.row_elements: set[Node] = set()  # members of one element that are rows all the same (one row)
        self._count = 0

    def all(self) -> list[Group]:
        """Every group once, ordered by the first member."""
        return list(dict.fromkeys(self.of.values()))

    def open(self, domain: Domain, members: list[Node]) -> Group:
        """A group that nothing is known of yet."""
        self._count += 1
        return Group(domain, members, 1 << (self._count - 1))

    def add(self, node: Node) -> Group:
        """A new group for `node`, behind the groups that it reads."""
        group = self.open(domain_of(node, self.roles), [node])
        for edge in self.roles.edges[node]:
            group.operands.add(edge.root.node)
            producer = self.of.get(edge.root.node)
            if producer is not None:
                group.producers.add(producer)
                producer.consumers.add(group)
                group.ancestors |= producer.ancestors | producer.mask
        self.of[node] = group
        if isinstance(node.op.lowering, (Reduction, ArgReduction)):
            if group.domain.total:
                self.late.add(node)
            elif one_element(node.types[0].shape):
                self.row_elements.add(node)
        return group

    def merge(self, a: Group, b: Group) -> bool:
        """Merge two groups if that is right; says whether it did."""
        merger = self._merger(a, b) if a is not b else "they are one"
        if isinstance(merger, str):
            return False
        self.late |= merger.late
        self.row_elements |= self._row_elements_with(merger.edges, {a, b})
        self._unite(a, b, merger.domain, merger.operands)
        return True

    def merge_columns(self, rows: Group, columns: Group) -> bool:
        """Let `rows` add up what `columns` sums over the axes that `rows` keeps, if that is right."""
        inside, domain = rows.domain, columns.domain
        if inside.reduced is None or not across(inside.rows, domain.rows) or domain.total or inside.update:
            return False
        behind = self._behind_columns(columns)
        if behind is None or len(rows.members) + len(columns.members) > MOST_NODES or self._cycle(rows, columns):
            return False
        operands = (rows.operands | columns.operands) - set(rows.members) - set(columns.members)
        edges = self._between(rows, columns)
        follows = all(
            edge.root.node not in behind
            and (edge.user not in behind or is_reduction(edge.user))
            and self._follows(edge, inside)
            for edge in edges
        )
        if not follows or len(operands) > MOST_OPERANDS or self._late_with(edges, {rows, columns}) != set():
            return False
        self._unite(rows, columns, replace(inside, columns=True), operands)
        return True

    def _behind_columns(self, group: Group) -> set[Node] | None:
        """The sums over columns of a group and what follows from them; None if it holds more, but for full values."""
        behind: set[Node] = set()
        for node in sorted(group.members, key=self.roles.rank.__getitem__):
            edges = self.roles.edges[node]
            inside = [edge for edge in edges if self.of.get(edge.root.node) is group]
            known = [edge for edge in inside if edge.root.node in behind]
            if isinstance(node.op.lowering, Reduction) and not known:
                behind.add(node)
            elif not isinstance(node.op.lowering, Elementwise) or any(edge.chain for edge in known):
                return None
            elif known and len(known) == len(inside) and all(self._from_memory(edge) for edge in edges):
                behind.add(node)
            elif known or node.types[0].shape != group.domain.full:
                return None
        return behind

    def _from_memory(self, edge: Edge) -> bool:
        """Whether what an edge reads is no scalar that readers repeat, and nothing is computed on the way."""
        moved_only = all(isinstance(step.op.lowering, Movement) for step in edge.chain)
        return moved_only and edge.root.node not in self.roles.scalars

    def hand_over(self, product: Group, update: Group) -> bool:
        """Let the kernel of a contraction apply its result to a parameter, if that is right."""
        domain, other = product.domain, update.domain
        if domain.kind != "contraction" or other.kind != "rows" or not other.update or other.full != domain.full:
            return False
        if other.reduced is not None or other.total:
            return False
        if any(node.op.name == "parameter" for node in product.operands & update.operands):
            return False  # it cannot change in place while products read it
        merger = self._merger(product, update, replace(domain, update=True))
        if isinstance(merger, str):
            return False
        self._unite(product, update, merger.domain, merger.operands)
        return True

    def refusal(self, a: Group, b: Group) -> str | None:
        """Why two groups cannot be one kernel, in words; None if they could."""
        merger = self._merger(a, b)
        return merger if isinstance(merger, str) else None

    def _merger(self, a: Group, b: Group, domain: Domain | None = None) -> _Merger | str:
        """What a merge makes, or why there can be none. `domain`: of both, if not the joint one."""
        domain = domain or joint(a.domain, b.domain)
        if domain is None:
            return "their loops differ"
        if len(a.members) + len(b.members) > MOST_NODES:
            return f"together they are more than {MOST_NODES} nodes"
        if self._cycle(a, b):
            return "a kernel between them needs the one and is needed by the other"
        if domain.kind == "contraction" and not all(_in_epilogue(n, domain) for n in (*a.members, *b.members)):
            return "behind a matmul there can be elementwise nodes of its result's shape only"
        operands = (a.operands | b.operands) - set(a.members) - set(b.members)
        if len(operands) > MOST_OPERANDS:
            return f"together they read more than {MOST_OPERANDS} arrays"
        edges = self._between(a, b)
        if self._too_early(a, b, edges):
            return "what is computed again for the backward pass waits for it"
        for edge in edges:
            if not self._follows(edge, domain):
                return f"{edge.user.op.name} reads {edge.root.op.name} elsewhere than where the loops have computed it"
        late = self._late_with(edges, {a, b})
        if late is None:
            return "what reads a total can run only when all of it is summed"
        return _Merger(domain, operands, edges, late)

    def _too_early(self, a: Group, b: Group, edges: list[Edge]) -> bool:
        """Whether one kernel would compute a value and, at once, what is recomputed from it: then it had to be kept."""
        levels = [{node.attrs.get(RECOMPUTED, 0) for node in group.members} for group in (a, b)]
        if levels[0] == levels[1] == {0}:
            return False
        later = any(e.root.node.attrs.get(RECOMPUTED, 0) < e.user.attrs.get(RECOMPUTED, 0) for e in edges)
        return later or (not edges and levels[0] != levels[1])

    def _cycle(self, a: Group, b: Group) -> bool:
        """Whether a path leads from one to the other through a third."""
        for first, second in ((a, b), (b, a)):
            if second.ancestors & first.mask and any(
                p is not first and p.ancestors & first.mask for p in second.producers
            ):
                return True
        return False

    def _between(self, a: Group, b: Group) -> list[Edge]:
        small, other = (a, b) if len(a.members) <= len(b.members) else (b, a)
        found: list[Edge] = []
        for node in small.members:
            found += [edge for edge in self.roles.edges[node] if self.of.get(edge.root.node) is other]
            found += [edge for edge in self.roles.readers[node] if self.of.get(edge.user) is other]
        return found

    def _follows(self, edge: Edge, domain: Domain) -> bool:
        """Whether the loops of `domain` can hand the root's value to the user without memory."""
        steps = [node for node in (*edge.chain, edge.user) if isinstance(node.op.lowering, Movement)]
        if domain.kind == "contraction":
            return not steps and not isinstance(edge.user.op.lowering, Contraction)
        rows, root, user = domain.rows, edge.root.node, edge.user
        wanted = self._wanted(edge, rows)
        picks = any(step.op.name == "slice" or step.op.lowering.inside is not None for step in steps)
        if picks or isinstance(user.op.lowering, Concat) or wanted is None:
            return False
        if self._is_row(root, rows):
            aligned: Alignment | None = alignment(edge.root.type.shape, rows)
            shape = edge.root.type.shape
            for step in steps:
                aligned = moved(aligned, step, rows) if aligned is not None else None
                shape = step.types[0].shape
                if aligned is not None and SPREAD in aligned and not reaches(aligned, rows, FULL, shape):
                    return False
            return aligned is not None and reaches(aligned, rows, wanted, shape)
        if one_element(edge.root.type.shape):
            return not (isinstance(user.op.lowering, (Reduction, ArgReduction, Gather)) and not steps)
        return not steps and wanted == FULL and edge.root.type.shape == rows.full

    def _is_row(self, node: Node, rows: Rows) -> bool:
        if node in self.row_elements:
            return True
        shape = node.types[0].shape
        if not rows.reduced or one_element(shape):
            return False
        if isinstance(node.op.lowering, (Reduction, ArgReduction)):
            return True
        return shape != rows.full and alignment(shape, rows) is not None

    def _wanted(self, edge: Edge, rows: Rows) -> str | None:
        """The class as which the user reads the edge."""
        user, kind = edge.user, edge.user.op.lowering
        shape = user.types[0].shape if isinstance(kind, Movement) else user.inputs[edge.position].type.shape
        if isinstance(kind, (Reduction, ArgReduction)):
            if isinstance(kind, Reduction) and is_total(user):
                return ROW if rows.reduced else FULL
            return FULL
        if isinstance(kind, Gather) and edge.position == 0:
            row = rows.reduced == (user.attrs["axis"],) and user.types[0].shape[user.attrs["axis"]] == 1
            return FULL if row and shape == rows.full else None
        found = class_of_shape(shape, rows)
        return ROW if found is not None and edge.root.node in self.row_elements and one_element(shape) else found

    def _late_with(self, edges: Iterable[Edge], both: set[Group]) -> set[Node] | None:
        """The further members that a merge makes late; None if one of them may not be."""
        late: set[Node] = set()
        stack = [edge for edge in edges if edge.root.node in self.late]
        while stack:
            edge = stack.pop()
            user = edge.user
            if is_reduction(user):
                return None  # a total of what needs another total of its own kernel
            if user in self.late or user in late:
                continue
            scalar = one_element(user.types[0].shape) and isinstance(user.op.lowering, (Elementwise, Movement))
            inside = [e.root.node for e in self.roles.edges[user] if self.of.get(e.root.node) in both]
            if not scalar or any(n in self.row_elements or not one_element(n.types[0].shape) for n in inside):
                return None
            late.add(user)
            stack += [e for e in self.roles.readers[user] if self.of.get(e.user) in both]
        for edge in edges:  # a late member may read no row, even one of a single element
            if edge.user in self.late | late and not is_reduction(edge.user) and edge.root.node in self.row_elements:
                return None
        return late

    def _row_elements_with(self, edges: Iterable[Edge], both: set[Group]) -> set[Node]:
        found: set[Node] = set()
        stack = [edge for edge in edges if edge.root.node in self.row_elements]
        while stack:
            user = stack.pop().user
            if user in found or is_reduction(user) or not one_element(user.types[0].shape):
                continue
            found.add(user)
            stack += [e for e in self.roles.readers[user] if self.of.get(e.user) in both]
        return found

    def _unite(self, a: Group, b: Group, domain: Domain, operands: set[Node]) -> None:
        into, gone = (a, b) if len(a.members) >= len(b.members) else (b, a)
        into.domain, into.operands = domain, operands
        into.members += gone.members
        into.mask |= gone.mask
        into.ancestors = (into.ancestors | gone.ancestors) & ~into.mask
        for node in gone.members:
            self.of[node] = into
        for producer in gone.producers:
            producer.consumers.discard(gone)
            producer.consumers.add(into)
        for consumer in gone.consumers:
            consumer.producers.discard(gone)
            consumer.producers.add(into)
        into.producers = (into.producers | gone.producers) - {into, gone}
        into.consumers = (into.consumers | gone.consumers) - {into, gone}
        self.spread(into)

    def spread(self, group: Group) -> None:
        """Tell every group behind `group` what is before it now."""
        stack = [group]
        while stack:
            current = stack.pop()
            above = current.ancestors | current.mask
            for consumer in current.consumers:
                if above & ~consumer.ancestors:
                    consumer.ancestors |= above
                    stack.append(consumer)


def _in_epilogue(node: Node, domain: Domain) -> bool:
    """Whether a contraction kernel can hold the node."""
    return isinstance(node.op.lowering, (Contraction, Elementwise)) and node.types[0].shape == domain.full


def is_reduction(node: Node) -> bool:
    """Whether the node folds axes away."""
    return isinstance(node.op.lowering, (Reduction, ArgReduction))
