"""`Progress`: a bar in a terminal (with rich, if it is installed), plain lines anywhere else."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


class Progress:
    """`with Progress("training", total=480) as progress:`; then `advance()` a step and `line(text)` to say something.

    The bar needs a terminal on stdout and the package `rich`. Without either, only the lines are printed, so that the
    output of a batch job holds no control characters.
    """

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.done = title, total, 0
        self._bar: Any = _rich_bar() if sys.stdout.isatty() else None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, steps: int = 1) -> None:
        """`steps` more are done."""
        self.done += steps
        if self._bar is not None:
            self._bar.advance(self._task, steps)

    def line(self, text: str) -> None:
        """Print `text` above the bar."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            print(text, flush=True)


def _rich_bar() -> Any:
    """A bar with count and time left; None where rich is not installed."""
    try:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
    except ImportError:
        return None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Bar(*columns, transient=True)
