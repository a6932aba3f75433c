"""A graph of kernel nodes becomes a Program: kernels are lowered, ordered into regions and bound to buffers.

Enter at `lower`. What is decided here, and printed by the Program: which kernels run together (regions), which updates
happen in place, how long each temporary lives. What a kernel does inside is `rows.py`, `matmul.py` or `scatter.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphc.bounds import bounds_of, divided
from graphc.graph import Graph, Node, Value, origin_of
from graphc.loops.aliases import free_reshapes
from graphc.loops.evaluate import Checks
from graphc.loops.ir import LoopKernel
from graphc.loops.kernel import Lowered
from graphc.loops.lower_rows import lower_rows
from graphc.loops.matmul import lower_contraction
from graphc.loops.matrices import lower_matrices
from graphc.loops.packed import wanted_packs, with_packs
from graphc.loops.prepack import Pack
from graphc.loops.printer import print_kernel
from graphc.loops.product_rows import lower_product_rows
from graphc.loops.program import Buffer, Check, Program, Task
from graphc.loops.regions import Placement, place_kernels
from graphc.loops.regroup import substituted
from graphc.loops.row_blocks import lower_blocks
from graphc.loops.scan import lower_scan
from graphc.loops.scatter import lower_scatter
from graphc.loops.sort import lower_sort
from graphc.ops.lowering import ScatterAdd
from graphc.passes.blocks_shape import BlocksShape
from graphc.passes.domain import (
    ContractionShape,
    MatricesShape,
    ScanShape,
    ScatterShape,
    SortShape,
    kernel_shape,
)
from graphc.passes.product_rows import ProductRowsShape
from graphc.target import Target
from graphc.text import canonical_text
from graphc.types import Dim, Size, TensorType, substitute, symbols


def lower(graph: Graph, target: Target, made: Callable[[LoopKernel], None] = lambda kernel: None) -> Program:
    """The Program of a graph whose nodes are sources and kernels (what `passes.pipeline.optimize` gives).

    `made` is told of each of the Program's kernels, in their order, before the next is lowered.
    """
    return _Lowering(graph, target, made).run()


@dataclass(frozen=True)
class _Known:
    """A kernel under its final name, what its sizes stand for, and what was asked about its operands, with answers."""

    name: str
    lowered: Lowered
    sizes: Mapping[str, Size]
    asked: Sequence[tuple[Pack, bool]]


class _Lowering:
    def __init__(self, graph: Graph, target: Target, made: Callable[[LoopKernel], None]) -> None:
        self.graph, self.target, self.made = graph, target, made
        self.free = free_reshapes(graph)
        self.plan: Placement = place_kernels(graph, self.free)
        self.inside, self.outside = divided(bounds_of(v.type.shape for v in graph.inputs))
        self.checks = Checks()
        self.buffers: dict[str, Buffer] = {}
        self.names: dict[Value, str] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.kernels: dict[str, LoopKernel] = {}  # by name
        self.alike: dict[Any, list[tuple[str, LoopKernel]]] = {}  # stem and parameters -> names, kernels without theirs
        self.known: dict[tuple[str, str], _Known] = {}  # name and text of an inner graph -> its kernel
        self.operands_of: dict[Node, Mapping[Value, Value]] = {}  # kernel node -> inner placeholder -> outer value
        self.packed: dict[tuple[tuple[Value, ...], str], str] = {}  # operands, text of what packs it -> buffer
        self.ahead: dict[int, list[tuple[int, Task]]] = {}  # region -> what packs operands for it, and their regions
        self.wanted = wanted_packs(self.plan.order, lambda node: substituted(node.attrs["graph"], self.inside), target)

    def run(self) -> Program:
        self._name_sources()
        self._name_results()
        tasks = [[self._task(node, n) for node in nodes] for n, nodes in enumerate(self.plan.regions)]
        regions = with_packs(tasks, self.ahead, self.buffers)
        parameters = [v for v in self.graph.inputs if v.op.name == "parameter"]
        results = len(self.graph.results)
        updates = tuple(
            (self.names[p], self.names[v])
            for p, v in zip(self.graph.updates, self.graph.outputs[results:], strict=True)
        )
        return Program(
            name=self.graph.name,
            dims=tuple(sorted({s for v in self.graph.inputs for size in v.type.shape for s in symbols(size)})),
            buffers=self.buffers,
            kernels=self.kernels,
            regions=regions,
            inputs=tuple(self.names[v] for v in self.graph.inputs if v.op.name == "placeholder"),
            parameters=tuple(self.names[v] for v in parameters),
            outputs=tuple(self.names[v] for v in self.graph.results),
            updates=updates,
            checks=tuple(self._check(node) for node in self.checks.nodes),
            constants=self.constants,
        )

    # buffers

    def _add(self, stem: str, kind: str, type: TensorType, first: int = 0, last: int = 0) -> str:
        name, number = stem, 1
        while name in self.buffers:
            name, number = f"{stem}_{number}", number + 1
        self.buffers[name] = Buffer(name, type, kind, first, last)
        return name

    def _name_sources(self) -> None:
        kinds = {"placeholder": "input", "parameter": "parameter"}
        for value in self.graph.inputs:
            self.names[value] = self._add(value.node.attrs["name"], kinds[value.op.name], value.type)
        for node in self.graph.order():
            if node.op.name == "constant":
                self.names[Value(node)] = name = self._add("const", "constant", node.types[0])
                self.constants[name] = node.attrs["data"].array

    def _name_results(self) -> None:
        """Names in the order of preference: the parameter itself (in place), an output, a temporary."""
        for position, value in enumerate(self.graph.results):
            self.names[value] = self._add(f"out{position}", "output", value.type)
            if value.node in self.free:
                self.names[self.free[value.node]] = self.names[value]
        for parameter, value in zip(self.graph.updates, self.graph.outputs[len(self.graph.results) :], strict=True):
            if value in self.plan.in_place:
                self.names[value] = self.names[parameter]
            elif value not in self.names:
                last = len(self.plan.regions)
                self.names[value] = self._add(
                    f"{parameter.node.attrs['name']}.next", "temp", value.type, self.plan.region_of[value.node], last
                )
        for node in self.plan.order:
            for value in node.outputs:
                if value not in self.names:
                    first = self.plan.region_of[node]
                    stem = f"t{len(self.buffers)}"
                    self.names[value] = self._add(stem, "temp", value.type, first, self.plan.last_use.get(value, first))

    # kernels

    def _task(self, node: Node, region: int) -> Task:
        inner = substituted(node.attrs["graph"], self.inside)
        self.operands_of[node] = dict(zip(inner.inputs, node.inputs, strict=True))
        known = self._kernel(node, inner)
        name, lowered, kernel = known.name, known.lowered, known.lowered.kernel
        values = {**self.outside, **{n: substitute(size, self.outside) for n, size in known.sizes.items()}}
        partials = [
            self._add(f"{name}.part", "temp", TensorType(dtype, (substitute(size, values),)), region, region)
            for dtype, size in lowered.partials
        ]
        packed = [self._pack(pack, node, region) for pack in lowered.packs]
        buffers = [self.names[v] for v in (*node.inputs, *node.outputs)] + partials + packed
        sizes = tuple(substitute(size, values) for size in lowered.sizes)
        return Task(name, tuple(buffers), sizes, substitute(kernel.chunks, values))

    def _pack(self, pack: Pack, node: Node, region: int) -> str:
        """The buffer in which a region finds an operand packed, by a task of its own or by that of a region before."""
        operands = pack.operands(node)
        key = operands, print_kernel(pack.kernel)
        if key not in self.packed:
            name = self._shared(pack.kernel, pack.kernel.name, key[1])
            values = {**self.outside, **{n: substitute(size, self.outside) for n, size in pack.values.items()}}
            kind = TensorType(pack.dtype, (substitute(pack.size, self.outside),))
            sources = [self.names[operand] for operand in operands]
            buffer = self._add(f"{sources[0] if sources else name}.{pack.state}", "temp", kind, region, region)
            self.packed[key] = buffer
            sizes = tuple(substitute(Dim.symbol(size), values) for size in pack.kernel.sizes)
            task = Task(name, (*sources, buffer), sizes, substitute(pack.kernel.chunks, values))
            computed = max((self.plan.region_of.get(operand.node, -1) for operand in operands), default=-1)
            self.ahead.setdefault(region, []).append((computed, task))
        buffer = self.packed[key]
        self.buffers[buffer] = replace(self.buffers[buffer], last=region)
        return buffer

    def _kernel(self, node: Node, inner: Graph) -> _Known:
        """The kernel of a node. Equal layers have equal inner graphs, which are lowered once.

        Not those with checks, which tell their nodes apart, nor where other operands are to be packed.
        """

        def shared(pack: Pack) -> bool:
            texts = self.wanted.get(pack.operands(node))
            return texts is not None and texts[print_kernel(pack.kernel)] > 1

        key = (node.attrs["name"], canonical_text(inner))
        known = self.known.get(key)
        if known is not None and all(shared(pack) == answer for pack, answer in known.asked):
            return known
        asked: list[tuple[Pack, bool]] = []

        def noted(pack: Pack) -> bool:
            asked.append((pack, shared(pack)))
            return asked[-1][1]

        found = len(self.checks.nodes)
        lowered, sizes = self._lowered(node, inner, noted)
        for check in self.checks.nodes[found:]:
            self.operands_of[check] = self.operands_of[node]
        known = _Known(self._shared(lowered.kernel, *key), lowered, sizes, asked)
        if len(self.checks.nodes) == found:
            self.known[key] = known
        return known

    def _lowered(self, node: Node, inner: Graph, shared: Callable[[Pack], bool]) -> tuple[Lowered, Mapping[str, Size]]:
        shape = kernel_shape(inner)
        name: str = node.attrs["name"]
        if isinstance(shape, ContractionShape):
            return lower_contraction(name, inner, shape, self.target, self.checks, shared), {}
        if isinstance(shape, ProductRowsShape):
            return lower_product_rows(name, inner, shape, self.target, self.checks, shared), {}
        if isinstance(shape, BlocksShape):
            return lower_blocks(name, inner, shape, self.target, self.checks), {}
        if isinstance(shape, ScatterShape):
            return lower_scatter(name, inner, shape, self.target, self.checks), {}
        if isinstance(shape, ScanShape):
            return lower_scan(name, inner, shape, self.target, self.checks), {}
        if isinstance(shape, SortShape):
            return lower_sort(name, inner, shape, self.target, self.checks), {}
        if isinstance(shape, MatricesShape):
            return lower_matrices(name, inner, shape, self.target, self.checks), {}
        return lower_rows(name, inner, shape, self.target, self.checks)

    def _shared(self, kernel: LoopKernel, stem: str, origin: str) -> str:
        """The final name of a kernel: that of the one that exists already if it says the same.

        origin: the text of what it was made from, whose digest is in the name. Who shares a kernel calls it with sizes
        of his own: what packs an operand and a node's kernel may say the same.
        """
        kernel = replace(kernel, name=stem)
        alike = self.alike.setdefault((stem, kernel.buffers, kernel.sizes, kernel.chunks), [])
        for name, other in alike:
            if kernel == other:
                return name
        name = f"{stem}_{hashlib.sha256(origin.encode()).hexdigest()[:4]}"
        while name in self.kernels:
            name += "x"
        alike.append((name, kernel))
        self.kernels[name] = replace(kernel, name=name)
        self.made(self.kernels[name])
        return name

    def _check(self, node: Node) -> Check:
        """What to say when the check of a gather or scatter fails; its indices by name where they are an argument."""
        origin = origin_of(node)
        scatter = isinstance(node.op.lowering, ScatterAdd)
        axis = node.attrs["axis"]
        limit = node.types[0].shape[axis] if scatter else node.inputs[0].type.shape[axis]
        indices = node.inputs[-2] if scatter else node.inputs[1]
        operands = self.operands_of[node]
        while indices not in operands and indices.op.name == "reshape":
            indices = indices.node.inputs[0]
        outer = operands.get(indices)
        name = self.names.get(outer) if outer is not None else None
        return Check(node.op.name, origin.lines if origin else (), name, substitute(limit, self.outside))
