"""Which operands several contractions pack in the same way, and where the tasks that pack them run.

`wanted_packs` looks at all contractions before any is lowered; `with_packs` puts the tasks into regions afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from graphc.graph import Graph, Node, Value
from graphc.loops.matmul import packs_of
from graphc.loops.prepack import Pack
from graphc.loops.printer import print_kernel
from graphc.loops.program import Buffer, Region, Task
from graphc.ops.lowering import Contraction
from graphc.passes.domain import ContractionShape, kernel_shape
from graphc.passes.product_rows import ProductRowsShape
from graphc.target import Target


def wanted_packs(
    kernels: Sequence[Node], inside: Callable[[Node], Graph], target: Target
) -> dict[tuple[Value, ...], Counter[str]]:
    """How many contractions want an operand packed by a kernel of that text; of operands that several want packed.

    inside: the graph of a kernel node. Kernels that pack are made for those operands only.
    """
    contractions = [node for node in kernels if _contracts(node.attrs["graph"])]
    readers = Counter(value for node in contractions for value in dict.fromkeys(node.inputs))
    found: dict[tuple[Value, ...], list[Pack]] = {}
    for node in contractions:
        if any(readers[value] > 1 for value in node.inputs):
            graph = inside(node)
            shape = kernel_shape(graph)
            if isinstance(shape, ProductRowsShape):
                shape = shape.contraction
            if isinstance(shape, ContractionShape):  # kernels of blocks pack for themselves
                for pack in packs_of(graph, shape, target):
                    found.setdefault(pack.operands(node), []).append(pack)
    several = {operands: packs for operands, packs in found.items() if len(packs) > 1}
    return {operands: Counter(print_kernel(pack.kernel) for pack in packs) for operands, packs in several.items()}


def _contracts(graph: Graph) -> bool:
    return any(isinstance(node.op.lowering, Contraction) for node in graph.order())


def with_packs(
    regions: Sequence[list[Task]], ahead: Mapping[int, Sequence[tuple[int, Task]]], buffers: dict[str, Buffer]
) -> tuple[Region, ...]:
    """The regions with what packs operands for them, `ahead`: (region that computes the operand or -1, task).

    It runs in the region before, if that has the operand already, else in a region in between. The lives of temporary
    buffers are told in the regions that come out.
    """
    found: list[list[Task]] = []
    places: list[int] = []
    packed: dict[str, int] = {}
    for number, tasks in enumerate(regions):
        between: list[Task] = []
        for computed, task in ahead.get(number, ()):
            early = computed < number - 1
            (found[-1] if early and found else between).append(task)
            packed[task.buffers[-1]] = len(found) - 1 if early and found else len(found)
        found += [between, tasks] if between else [tasks]
        places.append(len(found) - 1)
    for name, buffer in buffers.items():
        if buffer.kind == "temp" and places:
            last = places[buffer.last] if buffer.last < len(places) else len(found)
            buffers[name] = replace(buffer, first=packed.get(name, places[buffer.first]), last=last)
    return tuple(Region(tuple(tasks)) for tasks in found)
