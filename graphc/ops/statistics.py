"""Functions made of reductions: var, std, norm, count_nonzero, and the differences of neighbours.

All are compositions, so they fuse with what they read; at 0, where a square root has no derivative, theirs is 0.
"""

from __future__ import annotations

import builtins
import math

from graphc.build import Tensor, signature
from graphc.errors import ShapeError, fail
from graphc.ops.arithmetic import abs, maximum, square, subtract
from graphc.ops.comparison import equal, not_equal
from graphc.ops.indexing import getitem
from graphc.ops.joining import concat
from graphc.ops.movement import broadcast_to, expand_dims, reshape
from graphc.ops.operands import TensorLike, as_tensor, converted, integer, normalized_axes, normalized_axis
from graphc.ops.reductions import Axis, any, max, mean, min, sum
from graphc.ops.selection import astype, where
from graphc.ops.sources import dim_value
from graphc.ops.transcendental import power, sqrt
from graphc.types import bool_, float32, float64, product


def var(x: TensorLike, axis: Axis = None, correction: builtins.float = 0, keepdims: bool = False) -> Tensor:
    """sum((x - mean)**2) / (count - correction), 1 for the unbiased estimate. `var([1.0, 3.0])` is 1.0.

    Integers and bools count as float64; nan where count <= correction, or where an element is nan or infinite.
    """
    tensor = _floats("var", x)
    if tensor.dtype.is_narrow:
        return astype(var(astype(tensor, float32), axis, correction, keepdims), tensor.dtype)
    axes = normalized_axes("var", axis, tensor.ndim, tensor)
    count = dim_value(product(tensor.shape[a] for a in axes), tensor.dtype)
    total = sum(square(tensor - mean(tensor, axes, keepdims=True)), axes, keepdims)
    return total / maximum(count - correction, 0)


def std(x: TensorLike, axis: Axis = None, correction: builtins.float = 0, keepdims: bool = False) -> Tensor:
    """The square root of `var`; its derivative is 0 where all elements are equal. `std([1.0, 3.0])` is 1.0."""
    return _root(var(x, axis, correction, keepdims))


def _floats(name: str, x: TensorLike) -> Tensor:
    tensor = as_tensor(x)
    return tensor if tensor.dtype.is_float else converted(name, tensor, float64)


def _root(squares: Tensor) -> Tensor:
    """sqrt with the derivative 0 at 0, of any order."""
    zero = squares == 0
    return where(zero, 0, sqrt(where(zero, 1, squares)))


def norm(x: TensorLike, ord: builtins.float | None = 2, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The vector norm over `axis` (all elements for None): sum(|x|**ord)**(1/ord). `norm([3.0, 4.0])` is 5.0.

    ord: 2 (None too), 1, any other number, 0 (how many are not 0), inf and -inf (the largest and smallest |x|). Its
    derivative where all elements are 0 is 0. Integers count as float64; nan if an element is nan.
    """
    tensor = _floats("norm", x)
    if tensor.dtype.is_narrow:
        return astype(norm(astype(tensor, float32), ord, axis, keepdims), tensor.dtype)
    axes = normalized_axes("norm", axis, tensor.ndim, tensor)
    if ord is None or ord == 2:
        return _root(sum(square(tensor), axes, keepdims))
    if ord == 0:
        return astype(count_nonzero(tensor, axes, keepdims), tensor.dtype)
    size = abs(tensor)
    if ord == 1:
        return sum(size, axes, keepdims)
    if math.isinf(ord):
        return (max if ord > 0 else min)(size, axes, keepdims)
    total = sum(power(size, builtins.float(ord)), axes, keepdims)
    zero = total == 0
    return where(zero, 0, power(where(zero, 1, total), 1.0 / ord))


def count_nonzero(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """How many elements are not 0 (nan is not 0), as int64. `count_nonzero([0, 2, nan])` is 2."""
    return sum(not_equal(x, 0), axis, keepdims)


def isin(x: TensorLike, values: TensorLike, invert: bool = False) -> Tensor:
    """Whether each element is one of `values` (with `invert`, is none of them); nan is equal to nothing.

    Every element is compared with every value. `isin([1, 5, 2], [2, 1])` is [True, False, True].
    """
    elements, known = as_tensor(x), as_tensor(values)
    found = any(equal(expand_dims(elements, -1), reshape(known, (-1,) if known.ndim else (1,))), -1)
    return ~found if invert else found


def diff(
    x: TensorLike, n: int = 1, axis: int = -1, prepend: TensorLike | None = None, append: TensorLike | None = None
) -> Tensor:
    """x[i + 1] - x[i] along `axis`, `n` times; of bools, whether neighbours differ. `diff([1, 4, 9])` is [3, 5].

    prepend and append are put before and behind `x` first: scalars, or arrays that fit in the other axes.
    """
    tensor, n = as_tensor(x), integer("diff", "n", n)
    where_ = normalized_axis("diff", axis, tensor.ndim, tensor)
    if n < 0:
        fail(ShapeError, f"diff: {n} times: {signature(tensor)}")
    ends = [None if end is None else as_tensor(end) for end in (prepend, append)]
    one = (*tensor.shape[:where_], 1, *tensor.shape[where_ + 1 :])
    front, back = (end if end is None or end.ndim else broadcast_to(end, one) for end in ends)
    parts = [part for part in (front, tensor, back) if part is not None]
    tensor = concat(parts, where_) if len(parts) > 1 else tensor
    before = (*[slice(None)] * where_,)
    for _ in range(n):
        high, low = getitem(tensor, (*before, slice(1, None))), getitem(tensor, (*before, slice(None, -1)))
        tensor = (not_equal if tensor.dtype is bool_ else subtract)(high, low)
    return tensor
