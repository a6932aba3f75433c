"""The interpreter: evaluates any graph, node by node, with the ops' NumPy references. The oracle of all tests.

Enter at `evaluate`. It follows no schedule and fuses nothing; kernel nodes evaluate their inner graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.bounds import bounds_of, solution
from graphc.build import Tensor, as_array, install
from graphc.conversion import cast_array, widened
from graphc.errors import ArgumentError, DTypeError, GraphcError, ShapeError
from graphc.graph import Attrs, Node, Value, describe, origin_of, shown, topological_order
from graphc.ops.operands import promoted_with
from graphc.types import Dim, Size, casts_safely, symbols
from graphc.types import evaluate as size_value

Feeds = Mapping[Value, np.ndarray]


def evaluate(outputs: Sequence[Value], feeds: Feeds) -> list[np.ndarray]:
    """The arrays of `outputs`, given arrays for placeholders; parameters not in `feeds` are read as they are now.

    A named size is what the feeds' shapes say; an array that does not fit its type is a ShapeError or DTypeError, a
    missing one an ArgumentError, a bad index an IndexRangeError. Results are never views of a feed or a parameter.
    """
    order = topological_order([v.node for v in outputs])
    dims = bind_dims(feeds)
    with np.errstate(all="ignore"):
        values = _run(order, outputs, feeds, dims)
    return [np.array(values[v], copy=True) for v in outputs]


def _run(
    order: Sequence[Node], outputs: Sequence[Value], feeds: Feeds, dims: Mapping[str, int]
) -> dict[Value, np.ndarray]:
    """All values that `outputs` need; an array is dropped after its last use."""
    values: dict[Value, np.ndarray] = dict(feeds)
    left: Counter[Value] = Counter(outputs)
    for node in order:
        left.update(node.inputs)
    for node in order:
        if node.inputs or Value(node) not in values:
            values.update(zip(node.outputs, _results(node, [values[v] for v in node.inputs], dims), strict=True))
        left.subtract(node.inputs)
        for value in (*node.inputs, *node.outputs):
            if not left[value]:
                values.pop(value, None)
    return values


def _results(node: Node, arrays: Sequence[np.ndarray], dims: Mapping[str, int]) -> Sequence[np.ndarray]:
    name = node.op.name
    if name == "placeholder":
        origin = origin_of(node)
        message = f"no array was given for {describe(Value(node))} ({node.types[0]})"
        hint = f"give one: tensor.eval({{{node.attrs['name']}: array}})"
        raise ArgumentError(message, origin.lines[:1] if origin else (), hint)
    if name == "parameter":
        return (node.attrs["state"].array.copy(),)  # as it is now, whatever is assigned later
    if name == "kernel":
        inner = node.attrs["graph"]
        given = dict(zip(inner.inputs, arrays, strict=True))
        values = _run(topological_order([v.node for v in inner.outputs]), inner.outputs, given, dims)
        return [values[v] for v in inner.outputs]
    if node.op.reference is None:
        raise GraphcError(f"{name} has no reference, the interpreter cannot evaluate it")
    try:
        return referred(node, arrays, concrete(node.attrs, dims))
    except GraphcError as error:
        origin = origin_of(node)
        raise type(error)(error.message, origin.lines[:1] if origin else (), error.hint) from None
    except KeyError as error:
        raise ShapeError(f"{name}: {error.args[0]}; no argument has that size", _lines(node)) from None


def referred(node: Node, arrays: Sequence[np.ndarray], attrs: Attrs) -> Sequence[np.ndarray]:
    """A node's results by the op's reference: float16 and bfloat16 count as float32, each result is rounded once."""
    assert node.op.reference is not None
    results = node.op.reference([widened(a) for a in arrays], attrs)
    if not any(t.dtype.is_narrow for t in node.types):
        return results
    return [cast_array(np.asarray(r), t.dtype) for r, t in zip(results, node.types, strict=True)]


def _lines(node: Node) -> tuple[Any, ...]:
    origin = origin_of(node)
    return origin.lines[:1] if origin else ()


def concrete(attrs: Attrs, dims: Mapping[str, int]) -> dict[str, Any]:
    """`attrs` with every size replaced by its value, as references see them."""
    return {name: _concrete(value, dims) for name, value in attrs.items()}


def _concrete(value: Any, dims: Mapping[str, int]) -> Any:
    if isinstance(value, Dim):
        return size_value(value, dims)
    if isinstance(value, (tuple, list)):
        return tuple(_concrete(item, dims) for item in value)
    return value


def bind_dims(feeds: Feeds) -> dict[str, int]:
    """The named sizes, from the shapes of `feeds`. An array that does not fit its type is an error that names it."""
    for value, array in feeds.items():
        name = describe(value)
        if array.ndim != value.type.rank:
            raise ShapeError(f"{name} is {value.type}, the argument has shape {list(array.shape)}", _lines(value.node))
        if array.dtype != value.type.dtype.numpy:
            raise DTypeError(f"{name} is {value.type}, the argument is {array.dtype.name}", _lines(value.node))
    dims: dict[str, int] = {}
    told: dict[str, str] = {}  # size name -> the argument that it was read from
    given = list(feeds.items())
    steps, untold = solution([value.type.shape for value, _ in given])
    for step in steps:
        found = step.value(given[step.argument][1].shape[step.axis], dims)
        if found is not None:
            dims[step.name], told[step.name] = found, describe(given[step.argument][0])
    limits = bounds_of(value.type.shape for value in feeds)
    for value, array in given:
        for axis, (size, actual) in enumerate(zip(value.type.shape, array.shape, strict=True)):
            expected = _known(size, dims)
            message = f"{describe(value)} is {value.type}, the argument has size {actual} in axis {axis}"
            if expected != actual and not symbols(size) & untold:
                because = "".join(f" ({s} is {dims[s]} in {told[s]})" for s in sorted(symbols(size)) if s in told)
                hint = "equal names are equal sizes" if because else None
                raise ShapeError(message + because, _lines(value.node), hint)
            for name in sorted(symbols(size) & limits.keys()):
                if broken := limits[name].broken(dims[name]):
                    raise ShapeError(f"{message}: {name} is {dims[name]}, {broken}", _lines(value.node))
    return dims


def _known(size: Size, dims: Mapping[str, int]) -> int | None:
    return size_value(size, dims) if symbols(size) <= dims.keys() else None


def _eval(tensor: Tensor, feeds: Mapping[Tensor, Any]) -> np.ndarray:
    """`Tensor.eval`: arguments are converted if NumPy calls the conversion safe."""
    arrays = {}
    if not isinstance(feeds, Mapping):
        raise ArgumentError(f"eval takes a dict of arrays for placeholders, not {shown(feeds)}")
    for key, given in feeds.items():
        if not isinstance(key, Tensor) or key.ref.op.name not in ("placeholder", "parameter"):
            raise ArgumentError(f"eval takes arrays for placeholders, not for {shown(key)}")
        array, dtype = as_array(given), key.dtype
        weak = type(given) in (bool, int, float) and promoted_with(dtype, type(given)) is dtype
        if not weak and not casts_safely(array.dtype, dtype):
            message = f"{describe(key.ref)} is {key.type}, the argument is {array.dtype.name}: that narrows"
            raise DTypeError(message, _lines(key.ref.node), f"pass array.astype({dtype.name!r})")
        arrays[key.ref] = np.array(cast_array(array, dtype))
    return evaluate([tensor.ref], arrays)[0]


install(eval=_eval)
