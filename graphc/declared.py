"""What a placeholder or parameter may declare: its name and its sizes, checked, with errors for the user.

`dim` makes a named size with limits; `graphc.build` calls `checked_name` and `checked_size`.
"""

from __future__ import annotations

import re
from typing import Any, cast

from graphc.bounds import Bounds, bounded_name
from graphc.errors import ArgumentError, ShapeError, fail
from graphc.types import Dim, Size, symbols


def dim(name: str, *, min: int = 0, max: int | None = None, multiple_of: int = 1) -> Dim:
    """The size called `name`, for shapes: the same size as the string `name`, with limits.

    `min` <= size <= `max`, a multiple of `multiple_of`. Arithmetic (`2 * n + 1`, `n // 2`, `n % 2`) gives sizes for
    every shape. The limits hold for a function if one of its placeholders has the size: each call is checked, and the
    code leaves out what they rule out, such as the last, partial vector of a multiple. Several limits of a name all
    hold. Raises ShapeError for limits that no size meets.
    """
    if not isinstance(name, str) or not name.isidentifier():
        fail(ShapeError, f"dim: {name!r} does not name a size", "use an identifier")
    numbers = {"min": min, "max": max, "multiple_of": multiple_of}
    for key, number in numbers.items():
        least = 1 if key == "multiple_of" else 0
        if not (key == "max" and number is None) and (type(number) is not int or number < least):
            fail(ShapeError, f"dim {name}: {key} is {number!r}", f"use an int from {least}")
    bounds = Bounds(min, max, multiple_of)
    if bounds.empty:
        fail(ShapeError, f"dim {name}: no size has {bounds}")
    return bounded_name(name, bounds)


def checked_name(name: str) -> str:
    """`name`, or an ArgumentError."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name):
        fail(ArgumentError, f"not a name: {name!r}", "letters, digits, _ and dots, not starting with a digit")
    return name


def checked_size(name: str, axis: int, size: int | str | Dim | None) -> Size:
    """The size of an axis of placeholder `name`: a string names it, None is unnamed. Raises ShapeError."""
    if size is None:
        return Dim.symbol(f"{name.replace('.', '_')}_dim{axis}")
    if isinstance(size, str):
        if not size.isidentifier():
            fail(ShapeError, f"placeholder {name}: {size!r} does not name a size", "use an identifier, an int or None")
        return Dim.symbol(size)
    if isinstance(size, Dim) and symbols(size):
        return size
    try:
        value = int(cast(Any, size).__index__())
    except AttributeError:
        fail(ShapeError, f"placeholder {name}: {size!r} is no size", "use an int, a name or None")
    if value < 0:
        fail(ShapeError, f"placeholder {name}: size {value} of axis {axis} is negative")
    return value
