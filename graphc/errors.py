"""The two families of errors, and the source line that every user error names.

`GraphcError` and its children are the *user's* errors: they name tensors, types, the line that built the tensor and
a hint. `InternalError` is *ours*: it means a bug in graphc, never a mistake in the program that is compiled.
`user_line` finds the line, `fail` raises with it.
To add an error, subclass `GraphcError` together with the built-in exception that a NumPy user would catch.
"""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import FrameType
from typing import NoReturn


@dataclass(frozen=True)
class SourceLine:
    """One line of the user's program: `file` as the user would type it, `line` from 1, the stripped `text`."""

    file: str
    line: int
    text: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}"
        return f"{place}: {self.text}" if self.text else place


class GraphcError(Exception):
    """A mistake in the user's program or in the arguments of a call.

    `lines` are the source lines that built the tensors in question (the first is shown as "built at"),
    `hint` says what to do about it.
    """

    def __init__(self, message: str, lines: Sequence[SourceLine] = (), hint: str | None = None) -> None:
        self.message = message
        self.lines = tuple(lines)
        self.hint = hint
        parts = [message]
        for index, line in enumerate(self.lines):
            parts.append(f"  {'built at' if index == 0 else 'also at'} {line}")
        if hint:
            parts.append(f"  hint: {hint}")
        super().__init__("\n".join(parts))


class ShapeError(GraphcError, ValueError):
    """Shapes that do not fit: broadcasting, inner sizes, axes, a size at a call that differs from its name's."""


class DTypeError(GraphcError, TypeError):
    """Dtypes that do not fit: a narrowing argument, an op that is not defined for a dtype."""


class IntegerRangeError(DTypeError, OverflowError):
    """A Python int that does not fit the integer dtype of the tensor that it meets."""


class ArgumentError(GraphcError, TypeError):
    """A call with a missing, surplus or unknown argument, or a build-time argument of the wrong kind."""


class GradientError(GraphcError, ValueError):
    """A gradient that does not exist: of something not scalar, not connected, or through an op without a rule."""


class IndexRangeError(GraphcError, IndexError):
    """An index (a label, say) outside of the axis that it selects from; found before anything is written."""


class ParseError(GraphcError, ValueError):
    """A text that is not a graph: names line and column."""


class SettingError(GraphcError, ValueError):
    """An unknown switch, log word or value of a switch; names the valid ones."""


class InternalError(Exception):
    """A bug in graphc. Please report it, with the reproducer that the message names."""

    def __init__(self, message: str, reproducer: str | None = None) -> None:
        text = f"{message}\n  this is a bug in graphc, please report it"
        super().__init__(f"{text}\n  reproducer: {reproducer}" if reproducer else text)


def user_line() -> SourceLine | None:
    """The line of the innermost frame outside of graphc. In a REPL the text may be missing."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module != "graphc" and not module.startswith("graphc."):
            return _source_line(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None


@lru_cache(maxsize=4096)
def _source_line(file: str, line: int) -> SourceLine:
    try:
        here = os.getcwd() + os.sep
    except OSError:  # the folder is gone
        here = os.sep + os.sep
    shown = file[len(here) :] if file.startswith(here) else file
    return SourceLine(shown, line, linecache.getline(file, line).strip())


def fail(kind: type[GraphcError], message: str, hint: str | None = None) -> NoReturn:
    """Raise a user's error that names the user's current line."""
    line = user_line()
    raise kind(message, () if line is None else (line,), hint)
