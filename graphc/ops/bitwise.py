"""Bits of integers: and, or, xor, invert and shifts, under the array API's names and NumPy's.

Every shift count has a meaning: one that is negative or not below the width shifts all bits out (NumPy's rule), so
nothing traps and nothing is undefined. Bools are logic: the functions hand them to `logical_and` and its like.
To add an op, add a `_bits` line; `& | ^ ~ << >>` of a Tensor call the functions installed at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.build import Tensor, install
from graphc.graph import Op
from graphc.ops.lowering import Elementwise
from graphc.ops.operands import (
    TensorLike,
    as_tensor,
    binary_function,
    promoted,
    same_type,
    ufunc,
    unary_function,
)
from graphc.ops.registry import register
from graphc.ops.samples import DIMS, INTEGERS, SHAPES, Operand, Sample
from graphc.ops.selection import logical_and, logical_not, logical_or, logical_xor
from graphc.types import DType, bool_, int8

_EXEMPT = {"gradient": "integers have no derivative"}


def _samples(arity: int, counts: bool = False) -> list[Sample]:
    """Random integers with the extremes; as counts, also those around the widths."""
    made = [Sample((Operand(shape),) * arity, {}, INTEGERS, DIMS) for shape in SHAPES]
    around = (0, 1, 7, 8, 15, 16, 31, 32, 63, 64, 100, 3, 2)
    return [*made, Sample((Operand((26,)), Operand((26,), values=around)), {}, INTEGERS)] if counts else made


def _bits(name: str, doc: str, body: Callable[..., Any], function: Any, counts: bool = False) -> Op:
    arity = function.nin
    return register(
        Op(
            name,
            doc,
            same_type("iu", arity=arity),
            ufunc(function),
            lowering=Elementwise(lambda h, attrs, *operands: body(h, *operands)),
            samples=lambda: _samples(arity, counts),
            exempt=_EXEMPT,
            formula=doc.split(":")[0],
            nan="There is none among integers.",
        )
    )


def _left(h: Any, x: Any, count: Any) -> Any:
    inside = _below_width(h, count)
    zero = h.constant(0, x.dtype)
    return h.select(inside, h.shl(x, h.select(inside, count, zero)), zero)


def _right(h: Any, x: Any, count: Any) -> Any:
    inside = _below_width(h, count)
    if x.dtype.kind == "i":
        return h.ashr(x, h.select(inside, count, h.constant(8 * x.dtype.itemsize - 1, x.dtype)))
    zero = h.constant(0, x.dtype)
    return h.select(inside, h.lshr(x, h.select(inside, count, zero)), zero)


def _below_width(h: Any, count: Any) -> Any:
    low = h.lt(count, h.constant(8 * count.dtype.itemsize, count.dtype))
    return low if count.dtype.kind == "u" else h.and_(low, h.ge(count, h.constant(0, count.dtype)))


def _on_bools(op: Op, on_bools: Callable[..., Tensor]) -> Callable[[TensorLike, TensorLike], Tensor]:
    """The function of a binary op, which is `on_bools` where both operands are bools."""
    on_integers = binary_function(op)

    def function(x: TensorLike, y: TensorLike) -> Tensor:
        return (on_bools if promoted(op.name, x, y) is bool_ else on_integers)(x, y)

    function.__name__, function.__doc__ = op.name, op.doc
    install(**{op.name: function})
    return function


bitwise_and = _on_bools(
    _bits(
        "bitwise_and",
        "x & y: the bits that are set in both; of bools: x and y. `bitwise_and(12, 10)` is 8.",
        lambda h, x, y: h.and_(x, y),
        np.bitwise_and,
    ),
    logical_and,
)
bitwise_or = _on_bools(
    _bits(
        "bitwise_or",
        "x | y: the bits that are set in either; of bools: x or y. `bitwise_or(12, 10)` is 14.",
        lambda h, x, y: h.or_(x, y),
        np.bitwise_or,
    ),
    logical_or,
)
bitwise_xor = _on_bools(
    _bits(
        "bitwise_xor",
        "x ^ y: the bits that are set in one of both; of bools: either x or y. `bitwise_xor(12, 10)` is 6.",
        lambda h, x, y: h.xor(x, y),
        np.bitwise_xor,
    ),
    logical_xor,
)
_inverted = unary_function(
    _bits(
        "bitwise_invert",
        "~x: every bit flipped; of bools: not x. `bitwise_invert(5)` is -6.",
        lambda h, x: h.not_(x),
        np.bitwise_invert,
    )
)


def bitwise_invert(x: TensorLike) -> Tensor:
    """~x: every bit flipped; of bools: not x. `bitwise_invert(5)` is -6."""
    tensor = as_tensor(x)
    return logical_not(tensor) if tensor.dtype is bool_ else _inverted(tensor)


def _shifted(dtype: DType) -> DType:
    """NumPy shifts bools as int8."""
    return int8 if dtype is bool_ else dtype


bitwise_left_shift = binary_function(
    _bits(
        "bitwise_left_shift",
        "x << y: 0 where y is negative or not below the width of the dtype. `bitwise_left_shift(3, 4)` is 48.",
        _left,
        np.left_shift,
        counts=True,
    ),
    _shifted,
)
bitwise_right_shift = binary_function(
    _bits(
        "bitwise_right_shift",
        "x >> y, filled with the sign: where y is negative or not below the width, 0 or (of negative x) -1."
        " `bitwise_right_shift(-48, 4)` is -3.",
        _right,
        np.right_shift,
        counts=True,
    ),
    _shifted,
)

install(bitwise_invert=bitwise_invert)
