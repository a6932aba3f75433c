"""Reading assembly: the innermost loops of a function, and what in them should not be there.

Understands x86-64 (AT&T) and AArch64 as LLVM prints them. Enter at `innermost_loops`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

BRANCH = re.compile(r"^\s(?:j[a-z]+|b|b\.[a-z]+|cbn?z\s+\w+,|tbn?z\s+\w+, #\d+,)\s+(\.L\w+)\s*$")
WIDE = {"avx512": r"%zmm\d", "avx2": r"%ymm\d", "sse2": r"%xmm\d", "neon": r"\bv\d+\.\d\d?[bhsd]\b|\bq\d"}
VECTOR = re.compile(r"%[xyz]mm\d|\b[qvd]\d+\b")
STACK = re.compile(r"\(%rsp\)|\[sp\](?!, x)|\[sp, #")  # with an index register it is scratch, not a spill
# arithmetic of one float: on x86 the instructions that end in ss and sd, on AArch64 those of s and d registers
SCALAR = re.compile(
    r"^\sv?(?:add|sub|mul|div|sqrt|max|min|fn?m(?:add|sub)\d*|ucomi|comi)s[sd]\s"
    r"|^\sf(?:add|sub|mul|div|sqrt|max|min|maxnm|minnm|n?madd|n?msub|cmp)\s+[sd]\d"
)
CALL = re.compile(r"^\s(?:call\w*|bl|blr)\s")


@dataclass(frozen=True)
class Loop:
    """The instructions between the label of an innermost loop and the branch back to it."""

    label: str
    lines: tuple[str, ...]

    @cached_property
    def spills(self) -> list[str]:
        """Vectors that go to the stack or come from there."""
        return [line for line in self.lines if STACK.search(line) and VECTOR.search(line)]

    @cached_property
    def scalars(self) -> list[str]:
        return [line for line in self.lines if SCALAR.search(line)]

    @cached_property
    def calls(self) -> list[str]:
        return [line for line in self.lines if CALL.search(line)]

    def wide(self, target: str) -> bool:
        """Whether it works on whole registers of the target."""
        return any(re.search(WIDE[target], line) for line in self.lines)


def innermost_loops(assembly: str) -> list[Loop]:
    """The natural loops that hold no other: of a branch back to a block that all ways to the branch lead through.

    A loop that calls a function of the same text holds the loops of that. What any loop calls from elsewhere is listed.

    A block out of line that jumps back into the middle (a lane of a masked load, on targets without those) is no loop.
    """
    import networkx as nx

    found = []
    own = set(re.findall(r"^(\w[\w.]*):", assembly, flags=re.M))
    for function in re.split(r"^(?=\w[\w.]*:\s)", assembly, flags=re.M):
        blocks, graph = _blocks(function)
        if not blocks:
            continue
        above = nx.immediate_dominators(graph, next(iter(blocks)))
        loops = {}
        for source, head in graph.edges:
            if source in above and _leads_through(above, source, head):
                loops[head] = loops.get(head, {head}) | _members(graph, head, source)
        for head, members in loops.items():
            if not any(other in members for other in loops if other != head):
                loop = Loop(head, tuple(line for name in blocks if name in members for line in blocks[name]))
                if not loop.calls or {line.split()[-1] for line in loop.calls} - own:
                    found.append(loop)
    return found


def _blocks(function: str) -> tuple[dict[str, list[str]], Any]:
    """The basic blocks by label, in the order of the text, and the graph of where each may go on."""
    import networkx as nx

    blocks: dict[str, list[str]] = {}
    graph = nx.DiGraph()
    name = ""
    for raw in function.splitlines():
        line = re.split(r"\s+(?:# |//)", raw)[0].rstrip()
        label = re.match(r"^([\w.$]+):", line)
        if label:
            if name in blocks and not _ends(blocks[name]):
                graph.add_edge(name, label.group(1))
            name = label.group(1)
            blocks[name] = []
        elif line.startswith("\t") and not line.startswith("\t.") and name:
            if blocks[name] and BRANCH.match(blocks[name][-1]):  # the way on behind a branch is a block of its own
                after = f"{name}+"
                if not _ends(blocks[name]):
                    graph.add_edge(name, after)
                name = after
                blocks[name] = []
            blocks[name].append(line)
            branch = BRANCH.match(line)
            if branch:
                graph.add_edge(name, branch.group(1))
    graph.add_nodes_from(blocks)
    return blocks, graph


def _ends(block: list[str]) -> bool:
    """Whether nothing runs on from the end of the block to the next line."""
    return bool(block) and re.match(r"^\s(?:jmp|b|ret\w*)(?:\s|$)", block[-1]) is not None


def _leads_through(above: dict[str, str], block: str, head: str) -> bool:
    while block != head:
        if above.get(block) in (None, block):
            return False
        block = above[block]
    return True


def _members(graph: Any, head: str, source: str) -> set[str]:
    """What can reach the branch at `source` without passing `head`."""
    found, stack = {head, source}, [source] if source != head else []
    while stack:
        for before in graph.predecessors(stack.pop()):
            if before not in found:
                found.add(before)
                stack.append(before)
    return found
