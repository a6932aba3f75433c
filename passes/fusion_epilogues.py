"""Which epilogues fusion takes apart again: those that store more than they save.

Behind a product, what an epilogue computes need not read the product again: an array less to write and to read. But
what it reads and stores of its own it touches in short pieces of rows, tile by tile, which costs a good part of that.
Enter at `take_apart`, when the groups have grown:

- An epilogue of many results is a kernel of rows.
- So is one that touches as many arrays, if a kernel of rows that folds its results can be that one: a bias gradient.
- Nodes that one kernel of rows reads, and nothing else, run there if fewer values are stored for it then: the slopes
  of a layer norm use a product three times, scaled in three ways.

`python benchmarks/stacked_rows.py` measures the three.
"""

from __future__ import annotations

from graphc.graph import Node
from graphc.ops.lowering import Contraction
from graphc.passes.domain import one_element
from graphc.passes.fusion_groups import Domain, Group, Groups
from graphc.passes.fusion_roles import Roles
from graphc.types import product

# With four results of a GELU and its derivative 2 to 5 % are lost, with three nothing is gained or lost.
MOST_ARRAYS = 3


def take_apart(roles: Roles, groups: Groups) -> None:
    """Move nodes out of epilogues where that saves more than it costs."""
    for group in groups.all():
        if group.domain.kind != "contraction" or len(group.members) < 2 or one_element(group.domain.full):
            continue
        behind = [node for node in group.members if not isinstance(node.op.lowering, Contraction)]
        stored = _stored(group, groups, roles)
        many = len(stored) > MOST_ARRAYS
        moved = behind if many or _folded(group, behind, stored, groups, roles) else []
        moved = moved or _for_one_reader(group, stored, groups, roles)
        if moved and not _joined(_split(group, moved, groups, roles), groups) and not many:
            groups.merge(groups.of[moved[0]], group)


def _folded(group: Group, behind: list[Node], stored: list[Node], groups: Groups, roles: Roles) -> bool:
    """Whether an epilogue touches many arrays, and a kernel of rows folds what it computes."""
    full = group.domain.full
    size = product(full)
    roots = {edge.root for node in behind for edge in roles.edges[node] if edge.root.node not in group.members}
    if len(stored) + sum(root.type.size == size for root in roots) <= MOST_ARRAYS:
        return False
    readers = [groups.of.get(edge.user) for node in stored for edge in roles.readers[node]]
    domains = [reader.domain for reader in readers if reader is not None]
    return any(domain.kind == "rows" and domain.full == full and (domain.reduced or domain.total) for domain in domains)


def _joined(rows: Group, groups: Groups) -> bool:
    """Let a group of rows join those that read it; says whether one did."""
    first, found = rows.members[0], False
    for reader in sorted(rows.consumers, key=lambda other: other.mask & -other.mask):
        if reader.domain.kind == "rows" and groups.of[reader.members[0]] is reader:
            found |= groups.merge(groups.of[first], reader)
    return found


def _stored(group: Group, groups: Groups, roles: Roles, without: frozenset[Node] = frozenset()) -> list[Node]:
    """The members of a group that it stores, if it were without some of them."""
    kept = [node for node in group.members if node not in without]

    def read(node: Node) -> bool:
        users = (edge.user for edge in roles.readers[node])
        return any(groups.of.get(user) is not group or user in without for user in users)

    return [node for node in kept if read(node) or any(value in roles.outputs for value in node.outputs)]


def _for_one_reader(group: Group, stored: list[Node], groups: Groups, roles: Roles) -> list[Node]:
    """The nodes that only one other kernel needs, if they should be computed there."""
    if len(stored) < 2:
        return []
    for reader in dict.fromkeys(groups.of.get(e.user) for node in stored for e in roles.readers[node]):
        if reader is None or reader is group or reader.domain.kind != "rows" or reader.domain.full != group.domain.full:
            continue
        found: set[Node] = set()
        for node in sorted(group.members, key=roles.rank.__getitem__, reverse=True):
            free = not isinstance(node.op.lowering, Contraction) and node not in roles.stored
            if free and all(e.user in found or groups.of.get(e.user) is reader for e in roles.readers[node]):
                found.add(node)
        if found and len(_stored(group, groups, roles, frozenset(found))) < len(stored):
            return [node for node in group.members if node in found]
    return []


def _split(group: Group, moved: list[Node], groups: Groups, roles: Roles) -> Group:
    """Move nodes of an epilogue, which nothing else in it reads, to a group of rows behind."""
    rows = groups.open(Domain("rows", group.domain.full), moved)
    group.members = [node for node in group.members if node not in set(moved)]
    for node in moved:
        groups.of[node] = rows
    around = {group, rows, *group.producers, *group.consumers}
    for each in (group, rows):
        each.operands = {e.root.node for n in each.members for e in roles.edges[n]} - set(each.members)
    for each in around:
        read = {groups.of[e.root.node] for n in each.members for e in roles.edges[n] if e.root.node in groups.of}
        each.producers = read - {each}
        each.consumers -= around
    for each in around:
        for producer in each.producers & around:
            producer.consumers.add(each)
    rows.ancestors = group.ancestors | group.mask
    for producer in rows.producers:
        rows.ancestors |= producer.ancestors | producer.mask
    groups.spread(rows)
    return rows
