"""Nests: tensors or arrays in tuples, lists and dicts, as users hand them over. Everything else is a leaf.

`leaves` and `rebuilt` are each other's inverse; `structure` is a hashable key of the form without the leaves.
A function that takes or gives nests uses these three, so that what comes out has the form of what went in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def leaves(nest: Any) -> list[Any]:
    """The leaves of `nest` from left to right; a leaf is its own nest."""
    if isinstance(nest, Mapping):
        return [leaf for item in nest.values() for leaf in leaves(item)]
    if isinstance(nest, (tuple, list)):
        return [leaf for item in nest for leaf in leaves(item)]
    return [nest]


def paths(nest: Any, prefix: str) -> list[str]:
    """A dotted name for each leaf: `prefix` and the keys and positions that lead to it."""
    if isinstance(nest, Mapping):
        return [path for key, item in nest.items() for path in paths(item, f"{prefix}.{key}")]
    if isinstance(nest, (tuple, list)):
        return [path for index, item in enumerate(nest) for path in paths(item, f"{prefix}.{index}")]
    return [prefix]


def rebuilt(nest: Any, items: Iterable[Any]) -> Any:
    """The form of `nest` with `items` as its leaves, in order. A mapping becomes a dict, a named tuple stays one."""
    return _rebuilt(nest, iter(items))


def _rebuilt(nest: Any, items: Iterator[Any]) -> Any:
    if isinstance(nest, Mapping):
        return {key: _rebuilt(item, items) for key, item in nest.items()}
    if isinstance(nest, (tuple, list)):
        parts = [_rebuilt(item, items) for item in nest]
        if isinstance(nest, list):
            return parts
        return type(nest)(*parts) if hasattr(nest, "_fields") else tuple(parts)
    return next(items)


def structure(nest: Any) -> Any:
    """A hashable key: equal for nests of one form, whatever their leaves are."""
    if isinstance(nest, Mapping):
        return ("dict", tuple((key, structure(item)) for key, item in nest.items()))
    if isinstance(nest, (tuple, list)):
        return (type(nest), tuple(structure(item) for item in nest))
    return None
