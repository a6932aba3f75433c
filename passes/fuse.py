"""Fusion: the last pass, after which every node is a source or a `kernel(graph=..., name=...)`.

Enter at `fuse` (and `separate`, which runs in its place when fusion is switched off: one kernel for each node). The
steps: `Roles` says what must be stored at all, `_grow` merges each node into the groups that it reads, `_retry` and
`_siblings` merge what only later facts allow, `_place_scalars` finds a home for learning-rate corrections and step
counts, and `fusion_kernels.build` writes the kernels. What may be merged is said in `fusion_groups.joint`; what should
be merged, here, in `_wanted`.
"""

from __future__ import annotations

from graphc.graph import Graph, Node, Value
from graphc.observe import enabled, log
from graphc.ops.lowering import Elementwise
from graphc.passes.domain import one_element
from graphc.passes.fusion_epilogues import take_apart
from graphc.passes.fusion_groups import Domain, Group, Groups
from graphc.passes.fusion_kernels import build
from graphc.passes.fusion_report import told
from graphc.passes.fusion_roles import Edge, Roles
from graphc.types import product

# Scalar arithmetic that every reader may repeat: so few nodes of such ops cost less than a dependency between kernels.
CHEAP_SCALARS = frozenset({"add", "subtract", "multiply", "negative", "cast", "where", "minimum", "maximum", "reshape"})
MOST_CHEAP = 4
LARGE = 1 << 20  # bytes of a gradient that are worth not to be written and read again
MOST_STREAMS = 2  # arrays that an update changes; with three (Adam), their way through the cache costs what is saved
MOST_SIBLINGS = 9  # of the kernels that read a value, those that are tried


def fuse(graph: Graph) -> Graph:
    """The graph as few kernels. The results are the same to the bit (as the NumPy references compute them)."""
    roles = Roles(graph)
    groups = Groups(roles)
    _grow(roles, groups)
    _retry(groups)
    take_apart(roles, groups)
    _siblings(roles, groups)
    _columns(roles, groups)
    _hand_over(roles, groups)
    hosted = _place_scalars(roles, groups)
    result = build(roles, groups, hosted)
    if enabled("fusion"):
        for message in told(roles, groups):
            log("fusion", message)
    return result


def separate(graph: Graph) -> Graph:
    """The graph with a kernel for each node that is stored."""
    roles = Roles(graph)
    groups = Groups(roles)
    for node in roles.members:
        groups.add(node)
    return build(roles, groups, roles.scalars)


def _grow(roles: Roles, groups: Groups) -> None:
    """Put each member, in order, into one group with as many of its producers as it can join."""
    for node in roles.members:
        if node in roles.scalars:
            continue
        groups.add(node)
        roots = {groups.of[e.root.node]: e.root.node for e in roles.edges[node] if e.root.node in groups.of}
        for root in [roots[group] for group in sorted(roots, key=_preference)]:
            producer = groups.of[root]
            if producer is not groups.of[node] and _wanted(node, producer, roles):
                groups.merge(groups.of[node], producer)


def _preference(group: Group) -> int:
    """Rows with a reduction first: what reads their result can be in no other kernel. Contractions last."""
    if group.domain.kind == "contraction":
        return 2
    return 0 if group.domain.reduced is not None or group.domain.total else 1


def _wanted(node: Node, producer: Group, roles: Roles) -> bool:
    """Whether `node` gains from being in the kernel that computes its operand."""
    if producer.domain.kind == "contraction":
        return isinstance(node.op.lowering, Elementwise) and node not in roles.towards_reduction
    return not _only_scalars(producer.domain) or one_element(node.types[0].shape)


def _only_scalars(domain: Domain) -> bool:
    return domain.kind == "rows" and one_element(domain.full) and domain.reduced is None and not domain.total


def _retry(groups: Groups) -> None:
    """Merge rows along edges that were refused before a reduction fixed the rows of one side."""
    for group in groups.all():
        if group.domain.kind != "rows" or groups.of[group.members[0]] is not group:
            continue
        for consumer in sorted(group.consumers, key=lambda g: g.mask & -g.mask):
            current = groups.of[group.members[0]]
            rows = consumer.domain.kind == "rows" and not _only_scalars(current.domain)
            if rows and groups.of[consumer.members[0]] is consumer:
                groups.merge(current, consumer)


def _siblings(roles: Roles, groups: Groups) -> None:
    """Merge rows that read the same full value: it is loaded once for all."""
    readers: dict[Value, list[Edge]] = {}
    for node in roles.members:
        if node not in roles.scalars:
            for edge in roles.edges[node]:
                if not edge.chain and not one_element(edge.root.type.shape):
                    readers.setdefault(edge.root, []).append(edge)
    for value, edges in readers.items():
        found: list[Node] = []  # one reader of each group that reads the value in full
        for edge in edges:
            group = groups.of[edge.user]
            if group.domain.kind != "rows" or group.domain.full != value.type.shape:
                continue
            if not any(groups.of[other] is group or groups.merge(groups.of[other], group) for other in found[-8:]):
                found.append(edge.user)


def _columns(roles: Roles, groups: Groups) -> None:
    """Sums over columns ride in the kernel of rows that computes or reads the same full values: one pass for both."""
    readers: dict[Value, list[Node]] = {}
    for node in roles.members:
        if node not in roles.scalars:
            for edge in roles.edges[node]:
                readers.setdefault(edge.root, []).append(node)
    for columns in groups.all():
        full = columns.domain.full
        if columns.domain.kind != "rows" or columns.domain.reduced is None:
            continue
        roots = {edge.root: None for node in columns.members for edge in roles.edges[node] if not edge.chain}
        found: dict[Group, None] = {}
        for root in roots:
            if root.type.shape == full:
                around = [root.node, *readers[root]]
                found.update(dict.fromkeys(groups.of[node] for node in around[:MOST_SIBLINGS] if node in groups.of))
        candidates = (rows for rows in found if rows is not columns and rows.domain.kind == "rows")
        any(groups.merge_columns(rows, columns) for rows in candidates)


def _hand_over(roles: Roles, groups: Groups) -> None:
    """A large gradient that only the update of its parameter reads is applied where it is computed, never stored."""
    for group in groups.all():
        if group.domain.kind != "contraction" or not _is_large(group):
            continue
        readers = {edge.user for node in group.members for edge in roles.readers[node]} - set(group.members)
        around = {groups.of[user] for user in readers if user in groups.of}
        stored = any(value in roles.outputs for node in group.members for value in node.outputs)
        if len(around) == 1 and not stored:
            update = around.pop()
            changed = [value for node in update.members for value in node.outputs if value in roles.outputs]
            if len(changed) <= MOST_STREAMS:
                groups.hand_over(group, update)


def _is_large(group: Group) -> bool:
    size = product(group.domain.full)
    itemsize = group.members[0].types[0].dtype.itemsize
    return isinstance(size, int) and size * itemsize >= LARGE


def _place_scalars(roles: Roles, groups: Groups) -> set[Node]:
    """Decide which kernel computes which scalar; gives those that are stored. Each reader repeats the others."""
    readers: dict[Node, set[Group]] = {}
    for node, group in groups.of.items():
        for edge in roles.edges[node]:
            if edge.root.node in roles.scalars:
                readers.setdefault(edge.root.node, set()).add(group)
    hosted: set[Node] = set()
    for node in roles.members:
        if node in roles.scalars:
            around = readers.get(node, set())
            repeats = all(group.domain.kind != "contraction" for group in around)  # an epilogue has no scalars
            needed = not repeats or (len(around) > 1 and not _is_cheap(node, roles))
            if node in roles.stored or needed:
                hosted.add(node)
    if not hosted:
        return hosted
    inside = _closure(hosted, roles)
    host = _host({group for node in hosted for group in readers.get(node, ())}, groups)
    if host is None:
        host = Group(Domain("rows", ()), [], 0)
    host.members += [node for node in roles.members if node in inside]
    for node in inside:
        groups.of[node] = host
    return hosted


def _is_cheap(node: Node, roles: Roles) -> bool:
    inside: set[Node] = {node}
    stack = [node]
    while stack:
        current = stack.pop()
        if current.op.name not in CHEAP_SCALARS or len(inside) > MOST_CHEAP:
            return False
        below = {edge.root.node for edge in roles.edges[current]} & roles.scalars
        stack += below - inside
        inside |= below
    return True


def _closure(nodes: set[Node], roles: Roles) -> set[Node]:
    """`nodes` and the scalars that they follow from."""
    found, stack = set(nodes), list(nodes)
    while stack:
        below = {edge.root.node for edge in roles.edges[stack.pop()]} & roles.scalars
        stack += below - found
        found |= below
    return found


def _host(readers: set[Group], groups: Groups) -> Group | None:
    """The earliest kernel with a total (so it has a finish) that no reader of the scalars comes before."""
    hosts = [group for group in groups.all() if group.domain.kind == "rows" and group.domain.total]
    for host in sorted(hosts, key=lambda group: group.ancestors.bit_count()):
        if not any(reader.mask & host.ancestors for reader in readers if reader is not host):
            return host
    return None
