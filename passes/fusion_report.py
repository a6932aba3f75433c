"""What fusion did, in plain words for GRAPHC_LOG=fusion: each kernel, and why a result goes through memory.

Enter at `told`. A reason comes from `Groups.refusal`, so it is the rule that refused, not a second opinion.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphc.graph import describe
from graphc.passes.fusion_groups import Domain, Group, Groups
from graphc.passes.fusion_roles import Roles
from graphc.types import Shape


def told(roles: Roles, groups: Groups) -> Iterator[str]:
    """A message for each kernel, and a line in it for each kernel that it hands a value to through memory."""
    for group in groups.all():
        lines = [f"{loops_of(group.domain)}: {' '.join(node.op.name for node in group.members)}"]
        users = [edge.user for node in group.members for edge in roles.readers[node] if edge.user in groups.of]
        for reader in dict.fromkeys(groups.of[user] for user in users):
            if reader is not group:
                lines.append(_stored(roles, groups, group, reader))
        yield "\n".join(dict.fromkeys(lines))


def loops_of(domain: Domain) -> str:
    """The loops of a kernel: `rows of [n,4], reduced over axis 1`."""
    if domain.kind == "contraction":
        return f"a matmul of {_text(domain.full)}"
    if domain.kind == "single":
        return f"alone, {_text(domain.full)}"
    axes = ", ".join(map(str, domain.reduced or ()))
    reduced = f", reduced over {'axes' if len(domain.reduced or ()) > 1 else 'axis'} {axes}" if axes else ""
    update = ", of updates" if domain.update else ""
    columns = ", with sums over columns" if domain.columns else ""
    return f"rows of {_text(domain.full)}{reduced}{', with a total' if domain.total else ''}{columns}{update}"


def _stored(roles: Roles, groups: Groups, group: Group, reader: Group) -> str:
    """Why the values that `reader` takes from `group` are stored."""
    edges = [e for node in group.members for e in roles.readers[node] if groups.of.get(e.user) is reader]
    value = describe(edges[0].root)
    values = value if len({e.root for e in edges}) == 1 else f"{value} and others"
    return f"{values} is stored for {edges[0].user.op.name}: {_reason(groups, group, reader)}"


def _reason(groups: Groups, group: Group, reader: Group) -> str:
    a, b = group.domain, reader.domain
    why = groups.refusal(group, reader)
    if why is None:
        return "one kernel could hold both, and would be no faster"
    if why != "their loops differ":
        return why
    if a.kind == b.kind == "contraction":
        return "a kernel holds one matmul"
    if "single" in (a.kind, b.kind):
        return f"{group.members[0].op.name if a.kind == 'single' else reader.members[0].op.name} runs alone"
    if a.update != b.update:
        return "updates of parameters run apart, so that they can be in place"
    return f"{why}: {loops_of(a)} against {loops_of(b)}"


def _text(shape: Shape) -> str:
    return f"[{','.join(map(str, shape))}]"
