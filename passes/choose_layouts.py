"""Chains of channels-first convolutions are computed channels-last, and converted where the chain begins and ends.

    n c h+p w+q, o c p q -> n o h w        n h+p w+q c, p q c o -> n h w o

A tile of a convolution has its lanes along one label. Channels-first that is the width of an image, which seldom fills
whole vectors; channels-last it is the channels, which lie side by side for whole lines. Converting an array costs more
than one convolution gains, so a *group* is converted or left: convolutions, their gradients, and all ops between them
that treat axes alike (elementwise, broadcasts, slices, padding, concat, reductions). One forward walk finds the groups
and counts what each would gain and what its edges would cost (`_Plan`); a second one builds them (`_Mover`). Weights
stay as the user has them: a small copy of each in the order of its products is made. Enter at `choose_layouts`; the
numbers of the rule are the constants below, whose measurements are in docs/contraction.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple, TypeVar, cast

from graphc.build import Tensor, apply
from graphc.graph import Graph, Node, Value, make_node
from graphc.ops.convolution import Axis, Spec, contract, label_sizes, parse
from graphc.ops.lowering import Concat, Elementwise, Reduction
from graphc.ops.movement import reshape, transpose
from graphc.passes.domain import one_element
from graphc.passes.sum_lanes_last import are_long
from graphc.passes.windows import unspread
from graphc.types import Size

T = TypeVar("T")

LANES = 16  # of the widest vectors
COPY = 500.0  # nanoseconds that a conversion takes in any case: it is a kernel of its own
COPIED, COPIED_NEAR = 0.6, 0.3  # and for each element: 0.4 to 1, and of arrays in L2
ADDED = 0.018  # nanoseconds a multiply-add in full vectors
SAVED, SAVED_WINDOWS = 0.002, 0.004  # what is saved of them channels-last, even if lines fill their vectors: windows
SAVED_SUMS = 0.003  # and sums into them need no padded copy there, whose lines begin within cache lines
STRIDED = 0.006  # and where the steps of a window leave out elements of a line, whose vectors are packed
PACKED = 0.05  # by the rows of a sum into weights, which has all places of a line of the window for rows channels-last
FEW_ROWS = 8  # fewer leave the multipliers waiting, however the columns lie
SUMMED = 5.0  # nanoseconds for each of so many weights that their sums do not stay in L2 beside all else:
MANY = 1 << 17  # elements that do
MOST_LOST, MOST_SAVED = 0.015, 0.02  # a multiply-add: idle lanes cost less than their number where loads count too
SLICED, SLICED_SUMS = 0.015, 0.25  # what is saved of depthwise windows, and of some sums into them: shifted lines,
SLICED_IDLE, SLICED_STRIDED = 0.12, 0.12  # for each idle lane of a line, and where lines are read with gaps
# Of a product that stores what leaves a group channels-first itself: the most steps of a sum, with more of which a copy
# behind it costs no more; the fewest elements of a line; and of a result, less of which is copied from L2.
DIRECT_STEPS, DIRECT_LINE, DIRECT_MANY = 256, 12, 1 << 18
PER_AXIS = frozenset({"slice", "unslice"})  # movement whose attributes list the axes
LISTS = ("starts", "stops", "steps", "shape")


class Product(NamedTuple):
    """A `contract` of images: `images` are the positions of those operands, the axes of each are n, channel, ..."""

    spec: Spec
    images: tuple[int, ...]

    @property
    def channels(self) -> list[Axis]:
        """Of the weights, in the order that suits products: what is summed or belongs to windows, then columns."""
        if len(self.images) == 1:
            first, last = self.spec[self.images[0]][1], self.spec.out[1]
        else:
            windows = any(len(axis) > 1 for axis in self.spec.a)
            first, last = (self.spec.a[1], self.spec.b[1]) if windows else (self.spec.b[1], self.spec.a[1])
        return list(dict.fromkeys((first, last)))

    @property
    def needed(self) -> tuple[int, ...]:
        """The images that have to be channels-last. Slopes under a window are packed anyway, from any layout."""
        windowed = tuple(k for k in self.images if any(len(axis) > 1 for axis in self.spec[k]))
        return windowed if len(self.images) == 2 and len(self.channels) == 2 and windowed else self.images

    def weight_order(self) -> list[int]:
        """The axes of the weights, or of their gradient, in an order for products: taps, then channels."""
        axes = self.spec[1 - self.images[0]] if len(self.images) == 1 else self.spec.out
        channels = self.channels
        return sorted(range(len(axes)), key=lambda k: channels.index(axes[k]) if axes[k] in channels else -1)


def choose_layouts(graph: Graph) -> Graph:
    """The graph with each group of channels-first convolutions for which it pays computed channels-last."""
    products = {node: found for node in graph.order() if (found := product_of(node)) is not None}
    if not any(len(axis) > 1 for each in products.values() for axes in each.spec[:2] for axis in axes):
        return graph
    chosen = _Plan(graph, products).chosen()
    return _Mover(products, chosen).run(graph) if chosen else graph


def product_of(node: Node) -> Product | None:
    """The images of a `contract` whose second axis is channels; None if it is another one."""
    if node.op.name != "contract":
        return None
    spec = parse(node.attrs["spec"])
    labels = [{label for axis in axes for label, _ in axis} for axes in spec]
    for position in (0, 1):
        x, others = spec[position], labels[1 - position]
        if 3 <= len(x) == len(spec.out) and x[0] == spec.out[0] and _is_channel(x[1]) and x[0][0][0] not in others:
            places = all(out[0][0] in dict(axis) for axis, out in zip(x[2:], spec.out[2:], strict=True))
            weighted = x[1][0][0] in others and spec.out[1][0][0] in others
            if places and weighted and not any(out[0][0] in others for out in spec.out[2:]):
                return Product(spec, (position,))
    a, b, out = spec
    if 3 <= len(a) == len(b) and a[0] == b[0] and a[0] not in out and a[1] in out and b[1] in out:
        images = (*a[2:], *b[2:])
        places = all(dict(axis).keys() & dict(other).keys() for axis, other in zip(a[2:], b[2:], strict=True))
        if places and all(axis in (a[1], b[1]) or any(axis[0] in image for image in images) for axis in out):
            return Product(spec, (0, 1))
    return None


def _is_channel(axis: Axis) -> bool:
    return len(axis) == 1 and axis[0][1] == 1


def last_order(rank: int) -> tuple[int, ...]:
    """The axes of channels-first images in channels-last order."""
    return (0, *range(2, rank), 1)


def _count(shape: Sequence[Size]) -> int:
    """Elements, as far as they are known: a batch of unknown size counts as one image, for gain and cost alike."""
    count = 1
    for size in shape:
        count *= size if isinstance(size, int) else 1
    return count


def _is_carried(node: Node) -> bool:
    """Whether a node means the same for any order of axes, once its attributes follow them."""
    if len(node.types) != 1 or node.op.unique or node.op.effect != "none" or not node.inputs:
        return False
    if node.op.name == "broadcast_to":
        return node.inputs[0].type.rank == node.types[0].rank
    return isinstance(node.op.lowering, (Elementwise, Concat, Reduction)) or node.op.name in PER_AXIS


def _base(value: Value) -> Value:
    """What is converted in place of `value`: the array below slices, padding and broadcasts."""
    rank = value.type.rank
    while value.type.rank == rank and (value.op.name in PER_AXIS or value.op.name == "broadcast_to"):
        value = value.node.inputs[0]
    return value


class _Plan:
    """Which nodes would be computed channels-last, in groups, and whether that pays."""

    def __init__(self, graph: Graph, products: dict[Node, Product]) -> None:
        self.products = products
        self.parent: list[int] = []  # of groups: a forest in which joined groups have one root
        self.balance: list[float] = []  # nanoseconds gained
        self.group: dict[Value, int] = {}  # of the values that are there channels-last
        self.nodes: dict[Node, int] = {}
        self.edges: set[Value] = set()  # what is paid for
        for node in graph.order():
            self._visit(node)
        for value in graph.outputs:
            self._leave(value)

    def chosen(self) -> set[Node]:
        return {node for node, group in self.nodes.items() if self.balance[self._root(group)] > 0}

    def _visit(self, node: Node) -> None:
        product = self.products.get(node)
        images = node.inputs if product is None else tuple(node.inputs[position] for position in product.images)
        known = [self.group[value] for value in images if value in self.group]
        if product is None and not (known and _is_carried(node)):
            for value in node.inputs:
                self._leave(value)
            return
        group = self._joined(known)
        self.nodes[node] = group
        for value in node.inputs if product is None else [node.inputs[position] for position in product.needed]:
            if value not in self.group:
                self._pay(_base(value), group)
        if product is None:
            if node.types[0].rank == node.inputs[0].type.rank:
                self.group[Value(node)] = group
            return
        self.balance[group] += _gain(node, product)
        if len(product.images) == 1:
            self.group[Value(node)] = group
            self._pay(node.inputs[1 - product.images[0]], group)
        else:
            self._pay(Value(node), group)

    def _joined(self, groups: Sequence[int]) -> int:
        if not groups:
            self.parent.append(len(self.parent))
            self.balance.append(0.0)
            return self.parent[-1]
        first, *others = dict.fromkeys(map(self._root, groups))
        for other in others:
            self.parent[other] = first
            self.balance[first] += self.balance[other]
        return first

    def _root(self, group: int) -> int:
        while self.parent[group] != group:
            self.parent[group] = self.parent[self.parent[group]]
            group = self.parent[group]
        return group

    def _leave(self, value: Value) -> None:
        if value in self.group:
            self._pay(value, self._root(self.group[value]))

    def _pay(self, value: Value, group: int) -> None:
        if value not in self.edges and not one_element(value.type.shape):
            self.edges.add(value)
            self.balance[group] -= _price(_count(value.type.shape))


def _price(count: int) -> float:
    """Nanoseconds that so many elements take to be converted."""
    return COPY + (COPIED if count > MANY else COPIED_NEAR) * count


def _gain(node: Node, product: Product) -> float:
    """Nanoseconds that a product takes less channels-last; none where sizes that matter are not known."""
    spec, sums = product.spec, len(product.images) == 2
    sizes = label_sizes(spec, [value.type for value in node.inputs], node.attrs["shape"])
    channels = [sizes[axis[0][0]] for axis in product.channels]
    windows = [sizes[label] for axes in spec[:2] for axis in axes for label, _ in axis[1:]]
    extents = [sizes[axis[0][0]] for axis in (spec.a[2:] if sums else spec.out[2:])]
    line = extents[-1] if any(size != 1 for size in windows) else _count(extents)  # without windows all lines are one
    if not all(isinstance(size, int) for size in (line, *channels, *windows)):
        return 0.0
    steps = unspread(node.inputs[product.images[0]])[2]  # between them there are zeros, which are not multiplied
    work = _count(list(sizes.values())) / prod(steps)
    strided = prod(steps) > 1 or any(axis[0][1] != 1 for k in product.images for axis in spec[k][2:])
    if len(channels) < 2:
        if sums and not strided and are_long([sizes[axis[0][0]] for axis in (spec.a[0], *spec.a[2:-1])], windows):
            return 0.0  # `sum_lanes_last` makes lanes of the line
        saved = (SLICED_SUMS if sums else SLICED) + (SLICED_STRIDED if strided else 0.0)
        return (saved + SLICED_IDLE * (_idle(cast(int, line)) - 1)) * work
    if sums:
        saved = _saved_of_sums(cast(list[int], channels), cast(list[int], windows))
        many = _count(node.types[0].shape)
        return saved * work - (SUMMED * many if many > MANY else 0.0)
    saved = SAVED_WINDOWS if any(size != 1 for size in windows) else SAVED
    saved += ADDED * (_idle(-(-cast(int, line) // steps[-1])) - _idle(cast(int, channels[1])))
    return max(-MOST_LOST, min(saved + (STRIDED if strided else 0.0), MOST_SAVED)) * work


def _saved_of_sums(channels: Sequence[int], windows: Sequence[int]) -> float:
    """Of a multiply-add of a weight gradient: its rows are the fewer channels, or those of the window.

    Channels-first, slopes whose channels fill more lanes than those of the images are columns: packed once for all
    places of the window, as images are only channels-last.
    """
    if max(windows, default=1) == 1 or (channels[0] >= FEW_ROWS and _idle(channels[1]) < _idle(channels[0])):
        return 0.0
    return SAVED_SUMS + PACKED / max(min(channels), *windows)


def _idle(size: int) -> float:
    """Lanes for each of them that works."""
    return -(-size // LANES) * LANES / size if size else 1.0


class _Mover:
    """Builds the chosen nodes channels-last. Each has its channels-first version too, which lives if it is read."""

    def __init__(self, products: dict[Node, Product], chosen: set[Node]) -> None:
        self.products, self.chosen = products, chosen
        self.last: dict[Value, Tensor] = {}  # the channels-last version of values of the old graph

    def run(self, graph: Graph) -> Graph:
        self.users = graph.users()

        def visit(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
            if node not in self.chosen:
                return None
            product = self.products.get(node)
            result = self._carried(node, inputs) if product is None else self._product(node, product, inputs)
            return [result.ref]

        return graph.rewrite(visit)

    def _product(self, node: Node, product: Product, inputs: tuple[Value, ...]) -> Tensor:
        operands, axes = [Tensor(value) for value in inputs], list(product.spec)
        for position in product.images:
            if position in product.needed or node.inputs[position] in self.last:
                operands[position] = self._version(node.inputs[position], inputs[position])
                axes[position] = _ordered(axes[position], last_order(len(axes[position])))
        order = product.weight_order()
        if len(product.images) == 2:
            shape = _ordered(node.attrs["shape"], order)
            of_weights = contract(Spec(axes[0], axes[1], _ordered(axes[2], order)), operands[0], operands[1], shape)
            return transpose(of_weights, _inverse(order))
        side = 1 - product.images[0]
        direct = self._leaves(node, product)
        operands[side], axes[side] = _copied(operands[side], order), _ordered(axes[side], order)
        if direct:
            return contract(Spec(*axes), operands[0], operands[1], node.attrs["shape"])
        order = list(last_order(len(axes[2])))
        turned = Spec(axes[0], axes[1], _ordered(axes[2], order))
        return self._first(node, contract(turned, operands[0], operands[1], _ordered(node.attrs["shape"], order)))

    def _leaves(self, node: Node, product: Product) -> bool:
        """Whether a product stores its result channels-first itself, as nothing else of the group reads it.

        It transposes lines, which have to fill squares, and does little else, so that a copy would count.
        """
        if not self.chosen.isdisjoint(self.users.get(Value(node), ())):
            return False
        sizes = label_sizes(product.spec, [value.type for value in node.inputs], node.attrs["shape"])
        out = [axis[0][0] for axis in product.spec.out]
        window = any(len(axis) > 1 and sizes[axis[1][0]] != 1 for axis in product.spec[product.images[0]][-1:])
        steps = [size for label, size in sizes.items() if label not in out]
        line, channels = sizes[out[-1]], sizes[out[1]]
        if not all(isinstance(size, int) for size in (line, channels, *steps)) or len(product.channels) < 2:
            return False
        few = prod(cast(list[int], steps)) <= DIRECT_STEPS and _count(node.types[0].shape) > DIRECT_MANY
        return window and few and cast(int, line) >= DIRECT_LINE and cast(int, channels) >= LANES

    def _carried(self, node: Node, inputs: tuple[Value, ...]) -> Tensor:
        operands = [self._version(old, new) for old, new in zip(node.inputs, inputs, strict=True)]
        order = last_order(node.inputs[0].type.rank)
        result = _along(node, operands, order)
        if isinstance(node.op.lowering, Reduction) and not node.attrs["keepdims"]:
            kept = [axis for axis in order if axis not in node.attrs["axes"]]
            return transpose(result, [kept.index(axis) for axis in sorted(kept)])
        return self._first(node, result)

    def _first(self, node: Node, result: Tensor) -> Tensor:
        self.last[Value(node)] = result
        return transpose(result, _inverse(last_order(result.ndim)))

    def _version(self, old: Value, new: Value) -> Tensor:
        """The channels-last version of a value, converted below its padding, cuts and broadcasts if there is none."""
        if old not in self.last:
            rank, above = new.type.rank, []
            while new.type.rank == rank and (new.op.name in PER_AXIS or new.op.name == "broadcast_to"):
                above.append(new.node)
                new = new.node.inputs[0]
            base = Tensor(new)
            if base.ndim != rank:  # only broadcasts add axes, in front
                base = reshape(base, (*(1,) * (rank - base.ndim), *base.shape))
            order = last_order(rank)
            x = transpose(base, order) if one_element(base.shape) else _copied(base, order)
            for node in reversed(above):
                x = _along(node, [x], order)
            self.last[old] = x
        return self.last[old]


def _along(node: Node, operands: Sequence[Tensor], order: Sequence[int]) -> Tensor:
    """The op of a node over operands whose axes are in another order."""
    attrs = dict(node.attrs)
    if node.op.name in PER_AXIS or node.op.name == "broadcast_to":
        attrs.update((name, _ordered(attrs[name], order)) for name in LISTS if name in attrs)
    elif isinstance(node.op.lowering, Concat):
        attrs["axis"] = list(order).index(attrs["axis"])
    elif isinstance(node.op.lowering, Reduction):
        attrs["axes"] = tuple(sorted(list(order).index(axis) for axis in attrs["axes"]))
    return Tensor(Value(make_node(node.op, [operand.ref for operand in operands], attrs)))


def _copied(x: Tensor, order: Sequence[int]) -> Tensor:
    """A transposed copy. Products would read a transpose as strides over the old memory; a concat is an array."""
    return cast(Tensor, apply("concat", transpose(x, order), axis=0))


def _ordered(items: Sequence[T], order: Sequence[int]) -> tuple[T, ...]:
    return tuple(items[k] for k in order)


def _inverse(order: Sequence[int]) -> list[int]:
    return sorted(range(len(order)), key=lambda k: order[k])
