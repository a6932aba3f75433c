"""What a compilation tells about itself: log words, dumped files, seconds of every step.

Enter at `log(word, message)` and at `Observer`, which one compilation carries through all levels. The words of
GRAPHC_LOG are one table, `graphc.settings.LOG_WORDS`; to add one, add a line there and call `log` with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

from graphc.settings import LOG_WORDS, current

Text = str | Callable[[], str]  # a text, or how to make it when somebody wants to read it


def enabled(word: str) -> bool:
    """Whether somebody listens to `word`. Raises KeyError for a word that the table does not have."""
    if word not in LOG_WORDS:
        raise KeyError(f"{word} is no log word; add it to graphc.settings.LOG_WORDS")
    return word in current().log


def log(word: str, message: Text) -> None:
    """Write `message` to stderr if GRAPHC_LOG holds `word`; further lines are indented under the first."""
    if enabled(word):
        text = message if isinstance(message, str) else message()
        sys.stderr.write(f"graphc {word}: " + text.replace("\n", "\n    ") + "\n")


class Dumper:
    """Writes numbered files, `00-graph.txt`, `01-simplify.txt`, ..., into one folder.

    Numbers go on from function to function; from the second function on its name is in the file's name. The first
    file that this process writes into a folder removes the numbered files of an earlier process.
    """

    _OURS = re.compile(r"\d{2,}-[\w.-]+\.(txt|ll|s)")
    _lock = threading.Lock()
    _counts: ClassVar[dict[Path, tuple[int, int]]] = {}  # folder -> (next number, functions so far)

    def __init__(self, folder: Path, function: str = "") -> None:
        self.folder = folder
        with self._lock:
            number, functions = self._counts.get(folder, (0, 0))
            if not functions:
                folder.mkdir(parents=True, exist_ok=True)
                for stale in folder.iterdir():
                    if self._OURS.fullmatch(stale.name):
                        stale.unlink()
            self._prefix = re.sub(r"\W+", "_", function) + "." if functions and function else ""
            self._counts[folder] = (number, functions + 1)

    def write(self, level: str, text: str) -> Path:
        """Write the file of `level`; LLVM IR gets the suffix .ll, assembly .s, all else .txt."""
        suffix = {"llvm": "ll", "asm": "s"}.get(level, "txt")
        with self._lock:
            number, functions = self._counts[self.folder]
            self._counts[self.folder] = (number + 1, functions)
        path = self.folder / f"{number:02d}-{self._prefix}{level}.{suffix}"
        path.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")
        return path


def _after_fork() -> None:
    """In a forked child: the thread that held the lock at the fork may not exist here."""
    Dumper._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Observer:
    """One compilation's ears: what took how long, which level looked how.

    Made by `compile.py` for each function and handed to the pass manager; `seconds` maps step names to seconds, in
    the order of their first start. A step inside another is named `outer/inner`.
    """

    def __init__(self, function: str = "") -> None:
        folder = current().dump
        self.function = function
        self.seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._dumper = Dumper(folder, function) if folder is not None else None

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure the block under `name`; blocks of equal names add up."""
        self._open.append(name)
        path = "/".join(self._open)
        self.seconds.setdefault(path, 0.0)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[path] += time.perf_counter() - start
            self._open.pop()

    def level(self, name: str, text: Text) -> None:
        """Dump the text of a level, or of the graph after a pass that changed something, if a dump is asked for."""
        if self._dumper is not None:
            self._dumper.write(name, text if isinstance(text, str) else text())

    def table(self) -> str:
        """The steps with their milliseconds, nested ones indented."""
        total = sum(seconds for path, seconds in self.seconds.items() if "/" not in path)
        lines = [f"{self.function or 'graph'}: {1e3 * total:.2f} ms"]
        for path, seconds in self.seconds.items():
            *outer, name = path.split("/")
            lines.append(f"{'  ' * len(outer) + name:32} {1e3 * seconds:9.2f} ms")
        return "\n".join(lines)

    def finish(self) -> None:
        """Say the table of steps if GRAPHC_LOG holds `compile`."""
        log("compile", self.table)


def reproducer(text: str, kind: str = "graph") -> str:
    """Write `text` to a new temporary file for a bug report and return its path."""
    handle, path = tempfile.mkstemp(".txt", f"graphc-{kind}-")
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)
    return path
