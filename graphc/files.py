"""Files that are written: which argument of `save` is the path, and a file that appears whole or not at all.

Enter at `path_and_content` and `replaced`; `graphc.text` and `graphc.nn` write with them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from graphc.errors import ArgumentError, fail


def path_and_content(function: str, first: Any, second: Any) -> tuple[str, Any]:
    """The path and what to write, in whichever order they were given: the path is the str or PathLike.

    Raises ArgumentError where none of the two is a path, or both are.
    """
    paths = [isinstance(x, (str, os.PathLike)) for x in (first, second)]
    if paths[0] == paths[1]:
        given = f"{type(first).__name__} and {type(second).__name__}"
        fail(ArgumentError, f"{function} takes a path and what to write there, not {given}")
    path, content = (first, second) if paths[0] else (second, first)
    return os.fsdecode(path), content


@contextlib.contextmanager
def replaced(path: str) -> Iterator[str]:
    """A temporary file beside `path`, which takes its place when the block ends well. Else `path` stays as it was."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
