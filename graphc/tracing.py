"""`jit`: a Python function of arrays as compiled functions, one for each form of its arguments.

f is traced with placeholders: it builds the graph of its result, which `graphc.function` compiles. The compiled
function is kept for the nest, shapes and dtypes of the arguments, and for the values of all that is no array: Python
numbers, strings and None are part of the program, as they are where a graph is built by hand (they stay weak: a Python
float does not turn float32 into float64). Enter at `jit`.
"""

from __future__ import annotations

import functools
import inspect
import re
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.build import Tensor, as_array, placeholder
from graphc.compile import Function, function
from graphc.errors import ArgumentError
from graphc.nest import leaves, paths, rebuilt, structure

_MANY = 8  # versions that differ in Python values only, before a warning


class Jitted:
    """A function compiled for each form of its arguments. `functions`: what was compiled, in order (for `.ir`)."""

    __name__: str

    def __init__(self, f: Callable[..., Any]) -> None:
        functools.update_wrapper(self, f)
        self._f = f
        self._versions: dict[Any, Callable[[list[Any]], Any]] = {}
        self._lock = threading.RLock()
        self.functions: list[Function] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Arrays in, arrays out, compiled. With a tensor among the arguments: f itself, as part of that graph."""
        nest = (args, kwargs)
        given = leaves(nest)
        if any(isinstance(leaf, Tensor) for leaf in given):
            return self._f(*args, **kwargs)
        key = (structure(nest), tuple(_key(leaf) for leaf in given))
        try:
            run = self._versions.get(key)
        except TypeError:
            raise self._unhashable(nest, given) from None
        if run is None:
            with self._lock:
                run = self._versions.get(key) or self._traced(nest, given, key)
        return run([leaf for leaf in given if _is_array(leaf)])

    def _traced(self, nest: Any, given: list[Any], key: Any) -> Callable[[list[Any]], Any]:
        """The version for arguments such as `given`: traced, compiled and kept."""
        names = _names(self._f, nest)
        arguments = [
            placeholder(name, np.shape(leaf), as_array(leaf).dtype) if _is_array(leaf) else leaf
            for name, leaf in zip(names, given, strict=True)
        ]
        args, kwargs = rebuilt(nest, arguments)
        result = self._f(*args, **kwargs)
        found = leaves(result)
        tensors = [leaf for leaf in found if isinstance(leaf, Tensor)]
        if not tensors:
            raise ArgumentError(f"jit: {self._f!r} returns no tensor, so there is nothing to compile")
        name = re.sub(r"\W", "_", getattr(self._f, "__name__", "jit"))
        compiled = function([a for a in arguments if isinstance(a, Tensor)], tensors, name=name)

        def run(arrays: list[Any]) -> Any:
            values = iter(compiled(*arrays))
            return rebuilt(result, [next(values) if isinstance(leaf, Tensor) else leaf for leaf in found])

        self._versions[key] = run
        self.functions.append(compiled)
        self._warn(key)
        return run

    def _warn(self, key: Any) -> None:
        """Nothing is compiled again and again in silence."""
        alike = [k for k in self._versions if k[0] == key[0] and _forms(k) == _forms(key)]
        if len(alike) == _MANY:
            message = f"jit: {self._f!r} has been compiled for {_MANY} values of its Python arguments"
            warnings.warn(f"{message}; pass a number that changes as an array: numpy.float32(x)", stacklevel=4)

    def _unhashable(self, nest: Any, given: Sequence[Any]) -> ArgumentError:
        for name, leaf in zip(_names(self._f, nest), given, strict=True):
            try:
                hash(_key(leaf))
            except TypeError:
                return ArgumentError(f"jit: {name} is a {type(leaf).__name__}: neither an array nor hashable")
        return ArgumentError("jit: the keys of a dict among the arguments are not hashable")


def jit(f: Callable[..., Any]) -> Jitted:
    """`f` compiled: called with arrays (in any nest), it returns arrays, in the nest that f returns.

    f is traced once for each nest, shapes and dtypes of its array arguments and for each value of the others: Python
    numbers, strings and None are seen by f as they are. Graphc parameters that f uses are read at each call.
    Raises ArgumentError for an argument that is neither an array nor hashable.
    """
    return Jitted(f)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (np.ndarray, np.generic))


def _key(leaf: Any) -> Any:
    if _is_array(leaf):
        return (np.ndarray, leaf.dtype.str, leaf.shape)
    return (type(leaf), leaf.hex() if type(leaf) is float else leaf)  # 0.0 is not -0.0, nan is nan


def _forms(key: Any) -> list[Any]:
    return [leaf if leaf[0] is np.ndarray else leaf[0] for leaf in key[1]]


def _names(f: Callable[..., Any], nest: Any) -> list[str]:
    """A distinct name for each leaf of (args, kwargs): the parameter's, and the keys that lead to it."""
    args, kwargs = nest
    try:
        known = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):  # a builtin without a signature
        known = []
    plain = [p.name for p in known if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    names = [n for i, arg in enumerate(args) for n in paths(arg, plain[i] if i < len(plain) else f"arg{i}")]
    names += [n for key, arg in kwargs.items() for n in paths(arg, key)]
    used: dict[str, int] = {}
    distinct = []
    for name in (re.sub(r"[^A-Za-z0-9_.]", "_", name) for name in names):
        used[name] = used.get(name, 0) + 1
        distinct.append(name if used[name] == 1 else f"{name}.{used[name]}")
    return distinct
