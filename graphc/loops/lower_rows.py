"""Which lowering a rows kernel gets: transposing squares, columns or rows. Enter at `lower_rows`."""

from __future__ import annotations

from collections.abc import Mapping

from graphc.graph import Graph
from graphc.loops import columns
from graphc.loops.evaluate import Checks
from graphc.loops.kernel import Lowered
from graphc.loops.merge_axes import merge_axes
from graphc.loops.regroup import regroup
from graphc.loops.rows import RowsLowering
from graphc.loops.transposes import TransposesLowering
from graphc.passes.domain import RowsShape, kernel_shape
from graphc.target import Target
from graphc.types import Size


def lower_rows(
    name: str, graph: Graph, shape: RowsShape, target: Target, checks: Checks
) -> tuple[Lowered, Mapping[str, Size]]:
    """The kernel, in its normal form where it has one, and what the names of sizes stand for that this made."""
    regrouped = regroup(graph, shape)
    values: Mapping[str, Size] = {}
    if regrouped is not None:
        graph, values = regrouped
    else:
        graph = merge_axes(graph, shape)
    again = kernel_shape(graph)
    assert isinstance(again, RowsShape)
    shape = again
    transposing = TransposesLowering(name, graph, shape, target, checks)
    if transposing.suits:
        return transposing.run(), values
    kind = columns.ColumnsLowering if columns.suits(shape, graph) else RowsLowering
    return kind(name, graph, shape, target, checks).run(), values
