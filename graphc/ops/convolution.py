"""The op `contract`: sums of products over labelled axes, some of which are windows. Every convolution is one of these.

    contract(x, w, spec="n 2h+p w+q c, p q c o -> n h w o", shape=[...])

An axis is named by its label; `2h+p` is the axis of windows: the label `h` counts their positions, 2 elements apart,
and `p` the elements of each. So this line is a convolution of NHWC images with HWIO weights, and other layouts, groups
and einsums differ only in the spec. The gradients of `contract` are `contract`s too: with respect to weights the spec
has its sides exchanged; with respect to images the windows are turned inside out (`_unfolded`).

Enter at `contract` and `parse`. `graphc.nn.functional.conv2d` and its like build the specs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, cast

import numpy as np

from graphc.build import Tensor, apply
from graphc.errors import ArgumentError, DTypeError, GradientError, ShapeError
from graphc.graph import Attrs, Node, Op, Types
from graphc.ops.lowering import Contraction
from graphc.ops.movement import slice_op, transpose
from graphc.ops.operands import check_kind, tensors_of
from graphc.ops.padding import unslice
from graphc.ops.registry import register
from graphc.ops.samples import NUMBERS, Operand, Sample
from graphc.types import Dim, Shape, Size, float32, float64, int32

Term = tuple[str, int]  # a label and how many elements a step of it moves
Axis = tuple[Term, ...]


class Spec(NamedTuple):
    """The axes of both operands and of the result."""

    a: tuple[Axis, ...]
    b: tuple[Axis, ...]
    out: tuple[Axis, ...]

    def __str__(self) -> str:
        a, b, out = (" ".join(map(axis_text, axes)) for axes in self)
        return f"{a}, {b} -> {out}"


@cache
def parse(spec: str) -> Spec:
    """The axes that a spec names. ArgumentError if it is none."""
    match = re.fullmatch(r"([^,>]*),([^,>]*)->([^,>]*)", spec)
    if not match:
        raise ArgumentError(f"{spec!r} is no spec", hint='it looks like "n 2h+p w+q c, p q c o -> n h w o"')
    a, b, out = (tuple(map(_axis, part.split())) for part in match.groups())
    found = Spec(a, b, out)
    for axes in found:
        labels = [label for axis in axes for label, _ in axis]
        if len(set(labels)) != len(labels):
            raise ArgumentError(f"{spec!r} has a label twice in one place")
    if any(len(axis) > 1 or axis[0][1] != 1 for axis in out):
        raise ArgumentError(f"{spec!r}: an axis of the result is one label")
    return found


def _axis(text: str) -> Axis:
    terms = [re.fullmatch(r"(\d*)([A-Za-z])", term) for term in text.split("+")]
    if not all(terms) or len(terms) > 2:
        raise ArgumentError(f"{text!r} is no axis", hint="an axis is a label or a sum of two, such as 2h+p")
    return tuple((match.group(2), int(match.group(1) or 1)) for match in terms if match)


def axis_text(axis: Axis) -> str:
    """An axis as a spec writes it."""
    return "+".join(label if factor == 1 else f"{factor}{label}" for label, factor in axis)


def label_sizes(spec: Spec, types: Sequence[Any], shape: Shape) -> dict[str, Size]:
    """The size of every label, from the axes that it alone names. ShapeError where they disagree or one has none."""
    sizes: dict[str, Size] = {axis[0][0]: size for axis, size in zip(spec.out, shape, strict=True)}
    for position, axes in enumerate((spec.a, spec.b)):
        for axis, size in zip(axes, types[position].shape, strict=True):
            if len(axis) == 1 and axis[0][1] == 1 and sizes.setdefault(axis[0][0], size) != size:
                known = sizes[axis[0][0]]
                raise ShapeError(f"{axis[0][0]} is {known} and {size}: {{0}} is {types[0]}, {{1}} is {types[1]}")
    for axes in (spec.a, spec.b):
        for label, _ in (term for axis in axes for term in axis):
            if label not in sizes:
                raise ShapeError(f"the size of {label} follows from no axis of {{0}}, {{1}} or the result")
    return sizes


def _contract_type(types: Types, attrs: Attrs) -> Types:
    if len(types) != 2:
        raise ArgumentError(f"takes 2 operands, not {len(types)}")
    spec, shape = parse(attrs["spec"]), tuple(attrs["shape"])
    if (len(spec.a), len(spec.b), len(spec.out)) != (types[0].rank, types[1].rank, len(shape)):
        raise ShapeError(f"{attrs['spec']!r} does not fit the axes: {{0}} is {types[0]}, {{1}} is {types[1]}")
    if types[0].dtype is not types[1].dtype:
        raise DTypeError(f"{{0}} is {types[0]}, {{1}} is {types[1]}; both have one dtype")
    check_kind(types[0], "iuf")
    sizes = label_sizes(spec, types, shape)
    a, b = ({label for axis in axes for label, _ in axis} for axes in (spec.a, spec.b))
    out = {axis[0][0] for axis in spec.out}
    if out - a - b or (a ^ b) - out:
        wrong = ", ".join(sorted((out - a - b) | ((a ^ b) - out)))
        raise ArgumentError(f"{attrs['spec']!r}: what is summed is in both operands, what results in one: {wrong}")
    for position, axes in enumerate((spec.a, spec.b)):
        for axis, size in zip(axes, types[position].shape, strict=True):
            last = sum((sizes[label] - 1) * factor for label, factor in axis)
            empty = any(sizes[label] == 0 for label, _ in axis)
            if isinstance(last, int) and isinstance(size, int) and last >= size and not empty:
                message = f"{axis_text(axis)} reaches element {last} of an axis of {size}"
                raise ShapeError(f"{message}: {{{position}}} is {types[position]}")
    return (types[0].with_shape(shape),)


def _reference(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
    """NumPy's einsum over strided views of the windows."""
    spec, shape = parse(attrs["spec"]), tuple(attrs["shape"])
    sizes = cast(dict[str, int], label_sizes(spec, arrays, shape))
    views = []
    for array, axes in zip(arrays, (spec.a, spec.b), strict=True):
        terms = [(term, stride) for axis, stride in zip(axes, array.strides, strict=True) for term in axis]
        extents, strides = [sizes[label] for (label, _), _ in terms], [stride * by for (_, by), stride in terms]
        views.append(np.lib.stride_tricks.as_strided(array, extents, strides))
    labels = ["".join(label for axis in axes for label, _ in axis) for axes in spec]
    result = np.einsum(f"{labels[0]},{labels[1]}->{labels[2]}", *views, optimize=True)
    return (np.asarray(result, arrays[0].dtype, order="C"),)


def _labels(types: Types, attrs: Attrs) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    a, b, out = (tuple(axis_text(axis) for axis in axes) for axes in parse(attrs["spec"]))
    return a, b, out


# gradients


def _gradient(node: Node, g: Sequence[Any]) -> Sequence[Tensor | None]:
    x, y = tensors_of(node)
    spec = parse(node.attrs["spec"])
    sizes = label_sizes(spec, [x.type, y.type], node.attrs["shape"])
    of_x = transposed(spec.a, x.shape, spec.out, g[0], spec.b, y, sizes)
    return of_x, transposed(spec.b, y.shape, spec.out, g[0], spec.a, x, sizes)


def transposed(
    into: tuple[Axis, ...], shape: Shape, of_g: tuple[Axis, ...], g: Tensor, of_y: tuple[Axis, ...], y: Tensor,
    sizes: Mapping[str, Size],
) -> Tensor:  # fmt: skip
    """The cotangent of the operand whose axes are `into`: g times the other operand, summed back into its place.

    With the axes of a convolution's result for g and those of its weights for y, this is the transposed convolution.
    """
    taps = [axis[1] for axis in into if len(axis) > 1]
    if into and into[-1] in of_y and any(((tap, 1),) in of_y for tap, _ in taps):
        # The flipped copy that is made below has the last axis of the result side by side, for vectors of columns.
        order = sorted(range(len(of_y)), key=lambda position: of_y[position] == into[-1])
        of_y, y = tuple(of_y[position] for position in order), transpose(y, order)
    out: list[Axis] = []
    for axis, size in zip(into, shape, strict=True):
        if len(axis) == 1 and axis[0][1] == 1:
            out.append(axis)
            continue
        of_g, g = _unfolded(axis, size, of_g, g, sizes)
        of_y, y = _unfolded(axis, size, of_y, y, sizes)
        out.append(((axis[0][0], 1),))
    return contract(Spec(of_g, of_y, tuple(out)), g, y, shape)


def _unfolded(
    window: Axis, size: Size, axes: tuple[Axis, ...], x: Tensor, sizes: Mapping[str, Size]
) -> tuple[tuple[Axis, ...], Tensor]:
    """An operand of the gradient of an axis `s*u + d*t`: what was at u is read at i for all i = s*u + d*t.

    That is at (i - d*t) / s, where this is whole and in range: u's axis is spread out by s between zeros, with d*(T-1)
    of them in front, and t runs backwards, so that the new axis is i + d*t again.
    """
    (u, s), (t, d) = window if len(window) == 2 else (window[0], ("", 0))
    reach = d * (sizes[t] - 1) if t else 0
    result: list[Axis] = []
    starts: list[Size] = [0] * len(axes)
    steps, shape = [1] * len(axes), list(x.shape)
    flips: list[int] = []
    for position, axis in enumerate(axes):
        labels = [label for label, _ in axis]
        if u not in labels and t not in labels:
            result.append(axis)
        elif axis == ((u, 1),):
            starts[position], steps[position], shape[position] = reach, s, size + reach
            result.append(((u, 1), (t, d)) if t else ((u, 1),))
        elif axis == ((t, 1),):
            flips.append(position)
            result.append(axis)
        else:
            raise GradientError(f"contract: no gradient for windows of windows: {axis_text(window)}, {axis_text(axis)}")
    if flips:
        first = tuple(n - 1 if p in flips else 0 for p, n in enumerate(x.shape))
        stops = tuple(-1 if p in flips else n for p, n in enumerate(x.shape))
        by = tuple(-1 if p in flips else 1 for p in range(x.ndim))
        x = cast(Tensor, apply(slice_op, x, starts=first, stops=stops, steps=by))
    return tuple(result), unslice(x, tuple(shape), starts, steps)


_B = Dim.symbol("batch")


def _samples() -> list[Sample]:
    cases: tuple[tuple[str, Shape, Shape, Shape], ...] = (
        ("i j, j k -> i k", (3, 4), (4, 5), (3, 5)),
        ("n h+p w+q c, p q c o -> n h w o", (2, 6, 5, 3), (3, 2, 3, 4), (2, 4, 4, 4)),
        ("n 2h+p 3w+2q c, p q c o -> n h w o", (1, 8, 9, 2), (3, 2, 2, 3), (1, 3, 3, 3)),
        ("n c h+p w+q, o c p q -> n o h w", (2, 2, 5, 21), (3, 2, 3, 3), (2, 3, 3, 19)),
        ("n h+p w+q c, n h w o -> p q c o", (3, 5, 6, 2), (3, 4, 4, 3), (2, 3, 2, 3)),
        ("n 2h+p g c, p c g o -> n h g o", (2, 7, 3, 2), (3, 2, 3, 5), (2, 3, 3, 5)),
        ("n h+p g, p g -> n h g", (2, 6, 3), (3, 3), (2, 4, 3)),
        ("a b i j, a b k j -> b a k i", (2, 3, 4, 5), (2, 3, 6, 5), (3, 2, 6, 4)),
        ("n h+p c, p c o -> n h o", (_B, 5, 2), (2, 2, 3), (_B, 4, 3)),
        ("n h+p c, n h o -> p c o", (_B, 5, 2), (_B, 4, 3), (2, 2, 3)),
        ("n h+p c, p c o -> n h o", (1, 1, 1), (1, 1, 1), (1, 1, 1)),
        ("n h+p c, p c o -> n h o", (0, 3, 2), (2, 2, 3), (0, 2, 3)),
        ("n h+p c, p c o -> n h o", (2, 3, 0), (2, 0, 3), (2, 2, 3)),
        ("i, j -> i j", (3,), (4,), (3, 4)),
        ("i, i ->", (5,), (5,), ()),
    )  # fmt: skip
    made: list[Sample] = []
    for spec, a, b, shape in cases:
        dtypes = (float32, float64, int32) if made else NUMBERS
        operands = Operand(a, values="ordinary"), Operand(b, values="ordinary")
        made.append(Sample(operands, {"spec": spec, "shape": shape}, dtypes, {"batch": 3}))
    return made


_op = register(
    Op(
        "contract",
        "contract(spec, shape): result[out] = sum over the labels that `out` lacks of a[...] * b[...]; an axis `2h+p`"
        " is read at 2 * h + p. What is summed is in both operands; 0 for an empty sum. Floats are summed with fma.",
        _contract_type,
        _reference,
        _gradient,
        Contraction(_labels),
        _samples,
        formula="result[out] = sum over the other labels of x[...] * y[...]",
        example="graphc.einsum('ij,kj->ik', [[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]])",
    )
)


def contract(spec: Spec | str, x: Tensor, y: Tensor, shape: Sequence[Size]) -> Tensor:
    """The op applied to operands of one dtype; `shape` is that of the result."""
    return cast(Tensor, apply(_op, x, y, spec=str(parse(str(spec))), shape=tuple(shape)))
