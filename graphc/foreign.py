"""What other libraries may do with a Tensor: NumPy's operators build nodes, all else is refused by name.

Enter at `Foreign`, which `graphc.build.Tensor` inherits. An operator that NumPy sees first (`array + tensor`) is a line
of `_OPERATORS`: the Tensor's method for it on the left and on the right.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

from graphc.elsewhere import unknown
from graphc.errors import ArgumentError, fail
from graphc.graph import Value, shown

_OPERATORS = {
    "add": ("__add__", "__radd__"),
    "subtract": ("__sub__", "__rsub__"),
    "multiply": ("__mul__", "__rmul__"),
    "divide": ("__truediv__", "__rtruediv__"),
    "floor_divide": ("__floordiv__", "__rfloordiv__"),
    "remainder": ("__mod__", "__rmod__"),
    "power": ("__pow__", "__rpow__"),
    "matmul": ("__matmul__", "__rmatmul__"),
    "equal": ("__eq__", "__eq__"),
    "not_equal": ("__ne__", "__ne__"),
    "less": ("__lt__", "__gt__"),
    "less_equal": ("__le__", "__ge__"),
    "greater": ("__gt__", "__lt__"),
    "greater_equal": ("__ge__", "__le__"),
    "bitwise_and": ("__and__", "__rand__"),
    "bitwise_or": ("__or__", "__ror__"),
    "bitwise_xor": ("__xor__", "__rxor__"),
    "left_shift": ("__lshift__", "__rlshift__"),
    "right_shift": ("__rshift__", "__rrshift__"),
}


class Foreign:
    """The part of a Tensor that NumPy, copy and pickle see. All errors are ArgumentErrors, so TypeErrors."""

    __slots__ = ()
    ref: Value

    if not TYPE_CHECKING:  # a type checker finds it itself

        def __getattr__(self, name: str) -> NoReturn:
            raise unknown("a Tensor", name, [known for known in dir(type(self)) if known[0] != "_"])

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__" or options or ufunc.__name__ not in _OPERATORS:
            name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
            _refuse(name, next(x for x in (*inputs, self) if isinstance(x, Foreign)))
        left, right = _OPERATORS[ufunc.__name__]
        if isinstance(inputs[0], Foreign):
            return getattr(inputs[0], left)(inputs[1])
        return getattr(inputs[1], right)(inputs[0])

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> NoReturn:
        _refuse(function.__name__, self)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        hint = "graphc.text.save writes graphs, graphc.nn.save the values of parameters"
        fail(ArgumentError, f"{shown(self)} is a node of a graph: it cannot be copied or pickled", hint)


def _refuse(name: str, tensor: Foreign) -> NoReturn:
    """The error of `np.name(tensor)`, with the function of that name in graphc as the hint where there is one."""
    ours = hasattr(sys.modules.get("graphc"), name)
    hint = f"use graphc.{name}" if ours else "use graphc's functions, or tensor.eval({...})"
    fail(ArgumentError, f"np.{name} does not take a tensor: {shown(tensor)} has no array yet", hint)
