"""Elementwise comparisons: results are bool; nan equals nothing, not even itself.

Each op is one `register(Op(...))`, made by `_comparison` because only the name and the handler op differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np

from graphc.build import Tensor, install
from graphc.graph import Attrs, Op
from graphc.ops.lowering import Elementwise
from graphc.ops.operands import (
    TensorLike,
    as_tensor,
    binary_function,
    fits,
    promoted,
    same_type,
    ufunc,
    unary_function,
)
from graphc.ops.registry import register
from graphc.ops.samples import ALL, Operand, Sample, binary, unary
from graphc.ops.selection import astype, where
from graphc.ops.sources import full_like
from graphc.types import bool_, float64, uint64

_BOOLEAN = {"gradient": "the result is boolean"}

# A bool is no number for a handler: its order is spelled with logic.
_OF_BOOLS: dict[str, Callable[..., Any]] = {
    "eq": lambda h, x, y: h.not_(h.xor(x, y)),
    "ne": lambda h, x, y: h.xor(x, y),
    "lt": lambda h, x, y: h.and_(h.not_(x), y),
    "le": lambda h, x, y: h.or_(h.not_(x), y),
    "gt": lambda h, x, y: h.and_(x, h.not_(y)),
    "ge": lambda h, x, y: h.or_(x, h.not_(y)),
}


def compare(h: Any, how: str, x: Any, y: Any) -> Any:
    """Handler op `how` (eq, ne, lt, le, gt, ge) for numbers, its meaning in logic for bools."""
    return _OF_BOOLS[how](h, x, y) if x.dtype is bool_ else getattr(h, how)(x, y)


def _samples() -> tuple[Sample, ...]:
    ties = Operand((7,), values=(0, 1, 1, 0, 0, 1, 1)), Operand((7,), values=(0, 1, 0, 1, 0, 1, 1))
    return (*binary(ALL), Sample(ties, {}, ALL))


def _comparison(name: str, doc: str, how: str) -> Callable[[TensorLike, TensorLike], Tensor]:
    def body(h: Any, attrs: Attrs, x: Any, y: Any) -> Any:
        return compare(h, how, x, y)

    op = register(
        Op(
            name,
            doc,
            same_type("biuf", bool_, arity=2),
            ufunc(getattr(np, name)),
            lowering=Elementwise(body),
            samples=_samples,
            exempt=_BOOLEAN,
            formula=doc.split(";")[0],
            nan=f"{doc.split('; ')[1].capitalize()}",
        )
    )
    plain = binary_function(op)

    def function(x: TensorLike, y: TensorLike) -> Tensor:
        if isinstance(x, Tensor) and isinstance(y, Tensor) and promoted(name, x, y) is float64:
            if y.dtype is uint64 and x.dtype.kind == "i":
                return where(x < 0, _below(how), plain(astype(x, uint64), y))
            if x.dtype is uint64 and y.dtype.kind == "i":
                return where(y < 0, _below(_MIRRORED[how]), plain(x, astype(y, uint64)))
        for tensor, number, order in ((x, y, how), (y, x, _MIRRORED[how])):
            if isinstance(tensor, Tensor) and not fits(number, tensor.dtype):
                holds = ("ne", "lt", "le") if cast(int, number) > 0 else ("ne", "gt", "ge")
                return full_like(tensor, order in holds, bool_)
        return plain(x, y)

    function.__name__, function.__doc__ = name, doc
    install(**{name: function})
    return function


def _below(how: str) -> bool:
    """The result of comparison `how` where x is less than y."""
    return how in ("ne", "lt", "le")


# A Python int that no element can reach compares as the number that it is.
# int64 and uint64 would meet in float64, which does not tell all of them apart. Like NumPy, graphc compares exactly.
_MIRRORED = {"eq": "eq", "ne": "ne", "lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}

equal = _comparison("equal", "x == y; false if either is nan.", "eq")
not_equal = _comparison("not_equal", "x != y; true if either is nan.", "ne")
less = _comparison("less", "x < y; false if either is nan.", "lt")
less_equal = _comparison("less_equal", "x <= y; false if either is nan.", "le")
greater = _comparison("greater", "x > y; false if either is nan.", "gt")
greater_equal = _comparison("greater_equal", "x >= y; false if either is nan.", "ge")

_isnan_of_floats = unary_function(
    register(
        Op(
            "isnan",
            "Whether x is nan. (An integer or a bool never is.)",
            same_type("f", bool_),
            ufunc(np.isnan),
            lowering=Elementwise(lambda h, attrs, x: h.ne(x, x)),
            samples=unary,
            exempt=_BOOLEAN,
            formula="x != x",
            nan="True for NaN.",
        )
    )
)


def isnan(x: TensorLike) -> Tensor:
    """Whether x is nan. (An integer or a bool never is.)"""
    tensor = as_tensor(x)
    return _isnan_of_floats(tensor) if tensor.dtype.is_float else full_like(tensor, False, bool_)
