"""From what a user hands to `function` to one Graph: inputs, parameters, updates, the nest. Enter at `freeze`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np

from graphc.bounds import bounds_of, solution
from graphc.build import Parameter, Tensor
from graphc.errors import ArgumentError, DTypeError, ShapeError, SourceLine
from graphc.graph import Graph, Value, origin_of, shown, topological_order
from graphc.nest import rebuilt
from graphc.types import symbols


@dataclass(frozen=True)
class Frozen:
    """A Graph and what the user's side of it looked like. `nest` is the outputs' nest with the tensors as leaves."""

    graph: Graph
    nest: Any
    parameters: Mapping[str, Parameter]

    def flatten_out(self, out: Any) -> list[np.ndarray | None]:
        """`out=` arrays in the order of the results. ArgumentError where its nest is not that of the outputs."""
        flat: list[np.ndarray | None] = []
        _match(self.nest, out, flat)
        return flat


def freeze(
    inputs: Sequence[Tensor], outputs: Any, updates: Mapping[Any, Tensor], default_updates: bool, name: str | None
) -> Frozen:
    """Check what was given and make the Graph. Raises ArgumentError, ShapeError, DTypeError."""
    placeholders = _inputs(inputs)
    leaves: list[Value] = []
    _collect(outputs, leaves)
    chosen = _updates(updates)
    parameters = _parameters([*leaves, *chosen.values()])
    while default_updates:
        more = {
            v: _state(v).default_update.ref
            for v in parameters
            if v not in chosen and _state(v).default_update is not None
        }
        if not more:
            break
        chosen.update(more)
        parameters = _parameters([*leaves, *chosen.values()])
    for value in chosen:
        if value not in parameters:
            parameters.append(value)
    _check_closed([*leaves, *chosen.values()], placeholders)
    _check_sizes([*leaves, *chosen.values()], placeholders)
    named = _by_name(parameters)
    graph = Graph(
        (*placeholders, *parameters),
        (*leaves, *chosen.values()),
        tuple(chosen),
        name or "function",
    )
    return Frozen(graph, outputs, named)


def _lines(value: Value) -> tuple[SourceLine, ...]:
    origin = origin_of(value.node)
    return origin.lines[:1] if origin else ()


def _inputs(inputs: Sequence[Tensor]) -> list[Value]:
    if isinstance(inputs, Tensor):  # type: ignore[unreachable]  # a caller without types
        raise ArgumentError("the inputs of a function are a list of placeholders", hint="write function([x], ...)")
    found: dict[str, Value] = {}
    for position, tensor in enumerate(inputs):
        if not isinstance(tensor, Tensor) or tensor.ref.op.name != "placeholder":
            raise ArgumentError(
                f"input {position} of a function is not a placeholder: {shown(tensor)}",
                _lines(tensor.ref) if isinstance(tensor, Tensor) else (),
                "inputs are placeholders; parameters need not be listed",
            )
        name = tensor.ref.node.attrs["name"]
        if name in found:
            raise ArgumentError(f"two inputs are called {name}", (*_lines(found[name]), *_lines(tensor.ref)))
        found[name] = tensor.ref
    return list(found.values())


def _collect(nest: Any, leaves: list[Value]) -> None:
    if isinstance(nest, Tensor):
        leaves.append(nest.ref)
    elif isinstance(nest, (tuple, list)):
        for item in nest:
            _collect(item, leaves)
    elif isinstance(nest, dict):
        for item in nest.values():
            _collect(item, leaves)
    else:
        hint = "outputs are tensors in tuples, lists and dicts; graphc.constant makes a tensor of an array"
        raise ArgumentError(f"an output is a {type(nest).__name__}, not a tensor", hint=hint)


def packer(nest: Any) -> Callable[[Sequence[np.ndarray]], Any]:
    """What puts a call's results into the form of `nest`; the usual forms at once, without looking at each part."""
    if isinstance(nest, Tensor):
        return itemgetter(0)
    if all(isinstance(part, Tensor) for part in (nest.values() if isinstance(nest, dict) else nest)):
        if type(nest) is tuple or type(nest) is list:
            return type(nest)
        if type(nest) is dict:
            keys = tuple(nest)
            return lambda results: dict(zip(keys, results, strict=True))
    return partial(rebuilt, nest)


def _match(nest: Any, out: Any, flat: list[np.ndarray | None]) -> None:
    if isinstance(nest, Tensor):
        if out is not None and not isinstance(out, np.ndarray):
            raise ArgumentError(f"out= has a {type(out).__name__} where an array belongs")
        flat.append(out)
        return
    items = list(nest.values()) if isinstance(nest, dict) else list(nest)
    if out is None:
        given: list[Any] = [None] * len(items)
    elif isinstance(nest, dict):
        given = [out.get(key) for key in nest] if isinstance(out, dict) else [out]
    else:
        given = list(out) if isinstance(out, (tuple, list)) else [out]
    if len(given) != len(items):
        raise ArgumentError(f"out= has {len(given)} entries where the outputs have {len(items)}")
    for item, array in zip(items, given, strict=True):
        _match(item, array, flat)


def _updates(updates: Mapping[Tensor, Tensor]) -> dict[Value, Value]:
    chosen: dict[Value, Value] = {}
    for target, new in updates.items():
        if not isinstance(target, Tensor) or target.ref.op.name != "parameter":
            lines = _lines(target.ref) if isinstance(target, Tensor) else ()
            raise ArgumentError(f"updates has a key that is not a parameter: {shown(target)}", lines)
        name = target.ref.node.attrs["name"]
        if not isinstance(new, Tensor):
            raise ArgumentError(f"the update of {name} is a {type(new).__name__}, not a tensor", _lines(target.ref))
        if new.shape != target.shape:
            raise ShapeError(f"the update of {name} is {new.type}, the parameter is {target.type}", _lines(new.ref))
        if new.dtype != target.dtype:
            hint = f"write the update as (...).astype({target.dtype.name!r})"
            raise DTypeError(
                f"the update of {name} is {new.type}, the parameter is {target.type}", _lines(new.ref), hint
            )
        chosen[target.ref] = new.ref
    return chosen


def _parameters(values: Sequence[Value]) -> list[Value]:
    """The parameters that values need, in a deterministic order."""
    return [
        v for node in topological_order(v.node for v in values) for v in node.outputs if node.op.name == "parameter"
    ]


def _state(value: Value) -> Any:
    return value.node.attrs["state"]


def _check_closed(values: Sequence[Value], placeholders: Sequence[Value]) -> None:
    """Every placeholder that the outputs need is an input."""
    given = set(placeholders)
    for node in topological_order(v.node for v in values):
        if node.op.name == "placeholder" and Value(node) not in given:
            name = node.attrs["name"]
            raise ArgumentError(
                f"the outputs need the placeholder {name}: {node.types[0]}, which is not among the inputs",
                _lines(Value(node)),
                f"add {name} to the list of inputs",
            )


def _check_sizes(values: Sequence[Value], placeholders: Sequence[Value]) -> None:
    """Every named size follows from the sizes of the inputs, so that a call can tell its value."""
    _, untold = solution([v.type.shape for v in placeholders])
    for value in placeholders:
        if unclear := sorted({name for size in value.type.shape for name in symbols(size)} & untold):
            hint = "a size tells one name if it is linear in it: n, 2*n+1; give another input the size " + unclear[0]
            message = f"a call cannot tell {', '.join(unclear)} from the sizes of {shown(Tensor(value))}"
            raise ShapeError(message, _lines(value), hint)
    for name, bounds in bounds_of(v.type.shape for v in placeholders).items():
        if bounds.empty:
            holders = [v for v in placeholders if any(name in symbols(size) for size in v.type.shape)]
            lines = tuple(line for v in holders for line in _lines(v))
            raise ShapeError(f"the limits of the size {name} contradict each other: together {bounds}", lines)
    known = {name for v in placeholders for size in v.type.shape for name in symbols(size)}
    for node in topological_order(v.node for v in values):
        sizes = [size for kind in node.types for size in kind.shape]
        sizes += [node.attrs["size"]] if node.op.name == "dim_value" else []
        for name in sorted({name for size in sizes for name in symbols(size)} - known):
            raise ShapeError(
                f"{node.op.name} has the size {name}, which no input has: {node.types[0]}", _lines(Value(node))
            )


def _by_name(parameters: Sequence[Value]) -> dict[str, Parameter]:
    named: dict[str, Parameter] = {}
    for value in parameters:
        name = value.node.attrs["name"]
        if name in named:
            raise ArgumentError(f"two parameters are called {name}", (*_lines(named[name].ref), *_lines(value)))
        named[name] = Parameter(value)
    return named
