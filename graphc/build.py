"""What users hold: `Tensor` (a value with operators), `placeholder`, `parameter`, `constant`, and `apply`.

`apply` is the only way from an op to a Tensor: it makes the node and records the user's source line. The operators of
`Tensor` are looked up in a table that `graphc.ops` fills (`install`), because ops are a layer above this one. To add an
operator, add it here and install a function of that name there; methods are in `graphc.methods`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, cast

import numpy as np

from graphc.conversion import cast_array
from graphc.declared import checked_name, checked_size
from graphc.errors import ArgumentError, DTypeError, ShapeError, SourceLine, user_line
from graphc.errors import fail as fail
from graphc.graph import ConstantData, Op, Origin, Value, describe, inheriting, make_node, origin_of, shown
from graphc.methods import Methods, call, sugar
from graphc.methods import install as install
from graphc.state import ParameterState
from graphc.types import Dim, DType, Size, TensorType, casts_safely, is_bfloat16

OPS: dict[str, Op] = {}  # every op by name; filled by graphc.ops.registry.register


def apply(op: Op | str, /, *inputs: Tensor | Value, **attrs: Any) -> Any:
    """The Tensor of a new node (a tuple of them if the op has several results); attrs are the op's own, normalised.

    Raises what the op's type rule raises, with the names of the operands and the user's line.
    """
    found = OPS[op] if isinstance(op, str) else op
    values = [x.ref if isinstance(x, Tensor) else x for x in inputs]
    line = None if inheriting() else user_line()
    node = make_node(found, values, attrs, None if line is None else Origin((line,)))
    tensors = tuple(Tensor(value) for value in node.outputs)
    return tensors[0] if len(tensors) == 1 else tensors


def lines_of(*tensors: Tensor) -> tuple[SourceLine, ...]:
    """The first source line of each tensor that has one."""
    origins = [origin_of(t.ref.node) for t in tensors]
    return tuple(o.lines[0] for o in origins if o is not None and o.lines)


def signature(*tensors: Tensor) -> str:
    """Operands as errors print them: `x is f32[3,4], w is f32[5]`."""
    return ", ".join(f"{describe(t.ref)} is {t.type}" for t in tensors)


class Tensor(Methods):
    """A value of a graph: it has a type, no data. Operators build further nodes; `eval` computes its value.

    `==` is elementwise (a Tensor); tensors are hashed by the value that they stand for.
    """

    __slots__ = ("__weakref__", "ref")
    __array_priority__ = 1000

    def __init__(self, ref: Value) -> None:
        self.ref = ref

    @property
    def type(self) -> TensorType:
        """dtype and shape, printed as `f32[batch,128]`."""
        return self.ref.type

    @property
    def dtype(self) -> DType:
        return self.ref.type.dtype

    @property
    def shape(self) -> tuple[Size, ...]:
        """The sizes: ints and `Dim`s."""
        return self.ref.type.shape

    @property
    def ndim(self) -> int:
        return len(self.ref.type.shape)

    @property
    def size(self) -> Size:
        """The number of elements."""
        return self.ref.type.size

    @property
    def name(self) -> str | None:
        """The name of a placeholder or parameter, None for anything else that nobody named."""
        origin = origin_of(self.ref.node)
        return self.ref.node.attrs.get("name") or (origin.name if origin else None)

    def __repr__(self) -> str:
        node = self.ref.node
        if self.name is not None and not node.inputs:
            producer = f"{node.op.name} {self.name}"
        else:
            producer = f"{node.op.name}({', '.join(describe(v) for v in node.inputs)})"
        lines = lines_of(self)
        return f"{self.type} = {producer}" + (f"  # {lines[0]}" if lines else "")

    def __hash__(self) -> int:
        return hash((id(self.ref.node), self.ref.index))

    # Operators. The reflected forms serve NumPy arrays and Python scalars on the left.
    def __add__(self, other: Any) -> Tensor:
        return call("add", self, other)

    def __radd__(self, other: Any) -> Tensor:
        return call("add", other, self)

    def __sub__(self, other: Any) -> Tensor:
        return call("subtract", self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return call("subtract", other, self)

    def __mul__(self, other: Any) -> Tensor:
        return call("multiply", self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return call("multiply", other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return call("divide", self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return call("divide", other, self)

    def __floordiv__(self, other: Any) -> Tensor:
        return call("floor_divide", self, other)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return call("floor_divide", other, self)

    def __mod__(self, other: Any) -> Tensor:
        return call("remainder", self, other)

    def __rmod__(self, other: Any) -> Tensor:
        return call("remainder", other, self)

    def __pow__(self, other: Any) -> Tensor:
        return call("power", self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return call("power", other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return call("matmul", self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return call("matmul", other, self)

    def __neg__(self) -> Tensor:
        return call("negative", self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return call("abs", self)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]  # elementwise, as in NumPy
        return call("equal", self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return call("not_equal", self, other)

    def __lt__(self, other: Any) -> Tensor:
        return call("less", self, other)

    def __le__(self, other: Any) -> Tensor:
        return call("less_equal", self, other)

    def __gt__(self, other: Any) -> Tensor:
        return call("greater", self, other)

    def __ge__(self, other: Any) -> Tensor:
        return call("greater_equal", self, other)

    def __and__(self, other: Any) -> Tensor:
        return call("bitwise_and", self, other)

    __rand__ = __and__

    def __or__(self, other: Any) -> Tensor:
        return call("bitwise_or", self, other)

    __ror__ = __or__

    def __xor__(self, other: Any) -> Tensor:
        return call("bitwise_xor", self, other)

    __rxor__ = __xor__

    def __lshift__(self, other: Any) -> Tensor:
        return call("bitwise_left_shift", self, other)

    def __rlshift__(self, other: Any) -> Tensor:
        return call("bitwise_left_shift", other, self)

    def __rshift__(self, other: Any) -> Tensor:
        return call("bitwise_right_shift", self, other)

    def __rrshift__(self, other: Any) -> Tensor:
        return call("bitwise_right_shift", other, self)

    def __invert__(self) -> Tensor:
        return call("bitwise_invert", self)

    def __getitem__(self, key: Any) -> Tensor:
        """`x[key]` as in NumPy: ints, slices, None, ..., integer arrays and tensors, masks that are constant."""
        return call("getitem", self, key)

    def eval(self, feeds: Mapping[Tensor, Any] | None = None) -> np.ndarray:
        """The value, computed by the interpreter from arrays for the placeholders: `loss.eval({x: images})`."""
        return cast(np.ndarray, sugar["eval"](self, {} if feeds is None else feeds))

    # What a Tensor cannot be at build time.
    def __bool__(self) -> NoReturn:
        self._no_value("truth value (`if`, `and`, `or`, `not`, `while`)", "use graphc.where, & | ~, or maximum")

    def __len__(self) -> int:
        if self.ndim and isinstance(self.shape[0], int):
            return self.shape[0]
        self._no_value("length", "use tensor.shape")

    def __iter__(self) -> NoReturn:
        self._no_value("items to iterate over", "index it (x[0]), or use an operation on the whole tensor")

    def __contains__(self, item: object) -> NoReturn:
        self._no_value("items to search", "use graphc.any(x == item)")

    def __float__(self) -> NoReturn:
        self._no_value("float value", "use tensor.eval({...}), or return it from graphc.function")

    def __int__(self) -> NoReturn:
        self._no_value("int value", "use tensor.eval({...}), or return it from graphc.function")

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        self._no_value("array value", "use graphc's own function instead of NumPy's, or tensor.eval({...})")

    def _no_value(self, what: str, hint: str) -> NoReturn:
        line = user_line()
        lines = dict.fromkeys((*lines_of(self), *(() if line is None else (line,))))
        name = describe(self.ref)
        raise ArgumentError(f"{name} ({self.type}) has no {what} while the graph is being built", tuple(lines), hint)


class Parameter(Tensor):
    """Named state. `value` is a live view of its array, shared by every function that uses the parameter."""

    __slots__ = ()

    @property
    def state(self) -> ParameterState:
        return cast(ParameterState, self.ref.node.attrs["state"])

    @property
    def value(self) -> np.ndarray:
        """A live view; assigning checks shape and dtype and copies into it."""
        return self.state.array[...]

    @value.setter
    def value(self, new: Any) -> None:
        array = np.asarray(new)
        here, name = self.state.array, self.name
        if array.shape != here.shape:
            fail(ShapeError, f"parameter {name} has shape {list(here.shape)}, the new value has {list(array.shape)}")
        weak = isinstance(new, (int, float)) and (self.dtype.is_float or np.result_type(here.dtype, new) == here.dtype)
        if not weak and not casts_safely(array.dtype, self.dtype):
            message = f"parameter {name} is {here.dtype.name}, the new value is {array.dtype.name}: that narrows"
            fail(DTypeError, message, f"write value.astype({here.dtype.name!r}) if you mean it")
        with self.state.lock:
            here[...] = cast_array(array, self.dtype)

    @property
    def default_update(self) -> Tensor | None:
        """The next value of the parameter in every function whose graph uses it, or None."""
        return self.state.default_update

    @default_update.setter
    def default_update(self, new: Tensor | None) -> None:
        if new is not None and new.type != self.type:
            kind = ShapeError if new.shape != self.shape else DTypeError
            fail(kind, f"default_update of {self.name} is {new.type}, the parameter is {self.type}")
        self.state.default_update = new


def placeholder(name: str, shape: Sequence[int | str | Dim | None] | int | str = (), dtype: Any = "float32") -> Tensor:
    """An input. A string in `shape` is a named size (equal names are equal sizes), None an unnamed one."""
    if shape is None:
        fail(ShapeError, f"placeholder {name}: None is no shape", "write (None,) for one axis of any size")
    one = isinstance(shape, str) or not isinstance(shape, Iterable) or getattr(shape, "ndim", 1) == 0
    given = (shape,) if one else tuple(cast(Iterable[Any], shape))
    sizes = tuple(checked_size(checked_name(name), axis, size) for axis, size in enumerate(given))
    type_ = TensorType(as_dtype(dtype), sizes)
    return cast(Tensor, apply("placeholder", name=name, type=type_))


def parameter(name: str, array: Any, default_update: Tensor | None = None) -> Parameter:
    """Named state with the initial value `array`, which is copied. Its dtype and shape never change."""
    data = as_array(array)
    line = user_line()
    state = ParameterState(checked_name(name), data, () if line is None else (line,))
    type_ = TensorType(DType.of(data.dtype), data.shape)
    made = Parameter(apply("parameter", name=name, type=type_, state=state).ref)
    made.default_update = default_update
    return made


def constant(array: Any, dtype: Any = None) -> Tensor:
    """A constant with the values of `array`, which is copied (converted to `dtype` if given)."""
    data = as_array(array, None if dtype is None else as_dtype(dtype))
    return cast(Tensor, apply("constant", data=ConstantData(data)))


def as_dtype(spec: Any) -> DType:
    """`DType.of` with a user's error for a dtype that graphc does not have."""
    try:
        return DType.of(spec)
    except TypeError as error:
        fail(DTypeError, str(error))


def as_array(data: Any, dtype: DType | None = None) -> np.ndarray:
    """`data` as an array of a dtype that graphc has, in native byte order."""
    if isinstance(data, Tensor):
        fail(ArgumentError, f"an array is needed here, not a Tensor ({signature(data)})", "use it as it is")
    try:
        array = np.asarray(data)
    except ArgumentError:  # of a tensor in a list
        names = signature(*list(dict.fromkeys(_tensors_in(data)))[:3])
        fail(ArgumentError, f"a list with tensors is no array ({names})", "graphc.stack makes one of it")
    except ValueError as error:
        fail(ShapeError, f"not an array: {error}")
    if array.dtype.kind not in "biuf" and not is_bfloat16(array.dtype):
        if isinstance(data, Dim):
            fail(DTypeError, f"the size {data} is no array", "graphc.dim_value(size) is its value as a tensor")
        fail(DTypeError, f"{shown(data)}: graphc has no dtype {array.dtype}", "use numbers or bools")
    return cast_array(array, dtype or as_dtype(array.dtype))


def _tensors_in(data: Any) -> Iterator[Tensor]:
    """The tensors of a list of lists; `data` is no tensor itself."""
    for item in data if isinstance(data, (list, tuple)) else ():
        if isinstance(item, Tensor):
            yield item
        else:
            yield from _tensors_in(item)
