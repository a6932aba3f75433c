"""What a placeholder or parameter may declare: its name and its sizes, checked, with errors for the user.

`graphc.build` calls `checked_name` and `checked_size`; nothing else needs them.
"""

from __future__ import annotations

import re
from typing import Any, cast

from graphc.errors import ArgumentError, ShapeError, fail
from graphc.types import Dim, Size, symbols


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
