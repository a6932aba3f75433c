"""Which kernels hand on matrices of one shape: the families that `join_blocks` joins, and their stages.

Enter at `families`. A family grows from a kernel with a reduction over one axis: the kernels that make or read a
*matrix*, a value of the shape that is reduced. docs/design/blocks.md says what is joined and when that pays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from graphc.graph import Graph, Node, Value
from graphc.ops.lowering import Elementwise, Movement, Reduction
from graphc.passes.blocks_shape import product_axis
from graphc.passes.domain import COLUMN, SCALAR, ContractionShape, KernelShape, RowsShape
from graphc.types import Shape, product

SMALL = 1 << 20  # bytes: smaller matrices are in the cache anyway
LEAST = 16  # rows and columns
MOST_INNER = 1024  # of the inner axis of a product that makes a matrix, and of the columns of one that reads it
CHEAP_INNER = 256  # up to this inner axis, computing a product again costs less than storing it
LONG = 2048  # columns from which on a matrix is not stored even so

ENTERING, ROWS, ROW_SUM, COLUMN_SUM = "entering", "rows", "row product", "column product"


@dataclass
class Family:
    """full: the shape of the matrices; column: the axis that is reduced; kinds: what each kernel of the family is.

    stages: the kernels by stage. A stage needs something from outside of the family that an earlier one is needed for.
    """

    full: Shape
    column: int
    matrices: set[Value] = field(default_factory=set)
    kinds: dict[Node, str] = field(default_factory=dict)
    stage: dict[Node, int] = field(default_factory=dict)

    @property
    def row(self) -> int:
        return 2 * len(self.full) - 3 - self.column


def families(graph: Graph, shapes: Mapping[Node, KernelShape]) -> list[Family]:
    """The families of a graph of kernels that are worth joining. No kernel is in two."""
    users = graph.users()
    taken: set[Node] = set()
    found: list[Family] = []
    fitting: dict[tuple[Node, Shape, int], bool] = {}  # many seeds grow into the same kernels
    for node, shape in shapes.items():
        if node not in taken and isinstance(shape, RowsShape) and _may_seed(shape):
            family = _grown(node, shape, shapes, users, graph, fitting)
            if family is not None and not taken & set(family.kinds):
                taken |= set(family.kinds)
                found.append(family)
    return found


def _may_seed(shape: RowsShape) -> bool:
    rank = len(shape.full)
    if not shape.reductions or len(shape.reduced) != 1 or rank < 2 or shape.reduced[0] < rank - 2:
        return False
    if any(isinstance(size, int) and size < LEAST for size in shape.full[-2:]):
        return False
    size = product(shape.full)
    return not isinstance(size, int) or 4 * size > SMALL


def _grown(
    seed: Node,
    shape: RowsShape,
    shapes: Mapping[Node, KernelShape],
    users: Mapping[Value, list[Node]],
    graph: Graph,
    fitting: dict[tuple[Node, Shape, int], bool],
) -> Family | None:
    """The family around a rows kernel; None if a part of it is none, or a matrix is needed elsewhere.

    `fitting` keeps what `_fits` said of a kernel and the matrices of a family.
    """
    family = Family(shape.full, shape.reduced[0])
    outputs = set(graph.outputs)
    seen: set[Node] = set()
    stack = [seed]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        asked = node, family.full, family.column
        if asked not in fitting:
            fitting[asked] = _fits(shapes[node], family)
        if not fitting[asked]:
            return None
        if not _reads_matrix_only(node, shapes[node], family):
            made = [v for v in node.outputs if v.type.shape == family.full]
            if any(v in outputs or any(user not in shapes for user in users[v]) for v in made):
                return None
            family.matrices.update(made)
            stack += [user for v in made for user in users[v]]
            stack += [v.node for v in _read(node, shapes[node]) if v.type.shape == family.full and v.node in shapes]
    for node in [node for node in shapes if node in seen]:
        kind = _kind(node, shapes[node], family)
        if kind is None:
            return None
        family.kinds[node] = kind
    if not {ENTERING, ROWS} <= set(family.kinds.values()):
        return None
    _set_stages(family, graph)
    return family if _worth(family, shapes) else None


def _fits(shape: KernelShape, family: Family) -> bool:
    """Whether a kernel could be of the family."""
    if isinstance(shape, RowsShape):
        if shape.full != family.full or shape.reduced not in ((), (family.column,)) or shape.totals:
            return False
        found = set(shape.classes.values())
        return not found & {SCALAR, COLUMN} and all(_is_simple(v.node) for v in shape.classes)
    if not isinstance(shape, ContractionShape):
        return False
    plain = shape.matmul.op.name == "matmul" and shape.matmul.types[0].dtype.is_float
    return plain and all(_is_simple(v.node) for v in shape.classes if v.node is not shape.matmul)


def _is_simple(node: Node) -> bool:
    """Whether a node is one that kernels of blocks compute."""
    kind = node.op.lowering
    if isinstance(kind, Movement):
        return kind.inside is None
    return kind is None or isinstance(kind, (Elementwise, Reduction)) or node.op.name == "iota"


def _reads_matrix_only(node: Node, shape: KernelShape, family: Family) -> bool:
    """Whether a kernel is a product of a matrix, so that what it makes is none."""
    return isinstance(shape, ContractionShape) and bool(_sides(node, shape, family))


def _sides(node: Node, shape: ContractionShape, family: Family) -> list[int]:
    """The operands of the matmul that are matrices, maybe transposed."""
    outer = dict(zip(node.attrs["graph"].inputs, node.inputs, strict=True))
    return [n for n, v in enumerate(shape.matmul.inputs) if outer.get(_untransposed(v)) in family.matrices]


def _read(node: Node, shape: KernelShape) -> list[Value]:
    """The operands of a kernel that are no operands of its matmul."""
    if isinstance(shape, RowsShape):
        return list(node.inputs)
    assert isinstance(shape, ContractionShape)
    outer = dict(zip(node.attrs["graph"].inputs, node.inputs, strict=True))
    behind = {v for n in shape.epilogue for v in n.inputs}
    return [outer[p] for p in outer if p in behind]


def _untransposed(value: Value) -> Value:
    while value.op.name == "transpose":
        value = value.node.inputs[0]
    return value


def _kind(node: Node, shape: KernelShape, family: Family) -> str | None:
    """What a kernel is to the family whose matrices are known; None if it cannot be joined."""
    if not isinstance(shape, ContractionShape):
        return ROWS
    sides = _sides(node, shape, family)
    if not sides:
        inner = shape.matmul.inputs[0].type.shape[-1]
        known = isinstance(inner, int) and 0 < inner <= MOST_INNER
        reads = any(v in family.matrices for v in node.inputs if v not in _read(node, shape))
        return ENTERING if known and not reads and shape.full == family.full else None
    behind = any(v in family.matrices for v in _read(node, shape))
    if len(sides) > 1 or behind or not 0 < _made(shape, sides[0]) <= MOST_INNER:
        return None
    if any(v in family.matrices for v in node.outputs):
        return None
    summed = product_axis(shape.matmul.inputs[sides[0]], sides[0])
    return ROW_SUM if summed == family.column else COLUMN_SUM if summed == family.row else None


def _made(shape: ContractionShape, side: int) -> int:
    """The size of the axis that a product of a matrix, its operand number `side`, has from its other operand; or 0."""
    size = shape.full[-1] if side == 0 else shape.full[-2]
    return size if isinstance(size, int) else 0


def _set_stages(family: Family, graph: Graph) -> None:
    level: dict[Node, int] = {}
    for node in graph.order():
        found = 0
        for value in node.inputs:
            below = level[value.node]
            if value.node in family.kinds:
                inside = node in family.kinds and family.kinds[value.node] in (ENTERING, ROWS)
                below += not inside
            found = max(found, below)
        level[node] = found
    family.stage = {node: level[node] for node in family.kinds}


def _worth(family: Family, shapes: Mapping[Node, KernelShape]) -> bool:
    """Whether a row of a matrix is worth more than what it is made of, and that is cheap or the row too long to store.

    And some matrix or product waits for a reduction: nothing else keeps kernels apart that would be one.
    """
    entering, made = 0, 0
    for node, kind in family.kinds.items():
        shape = shapes[node]
        if isinstance(shape, ContractionShape):
            inner = shape.matmul.inputs[0].type.shape[-1]
            if kind == ENTERING and isinstance(inner, int):
                entering = max(entering, inner)
            elif kind != ENTERING:
                made = max(made, _made(shape, _sides(node, shape, family)[0]))
    columns = family.full[family.column]
    short = isinstance(columns, int) and columns < LONG
    if short and (max(entering, made) > CHEAP_INNER or columns < entering + made):  # type: ignore[operator]
        return False
    return any(_feeds_back(node, shapes[node], family) for node in family.kinds)


def _feeds_back(node: Node, shape: KernelShape, family: Family) -> bool:
    """Whether a kernel makes a matrix or a product from values of one row, its own or another kernel's."""
    if not isinstance(shape, RowsShape):
        rows = {v for n, kind in family.kinds.items() if kind == ROWS for v in n.outputs} - family.matrices
        return any(v in rows for v in node.inputs)
    behind: set[Value] = {Value(n) for n in shape.reductions}
    for inner in node.attrs["graph"].order():
        if any(v in behind for v in inner.inputs):
            behind.update(inner.outputs)
    return any(v in behind for v in node.attrs["graph"].outputs if v.type.shape == family.full)
