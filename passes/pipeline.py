"""The passes of a compilation, in order, each with its reason.

Enter at `optimize`. To add a pass, write it as a function Graph -> Graph in a file of its own and give it a line here.
"""

from __future__ import annotations

from graphc.graph import Graph
from graphc.observe import Observer
from graphc.passes.choose_layouts import choose_layouts
from graphc.passes.compute_copies import compute_copies
from graphc.passes.compute_operands import compute_operands
from graphc.passes.crop_products import crop_products
from graphc.passes.divide_late import divide_late
from graphc.passes.drop_marks import drop_marks
from graphc.passes.expand_products import expand_products
from graphc.passes.fold_constants import fold_constants
from graphc.passes.fuse import fuse, separate
from graphc.passes.join_blocks import join_blocks
from graphc.passes.join_rows import join_rows
from graphc.passes.lift_reshapes import lift_reshapes
from graphc.passes.manager import Pass, run
from graphc.passes.merge_duplicates import merge_duplicates
from graphc.passes.remove_dead import remove_dead
from graphc.passes.simplify import simplify
from graphc.passes.split_columns import split_columns
from graphc.passes.split_strides import split_strides
from graphc.passes.split_sums import split_sums
from graphc.passes.sum_lanes_last import sum_lanes_last
from graphc.passes.take_moments import take_moments
from graphc.passes.use_bounds import use_bounds
from graphc.passes.widen import widen
from graphc.stabilize import stabilize

# fmt: off
PASSES: tuple[Pass, ...] = (
    Pass("drop_marks", drop_marks, "only differentiation sees what checkpoint and custom_vjp mark", instead=drop_marks),
    Pass("use_bounds", use_bounds, "limits of named sizes decide how long slices are; before anything compares sizes"),
    Pass("stabilize", stabilize, "logarithms of sums of exponentials keep their digits; before rules hide their shape"),
    Pass("widen", widen, "narrow floats are stored, not computed with; always", instead=widen),
    Pass("crop_products", crop_products, "the gradient of a padded convolution is not wanted for the padding"),
    Pass("choose_layouts", choose_layouts, "channels fill vectors, lines seldom do; before passes that look at orders"),
    Pass("split_strides", split_strides, "a stride leaves zeros in a gradient: no work is done on them"),
    Pass("sum_lanes_last", sum_lanes_last, "lanes along a sum are lanes too; before it counts as one without columns"),
    Pass("split_sums", split_sums, "two threads read half of the images each, where reading is all there is to do"),
    Pass("expand_products", expand_products, "products with rows or columns only are sums, which rows do best"),
    Pass("simplify", simplify, "gradients leave negations, cuts and casts behind; scalars come out of broadcasts"),
    Pass("fold_constants", fold_constants, "what depends on no input is computed once, here"),
    Pass("simplify", simplify, "folded constants are ones and zeros that the rules know"),
    Pass("merge_duplicates", merge_duplicates, "a + b and b + a are one value"),
    Pass("remove_dead", remove_dead, "an update that changes nothing needs no kernel"),
    Pass("lift_reshapes", lift_reshapes, "rows of a product are computed on by rows, where its kernel can do it"),
    Pass("fuse", fuse, "memory is slow: what can stay in registers stays there", instead=separate),
    Pass("join_blocks", join_blocks, "a matrix between kernels that needs one block at a time need not be in memory"),
    Pass("divide_late", divide_late, "blocks of a softmax need not wait for its sums; results are shorter than rows"),
    Pass("take_moments", take_moments, "a variance need not wait for its mean, so that memory is read once for both"),
    Pass("split_columns", split_columns, "a sum over rows ends with the last row: what waits for it runs after it"),
    Pass("compute_operands", compute_operands, "what only a product reads is computed as it packs it, not stored"),
    Pass("compute_copies", compute_copies, "nor is what only a copy or a few windows read"),
    Pass("join_rows", join_rows, "rows of a product are in the first cache when they are complete"),
)
# fmt: on


def optimize(graph: Graph, observer: Observer | None = None) -> Graph:
    """A graph with the same results whose nodes are sources and kernels. InternalError if a pass breaks it."""
    return run(PASSES, graph, observer)
