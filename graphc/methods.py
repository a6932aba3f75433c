"""The methods of a Tensor that are functions of arrays: `x.sum(axis=0)` is `graphc.sum(x, axis=0)`, as in NumPy.

Enter at `Methods`, which `graphc.build.Tensor` inherits. They are looked up in a table that `graphc.ops` fills
(`install`), because ops are a layer above this one. To add a method, add it here and install its function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from graphc.foreign import Foreign

if TYPE_CHECKING:
    from graphc.build import Tensor

sugar: dict[str, Callable[..., Any]] = {}


def install(**functions: Callable[..., Any]) -> None:
    """Give the operators and methods of `Tensor` their meaning: `install(add=...)` makes `x + y` call it."""
    sugar.update(functions)


def call(name: str, *args: Any, **kwargs: Any) -> Tensor:
    return cast("Tensor", sugar[name](*args, **kwargs))


class Methods(Foreign):
    """Each method is the function of the same name, with its arguments behind the first."""

    __slots__ = ()

    @property
    def T(self) -> Tensor:
        """The transpose of a matrix (all axes reversed)."""
        return call("transpose", self)

    @property
    def mT(self) -> Tensor:
        """The transpose of each matrix: the last two axes exchanged."""
        return call("matrix_transpose", self)

    @property
    def at(self) -> Any:
        """`x.at[key].set(values)`, and add, mul, max, min, get: `x` with x[key] changed, for every key that reads."""
        return call("at", self)

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in another shape; one size may be -1. `x.reshape(2, 3)` or `x.reshape((2, 3))`."""
        return call("reshape", self, shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape)

    def transpose(self, *axes: Any) -> Tensor:
        """The axes in another order; reversed without arguments."""
        order = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
        return call("transpose", self, order or None)

    def swapaxes(self, axis1: int, axis2: int) -> Tensor:
        return call("swapaxes", self, axis1, axis2)

    def squeeze(self, axis: Any = None) -> Tensor:
        return call("squeeze", self, axis)

    def ravel(self) -> Tensor:
        """The elements in row-major order along one axis."""
        return call("ravel", self)

    def flatten(self, start: int = 0, end: int = -1) -> Tensor:
        """The axes from `start` to `end` as one: `x.flatten(1)` for the rows of a batch."""
        return call("flatten", self, start, end)

    def repeat(self, repeats: Any, axis: int | None = None) -> Tensor:
        return call("repeat", self, repeats, axis)

    def take(self, indices: Any, axis: int | None = None) -> Tensor:
        return call("take", self, indices, axis)

    def astype(self, dtype: Any) -> Tensor:
        """The elements cast to `dtype`, as `ndarray.astype`."""
        return call("astype", self, dtype)

    def clip(self, min: Any = None, max: Any = None) -> Tensor:
        return call("clip", self, min, max)

    def round(self, decimals: int = 0) -> Tensor:
        return call("round", self, decimals)

    def sum(self, axis: Any = None, keepdims: bool = False, dtype: Any = None) -> Tensor:
        return call("sum", self, axis, keepdims, dtype)

    def prod(self, axis: Any = None, keepdims: bool = False, dtype: Any = None) -> Tensor:
        return call("prod", self, axis, keepdims, dtype)

    def mean(self, axis: Any = None, keepdims: bool = False, dtype: Any = None) -> Tensor:
        return call("mean", self, axis, keepdims, dtype)

    def var(self, axis: Any = None, correction: float = 0, keepdims: bool = False) -> Tensor:
        return call("var", self, axis, correction, keepdims)

    def std(self, axis: Any = None, correction: float = 0, keepdims: bool = False) -> Tensor:
        return call("std", self, axis, correction, keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return call("max", self, axis, keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return call("min", self, axis, keepdims)

    def all(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return call("all", self, axis, keepdims)

    def any(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return call("any", self, axis, keepdims)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        return call("argmax", self, axis, keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        return call("argmin", self, axis, keepdims)

    def argsort(self, axis: int = -1, descending: bool = False) -> Tensor:
        return call("argsort", self, axis, descending)

    def cumsum(self, axis: int | None = None) -> Tensor:
        return call("cumsum", self, axis)

    def cumprod(self, axis: int | None = None) -> Tensor:
        return call("cumprod", self, axis)
