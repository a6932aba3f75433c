"""How functions take their arguments: promotion and broadcasting, each in one place, and normalised axes.

`matched` makes operands of one dtype and one shape, with `cast` and `broadcast_to` nodes, so that no op promotes or
broadcasts. `unary_function` and `binary_function` turn an elementwise op's entry into the public function.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar, Union, cast

import numpy as np

from graphc import build
from graphc.build import Tensor, apply, constant, signature
from graphc.conversion import cast_array
from graphc.errors import ArgumentError, DTypeError, GraphcError, IntegerRangeError, ShapeError, fail
from graphc.graph import Attrs, ConstantData, Node, Op, Types, shown
from graphc.types import (
    Dim,
    DType,
    Shape,
    Size,
    TensorType,
    bfloat16,
    bool_,
    broadcast_shapes,
    float16,
    float32,
    float64,
    int64,
)

TensorLike = Union[Tensor, np.ndarray, np.generic, float, int, bool, Dim, Sequence[Any]]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_WEAK = (bool, int, float)  # exact types: np.float64 is a float, but not weak


def as_tensor(x: TensorLike) -> Tensor:
    """A Tensor as it is, a named size as an int64 scalar, anything else as a constant."""
    if isinstance(x, Dim):
        return cast(Tensor, apply("dim_value", size=x, dtype=int64))
    return x if isinstance(x, Tensor) else constant(x)


def of_tensors(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """`function` for arrays too: what it declares a Tensor is made one, and what cannot be one is an ArgumentError.

    For functions that ask an argument for its dtype or shape before any op sees it.
    """
    kinds = function.__annotations__  # text: every module annotates lazily
    declared = [name for name in kinds if name != "return"]
    tensors = {name: "None" in kind for name, kind in kinds.items() if kind in ("Tensor", "Tensor | None")}

    def taken(name: str, given: Any) -> Any:
        if isinstance(given, Tensor) or name not in tensors or (given is None and tensors[name]):
            return given
        if given is None or isinstance(given, (str, dict, set)):
            fail(ArgumentError, f"{function.__name__}: {name} must be a tensor or an array, not {shown(given)}")
        return as_tensor(given)

    @wraps(function)
    def taking(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        placed: Any = [taken(name, x) for name, x in zip(declared, args, strict=False)]
        named: Any = {name: taken(name, x) for name, x in kwargs.items()}
        placed += args[len(placed) :]  # more than there are: Python says so
        return function(*placed, **named)

    return taking


def integer(name: str, what: str, given: Any) -> int:
    """An int (NumPy's too), or an ArgumentError."""
    try:
        return operator.index(given)
    except TypeError:
        fail(ArgumentError, f"{name}: {what} must be an int, not {shown(given)}")


def integers(name: str, what: str, given: Any) -> list[int]:
    """An int (NumPy's too), or a sequence of them, as a list; an ArgumentError for anything else."""
    several = isinstance(given, (tuple, list, range)) or (isinstance(given, np.ndarray) and given.ndim == 1)
    try:
        return [operator.index(n) for n in (given if several else (given,))]
    except TypeError:
        fail(ArgumentError, f"{name}: {what} must be an int or a sequence of them, not {shown(given)}")


def promoted(name: str, *operands: TensorLike) -> DType:
    """NumPy's common dtype (NEP 50): Python scalars and sizes are weak, they take the dtype of the others."""
    kinds: list[DType | type] = []  # the type of a Python scalar stands for the scalar
    for x in operands:
        if x is None or isinstance(x, str):
            fail(ArgumentError, f"{name}: {shown(x)} is neither a tensor nor a number")
        if isinstance(x, Tensor):
            kinds.append(x.dtype)
        elif isinstance(x, Dim):
            kinds.append(int)
        else:
            kinds.append(type(x) if type(x) in _WEAK else DType.of(build.as_array(x).dtype))
    return _result_type(tuple(kinds))


@cache
def _result_type(kinds: tuple[DType | type, ...]) -> DType:
    if not any(isinstance(kind, DType) for kind in kinds):
        return DType.of(np.result_type(*cast(tuple[type, ...], kinds)))
    if bfloat16 in kinds:
        return _with_bfloat16({kind for kind in kinds if kind is not bfloat16})
    return DType.of(np.result_type(*(kind.numpy if isinstance(kind, DType) else kind(1) for kind in kinds)))


def promoted_with(dtype: DType, scalar: type) -> DType:
    """The common dtype of a tensor and a Python scalar of this type."""
    return _result_type((dtype, scalar))


def _with_bfloat16(others: set[DType | type]) -> DType:
    """JAX's rule: bfloat16 wins over bools, integers and Python scalars; with float16 it makes float32."""
    wide = float64 in others
    return float64 if wide else float32 if others & {float16, float32} else bfloat16


def converted(name: str, x: TensorLike, dtype: DType) -> Tensor:
    """`x` as a Tensor of `dtype`; a Python scalar must fit it. A size is rounded or wrapped as a cast does."""
    if isinstance(x, Dim):
        if dtype.is_float or dtype is int64:
            return cast(Tensor, apply("dim_value", size=x, dtype=dtype))
        x = as_tensor(x)
    if isinstance(x, Tensor):
        return x if x.dtype is dtype else cast(Tensor, apply("cast", x, dtype=dtype))
    if not fits(x, dtype):
        hint = "convert the tensor first: x.astype('int64'), say"
        fail(IntegerRangeError, f"{name}: {x!r} does not fit {dtype.name}", hint)
    array = cast_array(np.asarray(_finite(x) if type(x) is int and dtype.is_float else x), dtype)
    return cast(Tensor, apply("constant", data=ConstantData(array)))


def fits(x: Any, dtype: DType) -> bool:
    """Whether `x` is no Python int, or one that the integer dtype `dtype` holds."""
    if type(x) is not int or not dtype.is_integer:
        return True
    info = np.iinfo(dtype.numpy)
    return info.min <= x <= info.max


def _finite(x: int) -> float:
    """A Python int as a float64, an infinity where it is too large, as NumPy has it."""
    try:
        return float(x)
    except OverflowError:
        return math.inf if x > 0 else -math.inf


def expanded(x: Tensor, shape: Shape) -> Tensor:
    """`x` broadcast to `shape` (the node is left out where nothing changes)."""
    return x if x.shape == shape else cast(Tensor, apply("broadcast_to", x, shape=shape))


def shape_of(name: str, shape: Any, least: int = 0) -> Shape:
    """A shape that a user wrote: an int, a size or a name of one, or a sequence of them. No int is below `least`."""
    sizes: list[Size] = []
    several = isinstance(shape, (tuple, list)) or (isinstance(shape, np.ndarray) and shape.ndim > 0)
    for size in tuple(shape) if several else (shape,):
        if isinstance(size, str) and size.isidentifier():
            sizes.append(Dim.symbol(size))
        elif isinstance(size, Dim):
            sizes.append(size)
        elif hasattr(size, "__index__") and not isinstance(size, (bool, type, np.ndarray)):
            sizes.append(operator.index(size))
        else:
            hint = "a size is an int, the name of a size, or one of tensor.shape"
            fail(ArgumentError, f"{name}: {shown(size)} is no size", hint)
        if isinstance(sizes[-1], int) and sizes[-1] < least:
            fail(ShapeError, f"{name}: size {sizes[-1]} is negative")
    return tuple(sizes)


def broadcast_shape(name: str, *tensors: Tensor) -> Shape:
    """The common shape, or a ShapeError that names the operands."""
    try:
        return broadcast_shapes(*(t.shape for t in tensors))
    except ValueError as error:
        hint = "sizes fit if they are equal or 1; reshape or expand_dims to line the axes up from the right"
        fail(ShapeError, f"{name}: shapes do not broadcast: {signature(*tensors)} ({error})", hint)


def matched(name: str, *operands: TensorLike, dtype: DType | None = None) -> list[Tensor]:
    """`operands` promoted to one dtype (or `dtype`) and broadcast to one shape."""
    common = dtype or promoted(name, *operands)
    tensors = [converted(name, x, common) for x in operands]
    given = [x if isinstance(x, Tensor) else t for x, t in zip(operands, tensors, strict=True)]  # an error names these
    shape = broadcast_shape(name, *given)
    return [expanded(t, shape) for t in tensors]


def floating(dtype: DType) -> DType:
    """The dtype in which NumPy computes exp and its like (float16, which graphc lacks, becomes float32)."""
    if dtype.is_float:
        return dtype
    return float32 if dtype.itemsize <= 2 else float64


def normalized_axis(name: str, axis: int, rank: int, x: Tensor | None = None) -> int:
    """A non-negative axis, or a ShapeError."""
    index = integer(name, "axis", axis)
    if not -rank <= index < rank:
        which = f" of {shown(x)}" if x is not None else ""
        hint = f"axes go from {-rank} to {rank - 1}" if rank else "a scalar has no axes"
        fail(ShapeError, f"{name}: there is no axis {index}{which}", hint)
    return index % rank


def normalized_axes(name: str, axis: int | Sequence[int] | None, rank: int, x: Tensor | None = None) -> tuple[int, ...]:
    """Sorted non-negative axes: all of them for None. A repeated axis is an error."""
    if axis is None:
        return tuple(range(rank))
    given = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    axes = sorted(normalized_axis(name, cast(int, a), rank, x) for a in given)
    if len(set(axes)) != len(axes):
        fail(ShapeError, f"{name}: axis {axis} names an axis twice")
    return tuple(axes)


# Type rules that most ops share. They see operands of equal shape, since `matched` made them so.


def same_type(kinds: str, result: DType | None = None, arity: int = 1) -> Callable[[Types, Attrs], Types]:
    """The rule of an elementwise op: `arity` operands of one type whose NumPy kind is in `kinds`."""

    def rule(types: Types, attrs: Attrs) -> Types:
        check_elementwise(types, arity, kinds)
        return (types[0].with_dtype(result or types[0].dtype),)

    return rule


def check_elementwise(types: Types, arity: int, kinds: str) -> None:
    """ShapeError or DTypeError unless there are `arity` types, all the same, of a kind in `kinds`."""
    if len(types) != arity:
        raise ArgumentError(f"takes {arity} operands, not {len(types)}")
    for position, other in enumerate(types[1:], 1):
        if other != types[0]:
            kind: type[GraphcError] = ShapeError if other.shape != types[0].shape else DTypeError
            raise kind(f"{{0}} is {types[0]}, {{{position}}} is {other}; an op's operands have one type")
    check_kind(types[0], kinds)


def check_kind(type_: TensorType, kinds: str, position: int = 0) -> None:
    """DTypeError unless the dtype is of a kind in `kinds` (NumPy's letters b, i, u, f)."""
    if type_.dtype.kind not in kinds:
        names = {"b": "bool", "i": "signed", "u": "unsigned", "f": "float"}
        allowed = ", ".join(names[k] for k in kinds)
        message = f"not defined for {type_.dtype.name}: {{{position}}} is {type_} (it takes {allowed})"
        raise DTypeError(message, hint="convert it with astype")


def ufunc(function: Callable[..., Any]) -> Callable[[Sequence[np.ndarray], Attrs], tuple[np.ndarray, ...]]:
    """The reference of an elementwise op that is a NumPy function."""
    return lambda arrays, attrs: (np.asarray(function(*arrays)),)


def tensors_of(node: Node) -> list[Tensor]:
    """The operands of a node as Tensors, for gradient rules."""
    return [Tensor(value) for value in node.inputs]


def result_of(node: Node, index: int = 0) -> Tensor:
    """A result of a node as a Tensor, for gradient rules that reuse it."""
    return Tensor(node.outputs[index])


def unary_function(op: Op, convert: Callable[[DType], DType] | None = None) -> Callable[[TensorLike], Tensor]:
    """The public function of an op of one operand; `convert` says in which dtype it is computed."""

    def function(x: TensorLike) -> Tensor:
        dtype = promoted(op.name, x)
        return cast(Tensor, apply(op, converted(op.name, x, convert(dtype) if convert else dtype)))

    _publish(function, op)
    return function


def binary_function(
    op: Op, convert: Callable[[DType], DType] | None = None
) -> Callable[[TensorLike, TensorLike], Tensor]:
    """The public function of an op of two operands, promoted and broadcast."""

    def function(x: TensorLike, y: TensorLike) -> Tensor:
        dtype = promoted(op.name, x, y)
        return cast(Tensor, apply(op, *matched(op.name, x, y, dtype=convert(dtype) if convert else dtype)))

    _publish(function, op)
    return function


def _publish(function: Any, op: Op) -> None:
    """Name and document `function` after its op, and make it the Tensor operator of that name."""
    function.__name__ = function.__qualname__ = op.name
    function.__doc__ = op.doc
    build.install(**{op.name: function})


def other_sizes(shape: Shape, axis: int) -> Shape:
    """The sizes of all axes but one."""
    return shape[:axis] + shape[axis + 1 :]


def combination(of_bools: str, of_numbers: str) -> Callable[..., Any]:
    """What folds two values of one dtype, for `Reduction` and `Scan`: one op of the handler, or the other."""
    return lambda h, a, x: getattr(h, of_bools if x.dtype is bool_ else of_numbers)(a, x)


def to_bool(dtype: DType) -> DType:
    """The dtype of logical ops, whatever they are given."""
    return bool_
