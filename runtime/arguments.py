"""The arguments of a call: matched to placeholders, converted, and their sizes compared with the names of dimensions.

The slow, explaining path: a call whose arguments are arrays of the very types and sizes of the call before never
comes here (`graphc.runtime.entry`). Converted are lists, Python scalars, strides, byte orders and dtypes that
`np.can_cast(..., "safe")` allows; everything else is an error that names the argument, what it was and the fix.
Enter at `Arguments.bind`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.bounds import ANY, Bounds, Telling, solution
from graphc.conversion import cast_array
from graphc.errors import ArgumentError, DTypeError, InternalError, ShapeError, SourceLine
from graphc.types import DType, TensorType, bfloat16, casts_safely, evaluate, symbols

_WEAK = (bool, int, float, list, tuple)  # values without a dtype of their own
_KINDS = {"b": "b", "u": "biu", "i": "biu", "f": "biuf"}  # dtype kind -> kinds of weak values that fit


class Arguments:
    """The inputs of one function: `names` in call order, their types, and the lines that made them.

    `dims` are the names of the dimensions whose values `bind` returns, in order; `limits` those that calls must keep.
    """

    def __init__(
        self,
        function: str,
        names: Sequence[str],
        types: Sequence[TensorType],
        dims: Sequence[str],
        lines: Mapping[str, tuple[SourceLine, ...]],
        limits: Mapping[str, Bounds] | None = None,
    ) -> None:
        self.function, self.names, self.types, self.dims = function, tuple(names), tuple(types), tuple(dims)
        self._lines, self._limits = lines, limits or {}
        self._positions = {name: i for i, name in enumerate(self.names)}
        self._steps, _ = solution([kind.shape for kind in self.types])
        if missing := sorted(set(self.dims) - {step.name for step in self._steps}):
            raise InternalError(f"{function}: no argument has the dimension {', '.join(missing)}")

    def bind(self, args: Sequence[Any], named: Mapping[str, Any]) -> tuple[list[np.ndarray], tuple[int, ...]]:
        """C-contiguous arrays of the placeholders' dtypes, and the values of `dims`.

        Raises ArgumentError, DTypeError or ShapeError.
        """
        arrays = [self._convert(i, value) for i, value in enumerate(self._match(args, named))]
        return arrays, self._sizes(arrays)

    def _match(self, args: Sequence[Any], named: Mapping[str, Any]) -> list[Any]:
        """The values in call order."""
        if len(args) > len(self.names):
            raise ArgumentError(
                f"{self.function} takes {_count(len(self.names))}, got {len(args)}",
                hint=f"the signature is {self}",
            )
        values: dict[str, Any] = dict(zip(self.names, args, strict=False))
        for name, value in named.items():
            if name not in self._positions:
                raise ArgumentError(
                    f"{self.function} has no argument {name!r}",
                    hint=f"the signature is {self}",
                )
            if name in values:
                raise ArgumentError(f"{self.function} got the argument {name!r} twice", self._lines.get(name, ()))
            values[name] = value
        missing = [name for name in self.names if name not in values]
        if missing:
            raise ArgumentError(
                f"{self.function} misses the argument{'s' * (len(missing) > 1)} {', '.join(map(repr, missing))}",
                self._lines.get(missing[0], ()),
                f"the signature is {self}",
            )
        return [values[name] for name in self.names]

    def __str__(self) -> str:
        return f"{self.function}({', '.join(f'{n}: {t}' for n, t in zip(self.names, self.types, strict=True))})"

    def _convert(self, position: int, value: Any) -> np.ndarray:
        wanted = self.types[position].dtype
        if isinstance(value, _WEAK) and not isinstance(value, np.generic):
            array = self._weak(position, value)
        else:
            try:
                array = np.asarray(value)
            except Exception as error:
                raise self._dtype_error(position, f"a {type(value).__name__} is not an array: {error}") from None
            if not casts_safely(array.dtype, wanted):
                raise self._dtype_error(
                    position,
                    f"is {array.dtype}, which does not fit into {wanted.name} without loss",
                    self._fix(position, wanted),
                )
        return np.ascontiguousarray(cast_array(array, wanted)).reshape(array.shape)

    def _weak(self, position: int, value: Any) -> np.ndarray:
        """A list or a Python scalar: its values have to be of the placeholder's kind, their precision is ours."""
        wanted = self.types[position].dtype
        try:
            natural = np.asarray(value)
        except Exception as error:  # whatever an item's own conversion raises
            raise self._dtype_error(position, f"is not an array: {error}") from None
        if (natural.size or natural.dtype.kind in "SUO") and natural.dtype.kind not in _KINDS[wanted.kind]:
            message = f"holds {natural.dtype} values, which do not fit into {wanted.name}"
            raise self._dtype_error(position, message, self._fix(position, wanted))
        array = cast_array(natural, wanted)
        if wanted.is_integer and not np.array_equal(array, natural):
            raise self._dtype_error(position, f"holds values outside of {wanted.name}", None)
        return array

    def _fix(self, position: int, wanted: DType) -> str:
        name = self.names[position]
        if wanted is bfloat16:
            return f"convert it yourself: {name}=graphc.cast_array(np.asarray({name}), graphc.bfloat16)"
        return f"convert it yourself: {name}=np.asarray({name}).astype(np.{wanted.numpy.name})"

    def _dtype_error(self, position: int, message: str, hint: str | None = None) -> DTypeError:
        name = self.names[position]
        kind = self.types[position]
        return DTypeError(f"{self.function}: argument {name!r} ({kind}) {message}", self._lines.get(name, ()), hint)

    def _sizes(self, arrays: Sequence[np.ndarray]) -> tuple[int, ...]:
        """Compare all shapes; the values of the dimensions."""
        values: dict[str, int] = {}
        givers: dict[str, str] = {}
        for name, kind, array in zip(self.names, self.types, arrays, strict=True):
            if array.ndim != kind.rank:
                raise ShapeError(
                    f"{self.function}: argument {name!r} has {_axes(array.ndim)} {array.shape}, "
                    f"but {name} is {kind} with {_axes(kind.rank)}",
                    self._lines.get(name, ()),
                )
        for step in self._steps:
            self._tell(step, arrays, values, givers)
        for name, kind, array in zip(self.names, self.types, arrays, strict=True):
            for axis, (size, got) in enumerate(zip(kind.shape, array.shape, strict=True)):
                if got != evaluate(size, values):
                    self._size_error(name, kind, array, axis, values, givers)
        return tuple(values[name] for name in self.dims)

    def _tell(
        self, step: Telling, arrays: Sequence[np.ndarray], values: dict[str, int], givers: dict[str, str]
    ) -> None:
        """The value that an argument's size gives a name, checked against the limits of the name."""
        argument, kind, shape = self.names[step.argument], self.types[step.argument], arrays[step.argument].shape
        where = f"{self.function}: argument {argument!r} ({kind}) has shape {shape}: axis {step.axis} is "
        lines, got, size = self._lines.get(argument, ()), shape[step.axis], kind.shape[step.axis]
        value = step.value(got, values)
        if value is None:
            others = sorted(symbols(size) - {step.name})
            because = f" with {', '.join(f'{other} = {values[other]}' for other in others)}" if others else ""
            raise ShapeError(f"{where}{got}, which {size} is for no {step.name}{because}", lines)
        if broken := self._limits.get(step.name, ANY).broken(value):
            told = f"{got}" if str(size) == step.name else f"{got}, so {step.name} is {value}"
            hint = f"the size is declared as dim {step.name}: {self._limits[step.name]}"
            raise ShapeError(f"{where}{told}, which is {broken}", lines, hint)
        values[step.name], givers[step.name] = value, argument

    def _size_error(
        self,
        name: str,
        kind: TensorType,
        array: np.ndarray,
        axis: int,
        values: Mapping[str, int],
        givers: Mapping[str, str],
    ) -> None:
        size = kind.shape[axis]
        lines = self._lines.get(name, ())
        message = f"{self.function}: argument {name!r} ({kind}) has shape {array.shape}: "
        if isinstance(size, int):
            raise ShapeError(f"{message}axis {axis} is {array.shape[axis]}, not {size}", lines)
        others = sorted({givers[symbol] for symbol in symbols(size)})
        raise ShapeError(
            f"{message}axis {axis} is {array.shape[axis]}, but {size} is {evaluate(size, values)} "
            f"by argument {', '.join(map(repr, others))}",
            lines + tuple(line for other in others if other != name for line in self._lines.get(other, ())),
            "dimensions of one name have one size in a call",
        )


def _count(number: int) -> str:
    return f"{number} argument{'s' * (number != 1)}"


def _axes(number: int) -> str:
    return f"{number} ax{'i' if number == 1 else 'e'}s"
