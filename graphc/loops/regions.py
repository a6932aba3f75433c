"""When each kernel runs, and which updates happen in place.

Kernels go into the earliest region after their producers, those that recompute into the last one before their readers;
updates of parameters go last, together, so that one region walks all parameters of an optimiser and a failed check
stops the step before anything has changed. An update is in place where every other reader of the old value has run
before, and its own kernel reads the old value only at the element that it writes. Enter at `place_kernels`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphc.graph import RECOMPUTED, Graph, Node, Value, topological_order
from graphc.ops.lowering import Contraction, Elementwise, Gather, ScatterAdd


@dataclass(frozen=True)
class Placement:
    """order: kernel nodes as they run; regions: the same in groups; last_use: the region that reads a value last."""

    order: tuple[Node, ...]
    regions: tuple[tuple[Node, ...], ...]
    region_of: dict[Node, int]
    last_use: dict[Value, int]
    in_place: dict[Value, Value]  # an updated value -> the parameter whose memory it takes


def place_kernels(graph: Graph, free: Mapping[Node, Value]) -> Placement:
    """Regions and in-place updates of a graph of kernel nodes. free: those that never run, and what they read."""
    kernels = [node for node in graph.order() if node.op.name == "kernel"]
    targets = dict(zip(graph.outputs[len(graph.results) :], graph.updates, strict=True))
    updating = {v.node for v in targets}
    region_of: dict[Node, int] = {}
    for node in kernels:
        region_of[node] = max((region_of[v.node] + 1 for v in node.inputs if v.node in region_of), default=0)
    readers: dict[Node, list[Node]] = {}
    for node in kernels:
        for value in node.inputs:
            readers.setdefault(value.node, []).append(node)
    final = [node for node in kernels if node in updating and node not in readers]
    last = max((region_of[node] for node in kernels), default=0)
    changed = {parameter for value, parameter in targets.items() if value.node in final}
    before = [node for node in kernels if node not in final and (_has_checks(node) or changed & set(node.inputs))]
    if final:
        last = max([last, *(region_of[node] + 1 for node in before)])
    for node in final:
        region_of[node] = last
    for node in reversed(_recomputed(kernels)):  # not before it is needed
        if node in readers:
            region_of[node] = min(region_of[reader] for reader in readers[node]) - 1
    kernels = [node for node in kernels if node not in free]
    used = {n: position for position, n in enumerate(sorted({region_of[node] for node in kernels}))}
    region_of = {node: used[region_of[node]] for node in kernels}
    region_of.update({node: region_of[value.node] for node, value in free.items()})
    regions = [tuple(node for node in kernels if region_of[node] == n) for n in range(len(used))]
    order = tuple(node for region in regions for node in region)
    last_use = {v: region_of[node] for node in order for v in node.inputs if v.node in region_of}
    return Placement(order, tuple(regions), region_of, last_use, _in_place(graph, order, region_of, targets))


def _recomputed(kernels: list[Node]) -> list[Node]:
    """The kernels that compute again what `checkpoint` does not keep, and those that follow from nothing else."""
    found: dict[Node, None] = {}
    for node in kernels:
        producers = [v.node for v in node.inputs if v.node.op.name == "kernel"]
        again = any(inner.attrs.get(RECOMPUTED) for inner in node.attrs["graph"].order())
        if again or (producers and all(producer in found for producer in producers)):
            found[node] = None
    return list(found)


def _in_place(
    graph: Graph, order: tuple[Node, ...], region_of: dict[Node, int], targets: dict[Value, Value]
) -> dict[Value, Value]:
    results = set(graph.results)
    checked = max((region_of[node] for node in order if _has_checks(node)), default=-1)
    readers: dict[Value, list[Node]] = {}
    for node in order:
        for value in dict.fromkeys(node.inputs):
            readers.setdefault(value, []).append(node)
    chosen: dict[Value, Value] = {}
    for value, parameter in targets.items():
        writer = value.node
        if value in results or parameter in graph.outputs or region_of[writer] <= checked:
            continue
        others = [node for node in readers.get(parameter, []) if node is not writer]
        if any(region_of[node] >= region_of[writer] for node in others):
            continue
        if parameter.type == value.type and _reads_same_element(writer, parameter):
            chosen[value] = parameter
    return chosen


def _has_checks(node: Node) -> bool:
    return any(isinstance(inner.op.lowering, (Gather, ScatterAdd)) for inner in node.attrs["graph"].order())


def _reads_same_element(kernel: Node, parameter: Value) -> bool:
    """Whether the kernel is elementwise as far as `parameter` goes: each element of it is read where it is written."""
    inner: Graph = kernel.attrs["graph"]
    nodes = inner.order()
    operands = [p for p, v in zip(inner.inputs, kernel.inputs, strict=True) if v == parameter]
    products = [node for node in nodes if isinstance(node.op.lowering, Contraction)]
    before = set(topological_order(products))  # what they read, they read at other elements
    return all(
        isinstance(node.op.lowering, Elementwise) and node.types[0].shape == parameter.type.shape and node not in before
        for node in nodes
        if any(operand in node.inputs for operand in operands)
    )
