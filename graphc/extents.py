"""Sizes that come out negative for some values of their names, such as `m - 4` where a call gives m = 3.

With known sizes the builder refuses what has such a size. With named ones only a call knows: the runtime evaluates
the list that `extents` makes here whenever names get new values, before any memory is laid out. What a size divides
must not be negative either: `(m - 5)//3 + 1` windows of 5 rows are none with m = 4, but the window does not fit, and
native code divides non-negative numbers only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from graphc.bounds import bounds_of, clamped_below_zero, range_of
from graphc.errors import ShapeError, SourceLine
from graphc.graph import Graph, Node, origin_of
from graphc.sizes import terms_of
from graphc.types import Size, evaluate, symbols


@dataclass(frozen=True)
class Extent:
    """`part` of a size, or all of it, which must not be negative; `what` has that size, at `lines`."""

    part: Size
    size: Size
    what: str
    lines: tuple[SourceLine, ...]

    def check(self, function: str, sizes: Mapping[str, int]) -> None:
        """ShapeError if it is negative for these values of the names."""
        value = evaluate(self.part, sizes)
        if value >= 0:
            return
        names = sorted(symbols(self.part))
        given = ", ".join(f"{name} = {sizes[name]}" for name in names)
        told = f"{self.what} would be {value}: it is {self.size}"
        if self.part != self.size:
            told = f"{self.what} is {self.size}, in which {self.part} would be {value}"
        hint = f'say which sizes fit where you name them, as graphc.dim("{names[0]}", min=...)'
        raise ShapeError(f"{function}: {told} with {given}", self.lines, hint)


def extents(graph: Graph) -> Sequence[Extent]:
    """Everything in the sizes of `graph` that the limits of their names do not keep from being negative, once."""
    bounds = bounds_of(value.type.shape for value in graph.inputs)
    found: dict[Size, Extent] = {}
    for node, axis, size in _named(graph):
        for part in (*_divided(size), size):
            least, _ = range_of(part, bounds)
            if part not in found and (least is None or least < 0):
                found[part] = Extent(part, size, f"axis {axis} of {node.op.name}", _lines(node))
    return tuple(found.values())


def _named(graph: Graph) -> Iterator[tuple[Node, int, Size]]:
    """Each size with names once, and the first axis that has it."""
    seen: set[Size] = set()
    for node in graph.order():
        for value in node.outputs:
            for axis, size in enumerate(value.type.shape):
                if not isinstance(size, int) and size not in seen:
                    seen.add(size)
                    yield node, axis, size


def _divided(size: Size) -> Iterator[Size]:
    """What a size divides, innermost first, but for what is -1 on purpose (`graphc.bounds.clamped_below_zero`)."""
    for monomial, _ in terms_of(size):
        for atom in monomial:
            if isinstance(atom, str):
                continue
            for arg in atom.args:
                yield from _divided(arg)
            if atom.fn == "floordiv" and not clamped_below_zero(atom.args[0]):
                yield atom.args[0]


def _lines(node: Node) -> tuple[SourceLine, ...]:
    origin = origin_of(node)
    return origin.lines if origin else ()
