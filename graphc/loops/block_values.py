"""What a kernel of blocks keeps in scratch, and when: the steps of a block and the slots that its values share.

Enter at `plan_values`. The steps of a block are the entering products, then a loop over the columns for each stage of
dependent reductions, then one that stores what the products read, then the products. A value that a step needs and an
earlier one has computed is in a slot of scratch, of which there are as few as the lives of the values allow: a loop
may store a value in the slot of one that it reads last, since it reads an element before it stores it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from graphc.graph import Graph, Node, Value
from graphc.loops.keep import LoopPlan, plan_loops
from graphc.ops.lowering import Elementwise, Reduction
from graphc.passes.blocks_shape import BlocksShape, Product
from graphc.passes.domain import FULL, VIEW


@dataclass(frozen=True)
class BlockValues:
    """leaves: what the epilogue of an entering product stores. stages: the reductions, by how many they depend on.

    loops: the plan of each stage's loop, then that of the storing one. reads, stores: the values that a loop loads
    from slots and puts there. slots: the number of the slot of each value; count: how many there are.
    """

    leaves: dict[Node, Value]
    stages: list[list[Node]]
    loops: list[LoopPlan]
    reads: list[list[Value]]
    stores: list[list[Value]]
    slots: dict[Value, int]
    count: int


def plan_values(
    graph: Graph, shape: BlocksShape, stages: list[list[Node]], products: Iterable[Product]
) -> BlockValues:
    """The steps and slots for these stages of reductions and products, of all or of some of a kernel's."""
    users = graph.users()
    outputs = set(graph.outputs)
    leaves = {node: _leaf(Value(node), users, outputs, shape) for node in shape.entering}
    stored = set(leaves.values())
    wanted = list(dict.fromkeys(product.source for product in products))
    roots = [[node.inputs[0] for node in stage] for stage in stages] + [wanted]

    def computed(value: Value) -> bool:
        return shape.classes[value] == FULL and value not in stored

    loops = plan_loops([[v for v in values if v not in stored] for values in roots], computed, keep=True)
    stores = [list(loop.stores) for loop in loops]
    kept = {v for values in stores for v in values}
    stores[-1] += [v for v in wanted if v not in stored and v not in kept]
    reads = [_reads(values, set(loop.reads), stored, shape) for values, loop in zip(roots, loops, strict=True)]
    if not stores[-1]:
        reads[-1] = []
    used = {v for values in [*reads, wanted] for v in values}
    leaves = {node: leaf for node, leaf in leaves.items() if leaf in used}
    slots = _slots(list(leaves.values()), reads, stores, wanted)
    return BlockValues(leaves, stages, loops, reads, stores, slots, len(set(slots.values())))


def _leaf(value: Value, users: dict[Value, list[Node]], outputs: set[Value], shape: BlocksShape) -> Value:
    """The last value of the elementwise chain behind an entering product that needs views besides it and no more."""
    while value not in outputs and len(users.get(value, [])) == 1:
        (user,) = users[value]
        others = [v for v in user.inputs if v != value]
        if not isinstance(user.op.lowering, Elementwise) or any(shape.classes[v] != VIEW for v in others):
            break
        if len(user.types) > 1 or user.types[0].dtype != value.type.dtype:
            break
        value = Value(user)
    return value


def stages_of(graph: Graph, shape: BlocksShape) -> list[list[Node]]:
    """The reductions of a kernel by how many they depend on, one behind the other."""
    level: dict[Node, int] = {}
    stages: list[list[Node]] = []
    for node in graph.order():
        level[node] = max((level[v.node] for v in node.inputs), default=0)
        if isinstance(node.op.lowering, Reduction) and node in shape.reductions:
            if level[node] == len(stages):
                stages.append([])
            stages[level[node]].append(node)
            level[node] += 1
    return stages


def _reads(roots: list[Value], kept: set[Value], leaves: set[Value], shape: BlocksShape) -> list[Value]:
    """The values in slots that a loop needs for `roots`."""
    found: dict[Value, None] = {}
    seen: set[Value] = set()
    stack = list(roots)
    while stack:
        value = stack.pop()
        if value in seen or shape.classes[value] != FULL:
            continue
        seen.add(value)
        if value in leaves or value in kept:
            found[value] = None
        else:
            stack.extend(value.node.inputs)
    return list(found)


def _slots(
    leaves: list[Value], reads: list[list[Value]], stores: list[list[Value]], wanted: list[Value]
) -> dict[Value, int]:
    """A slot for each value, free again with the step that reads it last."""
    last: dict[Value, int] = {}
    for step, values in enumerate(reads):
        last.update(dict.fromkeys(values, step))
    last.update(dict.fromkeys(wanted, len(reads)))
    slots = {value: number for number, value in enumerate(dict.fromkeys(leaves))}
    holder = dict(enumerate(dict.fromkeys(leaves)))
    for step, values in enumerate(stores):
        for value in values:
            alike = [n for n, held in holder.items() if held.type.dtype == value.type.dtype]
            number = min((n for n in alike if last.get(holder[n], -1) <= step), default=len(holder))
            slots[value], holder[number] = number, value
    return slots
