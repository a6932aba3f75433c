"""einsum, tensordot, outer and vecdot: products and sums over labelled axes, as compositions.

Enter at `einsum`. Labels that one operand alone has are summed first. What is left of two operands is one `matmul` of
transposes and reshapes of the arguments, which are strides wherever the axes that they merge lie side by side; where
no side has rows or columns of its own (`i,i->`, `bi,bi->b`) it is a product and a sum. More than two operands are
contracted from left to right. To teach einsum another form, add it in `_pair`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from graphc.build import Tensor, apply, signature
from graphc.errors import ArgumentError, ShapeError, fail
from graphc.graph import shown
from graphc.ops.arithmetic import multiply
from graphc.ops.contraction import matmul
from graphc.ops.movement import expand_dims, reshape, slice_op, transpose
from graphc.ops.operands import (
    TensorLike,
    as_tensor,
    broadcast_shape,
    converted,
    expanded,
    integers,
    normalized_axes,
    normalized_axis,
    promoted,
)
from graphc.ops.reductions import sum as sum_
from graphc.ops.selection import astype
from graphc.types import Size, bool_, int64, product

_HIDDEN = "0123456789"  # labels of the axes that an ellipsis stands for, counted from the right


class _Labelled(NamedTuple):
    """A tensor and a label for each of its axes."""

    tensor: Tensor
    labels: str


def einsum(subscripts: str, *operands: TensorLike) -> Tensor:
    """The sum over all labels that the result lacks of the product of the operands: `einsum("bij,bjk->bik", x, y)`.

    Subscripts are NumPy's: letters for axes, `...` for axes that broadcast, a label twice in one operand for its
    diagonal, and without `->` a result of the labels that occur once, in alphabetical order. Equal labels are equal
    sizes. ArgumentError for subscripts that do not fit the operands, ShapeError for sizes that differ.
    `einsum('ij,kj->ik', [[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]])` is [[11.0, 17.0]].
    """
    inputs, output = _parsed(subscripts, len(operands))
    dtype = promoted("einsum", *operands)
    tensors = [converted("einsum", x, dtype) for x in operands]
    if dtype is bool_:
        return einsum(subscripts, *(astype(t, int64) for t in tensors)) != 0
    parts = [_Labelled(*_spread(labels, t, subscripts)) for labels, t in zip(inputs, tensors, strict=True)]
    hidden = _HIDDEN[: max(len([c for c in p.labels if c in _HIDDEN]) for p in parts)][::-1]
    if output is None:
        once = sorted(c for c in "".join(inputs).replace(".", "") if "".join(inputs).count(c) == 1)
        result = hidden + "".join(once)
    else:
        result = output.replace("...", hidden)
        if hidden and "..." not in output:
            fail(ArgumentError, f"einsum: {subscripts!r}: the axes of ... are missing in the result", "add ... to it")
    unknown = set(result) - set("".join(p.labels for p in parts))
    if unknown:
        fail(ArgumentError, f"einsum: {subscripts!r}: the result has {_names(unknown)}, which no operand has")
    _check_sizes(subscripts, parts)
    return _contracted([_diagonal(subscripts, p) for p in parts], result)


def tensordot(x: TensorLike, y: TensorLike, axes: int | Sequence[int | Sequence[int]] = 2) -> Tensor:
    """The sum of products over the last `axes` axes of `x` and the first of `y`, or over the two lists in `axes`.

    The result has the other axes of `x`, then those of `y`. ShapeError where paired sizes differ.
    `tensordot([[1, 2], [3, 4]], [1, 10], 1)` is [21, 43].
    """
    a, b = as_tensor(x), as_tensor(y)
    if isinstance(axes, (int, np.integer)):
        axes = int(axes)
        if not 0 <= axes <= min(a.ndim, b.ndim):
            fail(ArgumentError, f"tensordot: axes={axes} does not fit: {signature(a, b)}")
        left, right = list(range(a.ndim - axes, a.ndim)), list(range(axes))
    elif not isinstance(axes, (tuple, list, np.ndarray)) or len(axes) != 2:
        fail(ArgumentError, f"tensordot: axes is an int, or a pair of axes or lists of them, not {shown(axes)}")
    else:
        left, right = (_listed(t, given) for t, given in zip((a, b), axes, strict=True))
    if len(left) != len(right):
        fail(ArgumentError, f"tensordot: axes={axes} pairs {len(left)} axes with {len(right)}")
    for i, j in zip(left, right, strict=True):
        if a.shape[i] != b.shape[j]:
            message = f"tensordot: axis {i} of the first and axis {j} of the second differ in size"
            fail(ShapeError, f"{message}: {signature(a, b)}")
    letters = _letters(a.ndim + b.ndim)
    first, second = letters[: a.ndim], list(letters[a.ndim :])
    for i, j in zip(left, right, strict=True):
        second[j] = first[i]
    shared = {first[i] for i in left}
    result = "".join(c for c in (*first, *second) if c not in shared)
    return einsum(f"{first},{''.join(second)}->{result}", a, b)


def outer(x: TensorLike, y: TensorLike) -> Tensor:
    """All products of an element of `x` and one of `y`: [i, j] = x[i] * y[j]. Both are flattened first.

    `outer([1, 2], [3, 4])` is [[3, 4], [6, 8]].
    """
    a, b = reshape(as_tensor(x), -1), reshape(as_tensor(y), -1)
    return multiply(expand_dims(a, 1), expand_dims(b, 0))


def vecdot(x: TensorLike, y: TensorLike, axis: int = -1) -> Tensor:
    """The sum of products along `axis` (counted in the broadcast shape). ShapeError if the sizes along it differ.

    `vecdot([1, 2], [3, 4])` is 11.
    """
    a, b = as_tensor(x), as_tensor(y)
    shape = broadcast_shape("vecdot", a, b)
    place = normalized_axis("vecdot", axis, len(shape))
    behind = len(shape) - place
    if min(a.ndim, b.ndim) < behind or a.shape[-behind] != b.shape[-behind]:
        fail(ShapeError, f"vecdot: the sizes along axis {axis} differ: {signature(a, b)}")
    dtype = promoted("vecdot", x, y)
    if dtype is bool_:
        return vecdot(astype(a, int64), astype(b, int64), axis) != 0
    return astype(sum_(multiply(x, y), place), dtype)


def _parsed(subscripts: Any, count: int) -> tuple[list[str], str | None]:
    """The labels of each operand and those of the result, or None where they are left to the convention."""
    if not isinstance(subscripts, str):
        hint = "operands come behind the text: einsum('ij,jk->ik', x, y)"
        fail(ArgumentError, f"einsum: subscripts are text, not {shown(subscripts)}", hint)
    text = subscripts.replace(" ", "")
    match = re.fullmatch(r"((?:[A-Za-z.,])*)(?:->([A-Za-z.]*))?", text)
    parts = match.group(1).split(",") if match else []
    output = match.group(2) if match else None
    if not match or any("." in part.replace("...", "", 1) for part in (*parts, output or "")):
        hint = 'they look like "ij,jk->ik": letters for axes, ... for the rest'
        fail(ArgumentError, f"einsum: {subscripts!r} are no subscripts", hint)
    if len(parts) != count:
        fail(ArgumentError, f"einsum: {subscripts!r} is for {len(parts)} operands, not {count}")
    if output is not None and len(set(output.replace("...", ""))) != len(output.replace("...", "")):
        fail(ArgumentError, f"einsum: {subscripts!r}: the result has a label twice")
    return parts, output


def _spread(labels: str, tensor: Tensor, subscripts: str) -> tuple[Tensor, str]:
    """`tensor` and a label for each of its axes: digits for those that an ellipsis stands for."""
    named = len(labels.replace("...", ""))
    hidden = tensor.ndim - named
    if hidden < 0 or (hidden and "..." not in labels):
        message = f"einsum: {labels!r} of {subscripts!r} does not fit the axes of {shown(tensor)}"
        fail(ArgumentError, message, "one letter for each axis, or ... for the others")
    if hidden > len(_HIDDEN):
        fail(ArgumentError, f"einsum: ... stands for at most {len(_HIDDEN)} axes, not {hidden}")
    return tensor, labels.replace("...", _HIDDEN[:hidden][::-1])


def _check_sizes(subscripts: str, parts: Sequence[_Labelled]) -> None:
    """Equal labels are equal sizes; those of an ellipsis may also be 1."""
    sizes: dict[str, Size] = {}
    for tensor, labels in parts:
        for label, size in zip(labels, tensor.shape, strict=True):
            if label in _HIDDEN and (size == 1 or sizes.get(label) == 1):
                sizes[label] = size if sizes.get(label, 1) == 1 else sizes[label]
            elif sizes.setdefault(label, size) != size:
                where = "..." if label in _HIDDEN else label
                message = f"einsum: {where} is {sizes[label]} and {size} in {subscripts!r}"
                fail(ShapeError, f"{message}: {signature(*(p.tensor for p in parts))}")


def _diagonal(subscripts: str, part: _Labelled) -> _Labelled:
    """The part with each label once: equal labels make a diagonal, every (n + 1)-th element of both axes as one."""
    tensor, labels = part
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            n = tensor.shape[first]
            if not isinstance(n, int):
                message = f"einsum: {subscripts!r}: the diagonal of axes of a size that is not known: {n}"
                fail(ShapeError, f"{message} in {signature(tensor)}")
            order = [a for a in range(tensor.ndim) if a not in (first, second)]
            moved = transpose(tensor, (*order, first, second))
            flat = reshape(moved, (*moved.shape[:-2], n * n))
            stops = (*flat.shape[:-1], n * n)
            steps = (1,) * (flat.ndim - 1) + (n + 1,)
            tensor = apply(slice_op, flat, starts=(0,) * flat.ndim, stops=stops, steps=steps)
            labels = "".join(labels[a] for a in order) + label
    return _Labelled(tensor, labels)


def _contracted(parts: list[_Labelled], output: str) -> Tensor:
    """The parts multiplied from left to right, each label summed as soon as nothing later needs it."""
    current = parts[0]
    for position, other in enumerate(parts[1:], 1):
        later = output + "".join(p.labels for p in parts[position + 1 :])
        current, other = _summed(current, other.labels + later), _summed(other, current.labels + later)
        wanted = later if position + 1 < len(parts) else output
        current = _pair(current, other, "".join(c for c in dict.fromkeys(wanted) if c in current.labels + other.labels))
    current = _summed(current, output)
    return transpose(current.tensor, [current.labels.index(c) for c in output])


def _summed(part: _Labelled, needed: str) -> _Labelled:
    """The part without the labels that nothing else needs."""
    axes = [a for a, c in enumerate(part.labels) if c not in needed]
    if not axes:
        return part
    total = astype(sum_(part.tensor, axes), part.tensor.dtype)
    return _Labelled(total, "".join(c for c in part.labels if c in needed))


def _pair(a: _Labelled, b: _Labelled, output: str) -> _Labelled:
    """The product of two parts, summed over the labels that both have and `output` lacks."""
    both = [c for c in a.labels if c in b.labels]
    inner = "".join(c for c in both if c not in output)
    batch = "".join(c for c in output if c in both)
    rows = "".join(c for c in a.labels if c not in both)
    cols = "".join(c for c in b.labels if c not in both)
    if rows and output and output[-1] in rows and cols:
        return _pair(b, a, output)  # the last axis of the result is the columns', so that they come out side by side
    if not inner or not (rows or cols):
        return _product(a, b, output, inner)
    broadcast = {c: _broadcast_size(c, a, b) for c in batch}
    left, right = _matrix(a, batch, rows, inner, broadcast), _matrix(b, batch, inner, cols, broadcast)
    sizes = [dict(zip(p.labels, p.tensor.shape, strict=True)) for p in (a, b)]
    result = matmul(left, right)
    shape = [*(broadcast[c] for c in batch), *(sizes[0][c] for c in rows), *(sizes[1][c] for c in cols)]
    return _reordered(_Labelled(reshape(result, shape), batch + rows + cols), output)


def _broadcast_size(label: str, a: _Labelled, b: _Labelled) -> Size:
    sizes = [p.tensor.shape[p.labels.index(label)] for p in (a, b)]
    return sizes[1] if sizes[0] == 1 else sizes[0]


def _product(a: _Labelled, b: _Labelled, output: str, inner: str) -> _Labelled:
    """Elementwise product over all labels, then the sum over `inner`."""
    order = output + inner
    tensors = []
    for tensor, labels in (a, b):
        present = [labels.index(c) for c in order if c in labels]
        new = [position for position, c in enumerate(order) if c not in labels]
        tensors.append(expand_dims(transpose(tensor, present), new))
    result = multiply(*tensors)
    return _summed(_Labelled(result, order), output)


def _matrix(part: _Labelled, batch: str, rows: str, cols: str, sizes: dict[str, Size]) -> Tensor:
    """The part as [batch..., rows, cols]: merged in place where the axes lie side by side, else moved first."""
    tensor, labels = part
    wanted = [*batch, rows, cols]
    groups = [g for g in wanted if g]
    if all(g in labels for g in groups):
        runs = sorted(groups, key=labels.index)
        shapes = {g: product(tensor.shape[labels.index(c)] for c in g) for g in groups}
        merged = reshape(tensor, [shapes[g] for g in runs])
        tensor = transpose(merged, [runs.index(g) for g in groups])
    else:
        moved = transpose(tensor, [labels.index(c) for c in batch + rows + cols])
        at = dict(zip(batch + rows + cols, moved.shape, strict=True))
        tensor = reshape(moved, [product(at[c] for c in g) for g in groups])
    leading = tuple(sizes[c] for c in batch)
    tensor = reshape(tensor, (*tensor.shape[: len(batch)], *_ends(tensor, len(batch), bool(rows), bool(cols))))
    return expanded(tensor, (*leading, *tensor.shape[-2:]))


def _ends(tensor: Tensor, batch: int, rows: bool, cols: bool) -> tuple[Size, Size]:
    """The sizes of rows and columns; 1 for what has no labels."""
    left = list(tensor.shape[batch:])
    return (left.pop(0) if rows else 1), (left.pop(0) if cols else 1)


def _reordered(part: _Labelled, output: str) -> _Labelled:
    return _Labelled(transpose(part.tensor, [part.labels.index(c) for c in output]), output)


def _listed(tensor: Tensor, given: int | Sequence[int]) -> list[int]:
    """Axes as a list, in the given order."""
    axes = integers("tensordot", "axes", given)
    normalized_axes("tensordot", tuple(axes), tensor.ndim, tensor)
    return [axis % tensor.ndim for axis in axes]


def _letters(count: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    if count > len(letters):
        fail(ArgumentError, f"tensordot: the operands have {count} axes in all, at most {len(letters)} are possible")
    return letters[:count]


def _names(labels: set[str]) -> str:
    return ", ".join(sorted(labels))
