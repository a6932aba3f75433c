"""Writing at positions: the ops scatter_set, _add, _mul, _max and _min, and `x.at[key].set(v)`.

Nothing is written in place: the result is a copy of `x` with some elements changed, in index order, so that equal
indices have a defined result. To add a way of combining, add a line to `_MODES` and its gradient.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from graphc.build import Tensor, apply, install, signature
from graphc.conversion import cast_array, widened
from graphc.errors import ArgumentError, DTypeError, ShapeError, fail
from graphc.graph import Attrs, Node, Op, Types
from graphc.ops import indexing, picking
from graphc.ops.arithmetic import add, maximum, minimum, multiply
from graphc.ops.indexing import check_index_type, scatter_add_along_axis, take_along_axis
from graphc.ops.lowering import ScatterInto
from graphc.ops.movement import broadcast_to, reshape, slice_size
from graphc.ops.operands import (
    TensorLike,
    as_tensor,
    broadcast_shape,
    check_kind,
    converted,
    expanded,
    normalized_axis,
    other_sizes,
    promoted,
    result_of,
    tensors_of,
)
from graphc.ops.padding import unslice
from graphc.ops.registry import register
from graphc.ops.samples import ALL, FLOATS, NUMBERS, Operand, Sample
from graphc.ops.selection import astype, where
from graphc.ops.sources import full, iota, zeros_like
from graphc.types import Dim, DType, Shape, Size, bool_, int64

Gradients = Sequence[Tensor | None]


def _rule(kinds: str) -> Callable[[Types, Attrs], Types]:
    def rule(types: Types, attrs: Attrs) -> Types:
        if len(types) != 3:
            raise ArgumentError(f"takes 3 operands, not {len(types)}")
        (x, indices, updates), axis = types, attrs["axis"]
        check_kind(x, kinds)
        check_index_type(indices, 1)
        if updates.dtype is not x.dtype:
            raise DTypeError(f"{{0}} is {x}, {{2}} is {updates}: they have one dtype")
        same = indices.shape == updates.shape and indices.rank == x.rank and 0 <= axis < x.rank
        if not same or other_sizes(x.shape, axis) != other_sizes(indices.shape, axis):
            message = f"{{0}} is {x}, {{1}} is {indices}, {{2}} is {updates}: they differ in another axis than {axis}"
            raise ShapeError(message)
        return (x,)

    return rule


def _reference(name: str, update: Callable[..., Any]) -> Callable[..., tuple[np.ndarray, ...]]:
    def reference(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
        (x, indices, updates), axis = arrays, attrs["axis"]
        indexing.check_indices(name, indices, x.shape[axis])
        result = x.copy()
        place: list[Any] = list(np.ogrid[tuple(slice(n) for n in updates.shape)])
        place[axis] = indices.astype(np.int64)
        update(result, tuple(place), updates)
        return (result,)

    return reference


def _samples(dtypes: tuple[DType, ...]) -> Callable[[], list[Sample]]:
    """Repeated indices too; no two elements of an ordinary sample are equal, so that no maximum has ties."""
    batch = Dim.symbol("batch")
    cases: tuple[tuple[Shape, Shape, int], ...] = (
        ((7,), (20,), 0),
        ((5, 10), (5, 3), 1),
        ((3, 4, 5), (3, 6, 5), 1),
        ((batch, 10), (batch, 2), 1),
        ((1,), (1,), 0),
        ((0, 4), (0, 2), 1),
        ((4, 3), (4, 0), 1),
    )

    def samples() -> list[Sample]:
        return [
            Sample(
                (
                    Operand(x, values="ordinary"),
                    Operand(u, int64, "index", limit=cast(int, x[axis])),
                    Operand(u, values="ordinary", domain=(0.3, 2.1)),
                ),
                {"axis": axis},
                dtypes if n < 2 else FLOATS,
                {"batch": 6},
            )
            for n, (x, u, axis) in enumerate(cases)
        ]

    return samples


def _set_gradient(node: Node, g: Sequence[Any]) -> Gradients:
    """What is written over has no effect; of several updates of an element only the last has."""
    x, indices, updates = tensors_of(node)
    axis = node.attrs["axis"]
    place = iota(updates.shape, int64, axis)
    last = apply("scatter_set", full(x.shape, -1, int64), indices, place, axis=axis)
    seen = take_along_axis(last, indices, axis) == place
    return (
        cast(Tensor, apply("scatter_set", g[0], indices, zeros_like(updates), axis=axis)),
        None,
        where(seen, take_along_axis(g[0], indices, axis), 0),
    )


def _add_gradient(node: Node, g: Sequence[Any]) -> Gradients:
    return g[0], None, take_along_axis(g[0], tensors_of(node)[1], node.attrs["axis"])


def _mul_gradient(node: Node, g: Sequence[Any]) -> Gradients:
    """The product of the other factors: of all over this one, or, beside a single zero, of those that are not 0."""
    x, indices, updates = tensors_of(node)
    axis = node.attrs["axis"]
    zero = updates == 0
    ones, size = full(x.shape, 1, x.dtype), x.shape[axis]
    others = apply("scatter_mul", ones, indices, where(zero, 1, updates), axis=axis)
    zeros = scatter_add_along_axis(indices, astype(zero, x.dtype), axis, size)
    product, beside = (take_along_axis(t, indices, axis) for t in (g[0] * x * others, zeros))
    share = where(beside == astype(zero, x.dtype), product / where(zero, 1, updates), 0)
    return where(zeros == 0, g[0] * others, 0), None, share


def _extremum_gradient(node: Node, g: Sequence[Any]) -> Gradients:
    """All that are equal to the result share its cotangent."""
    x, indices, updates = tensors_of(node)
    y, axis = result_of(node), node.attrs["axis"]
    won = updates == take_along_axis(y, indices, axis)
    count = astype(x == y, x.dtype) + scatter_add_along_axis(indices, astype(won, x.dtype), axis, x.shape[axis])
    share = g[0] / maximum(count, 1)
    return where(x == y, share, 0), None, where(won, take_along_axis(share, indices, axis), 0)


def _by_dtype(on_bool: str, otherwise: str) -> Callable[[DType], str]:
    return lambda dtype: on_bool if dtype is bool_ else otherwise


def _assign(result: np.ndarray, place: Any, updates: np.ndarray) -> None:
    result[place] = updates


for _mode, _symbol, _doc, _kinds, _update, _combine, _gradient in (
    ("set", "=", "the last of equal indices counts", "biuf", _assign, lambda dtype: None, _set_gradient),
    ("add", "+=", "integers wrap", "iuf", np.add.at, lambda dtype: "add", _add_gradient),
    ("mul", "*=", "integers wrap", "iuf", np.multiply.at, lambda dtype: "mul", _mul_gradient),
    ("max", "max=", "nan if either is", "biuf", np.maximum.at, _by_dtype("or_", "maximum"), _extremum_gradient),
    ("min", "min=", "nan if either is", "biuf", np.minimum.at, _by_dtype("and_", "minimum"), _extremum_gradient),
):
    register(
        Op(
            f"scatter_{_mode}",
            f"scatter_{_mode}(axis)(x, indices, updates): x, and for each i, x[i with i[axis] replaced by indices[i]]"
            f" {_mode}= updates[i], in the order of i ({_doc}). Indices outside of 0 <= index < size are an error.",
            _rule(_kinds),
            _reference(f"scatter_{_mode}", _update),
            _gradient,
            ScatterInto(_combine),
            _samples(ALL if "b" in _kinds else NUMBERS),
            formula=f"result = x; result[i with i[axis] = indices[i]] {_symbol} updates[i]",
            example=f"graphc.constant([1.0, 2.0, 3.0]).at[[0, 2]].{_mode}([5.0, 1.0])",
        )
    )

_MODES = ("set", "add", "mul", "max", "min")
_FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "set": lambda old, new: new,
    "add": add,
    "mul": multiply,
    "max": maximum,
    "min": minimum,
}


def scatter(x: TensorLike, indices: TensorLike, updates: TensorLike, axis: int, mode: str = "set") -> Tensor:
    """`x` with `updates` written at `indices` along `axis`: result[i with i[axis] := indices[i]] = updates[i].

    mode: "set" (of equal indices the last counts), "add", "mul", "max" or "min". The other axes of `indices` and
    `updates` broadcast to those of `x`. A negative index is an error.
    `scatter([0, 0, 0], [2, 0], [5, 7], 0)` is [7, 0, 5].
    """
    tensor, where_ = as_tensor(x), as_tensor(indices)
    if mode not in _MODES:
        fail(ArgumentError, f"scatter: mode is one of {', '.join(_MODES)}, not {mode!r}")
    a = normalized_axis("scatter", axis, tensor.ndim, tensor)
    if where_.ndim != tensor.ndim:
        fail(ShapeError, f"scatter: ranks differ: {signature(tensor, where_)}")
    new = _fitting("scatter", tensor, updates)
    shape = broadcast_shape("scatter", where_, new)
    shape = (*tensor.shape[:a], shape[a], *tensor.shape[a + 1 :])
    return cast(Tensor, apply(f"scatter_{mode}", tensor, expanded(where_, shape), expanded(new, shape), axis=a))


def _fitting(name: str, x: Tensor, updates: TensorLike) -> Tensor:
    """`updates` in the dtype of `x`, which must be able to hold them; lists are weak, as Python scalars are."""
    if isinstance(updates, (list, tuple)):
        array = np.asarray(updates)
        weak = array.dtype.kind == "f" and x.dtype.is_float
        fitted = cast_array(array, x.dtype)
        if weak or (array.size and array.dtype.kind in "biu" and bool((widened(fitted) == array).all())):
            updates = fitted
    if promoted(name, x, updates) is not x.dtype:
        given = signature(x, updates) if isinstance(updates, Tensor) else f"{signature(x)}, {updates!r} is written"
        fail(DTypeError, f"{name}: {given}: that narrows", f"write value.astype({x.dtype.name!r}) if you mean it")
    return converted(name, updates, x.dtype)


class Place:
    """`x.at[key]`, with any key that reads `x[key]`: its methods give `x` with that part changed."""

    def __init__(self, x: Tensor, key: Any) -> None:
        self.x, self.key = x, key

    def get(self) -> Tensor:
        """x[key]."""
        return picking.getitem(self.x, self.key)

    def set(self, values: TensorLike) -> Tensor:
        """`x` with x[key] = values. Of equal indices the last counts, as in NumPy."""
        return self._changed("set", values)

    def add(self, values: TensorLike) -> Tensor:
        """`x` with values added to x[key]; equal indices add up (`numpy.add.at`)."""
        return self._changed("add", values)

    def mul(self, values: TensorLike) -> Tensor:
        """`x` with x[key] multiplied by values, equal indices in turn (`numpy.multiply.at`)."""
        return self._changed("mul", values)

    multiply = mul

    def max(self, values: TensorLike) -> Tensor:
        """`x` with x[key] = maximum(x[key], values), equal indices in turn."""
        return self._changed("max", values)

    def min(self, values: TensorLike) -> Tensor:
        """`x` with x[key] = minimum(x[key], values), equal indices in turn."""
        return self._changed("min", values)

    def _changed(self, mode: str, values: TensorLike) -> Tensor:
        new = _fitting(f"x.at[...].{mode}", self.x, values)
        parts = list(self.key) if isinstance(self.key, tuple) else [self.key]
        if not builtins.any(picking.is_array(part) for part in parts):
            changed = self._region(mode, new)
            if changed is not None:
                return changed
        along = _single_axis(self.x, parts)
        return self._positions(mode, new) if along is None else self._along(mode, new, *along)

    def _region(self, mode: str, new: Tensor) -> Tensor | None:
        """For slices: elementwise, no kernel of its own. None where an int picks from an axis of a named size."""
        x = self.x
        axes = [part for part in indexing.spelled_out(x, self.key) if part is not None]
        if builtins.any(isinstance(n, Dim) and not isinstance(p, slice) for p, n in zip(axes, x.shape, strict=True)):
            return None
        _, bounds = indexing.bounds_of(x, axes)
        starts, steps = [b[0] for b in bounds], [b[2] for b in bounds]
        whole: Shape = tuple(slice_size(*b) for b in bounds)

        def placed(value: Tensor) -> Tensor:
            return unslice(reshape(value, whole), x.shape, starts, steps)

        shape = self.get().shape
        inside = placed(full(shape, True))
        return where(inside, _FUNCTIONS[mode](x, placed(_spread(new, shape))), x)

    def _along(self, mode: str, new: Tensor, axis: int, given: Any) -> Tensor:
        """For one array along one axis."""
        x = self.x
        indices = picking.from_end("x.at[...]", x, axis, given)
        before, behind = x.shape[:axis], x.shape[axis + 1 :]
        flat: Shape = (*before, indices.size, *behind)
        column = reshape(indices, (*[1] * axis, indices.size, *[1] * len(behind)))
        spread = reshape(_spread(new, (*before, *indices.shape, *behind)), flat)
        return cast(Tensor, apply(f"scatter_{mode}", x, broadcast_to(column, flat), spread, axis=axis))

    def _positions(self, mode: str, new: Tensor) -> Tensor:
        """For any key: the positions of its elements in row-major order, read with the same key."""
        x = self.x
        positions = picking.getitem(reshape(iota((x.size,)), x.shape), self.key)
        count: Size = positions.size
        flat = reshape(_spread(new, positions.shape), (count,))
        result = apply(f"scatter_{mode}", reshape(x, (x.size,)), reshape(positions, (count,)), flat, axis=0)
        return reshape(cast(Tensor, result), x.shape)


def _spread(values: Tensor, shape: Shape) -> Tensor:
    if broadcast_shape("x.at[...]", values, full(shape, 0)) != shape:
        fail(ShapeError, f"x.at[...]: {signature(values)}, the place has shape [{','.join(map(str, shape))}]")
    return expanded(values, shape)


def _single_axis(x: Tensor, parts: list[Any]) -> tuple[int, Any] | None:
    """(axis, indices) if the key is one integer array beside whole axes."""
    if not builtins.any(picking.is_array(part) for part in parts):
        return None
    found = list(enumerate(picking.spelled_out(x, parts)))
    arrays = [(axis, part.indices) for axis, part in found if isinstance(part, picking.Array)]
    whole = builtins.all(isinstance(part, picking.Array) or part == slice(None) for _, part in found)
    return arrays[0] if whole and len(arrays) == 1 else None


class _At:
    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __getitem__(self, key: Any) -> Place:
        return Place(self.x, key)


install(at=_At)
