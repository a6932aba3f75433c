"""Every switch of graphc: one field of `Settings` each, one environment variable each, and `with config(...)`.

Enter at `current()` (what holds now) and `config(...)` (what holds inside a block, in this thread or task only).
To add a switch, add a field with its `doc` and its parser; keep them under a dozen. Settings are read when a function
is compiled, the number of threads when it is called.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphc.errors import SettingError

# The words of GRAPHC_LOG: what each makes graphc say on stderr.
LOG_WORDS: dict[str, str] = {
    "passes": "each pass that changed the graph, with node counts and time",
    "fusion": "each kernel that fusion formed, and why what it hands on goes through memory",
    "stabilize": "each use of a rule of the stabilising table, with its line",
    "program": "buffers, regions, tasks, chunk counts, and which updates are in place",
    "memory": "for each new size the arena: its bytes, and the offset and life of every temporary",
    "compile": "a table of the seconds of every step of a compilation",
    "cache": "hits, misses, writes and broken entries of the cache on disk",
    "runtime": "threads, new sizes, conversions of arguments",
}

# Those that only the passes can tell: with one of them a plan is not read from the cache on disk but made again.
WORDS_OF_PASSES = frozenset({"passes", "fusion", "stabilize"})

_TRUE, _FALSE = ("1", "true", "on", "yes"), ("0", "false", "off", "no")


def _bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError(f"valid values are {', '.join(_TRUE + _FALSE)}")


def _words(value: object) -> frozenset[str]:
    if not isinstance(value, (str, Iterable)):
        raise ValueError("valid are names separated by commas, or a sequence of names")
    parts = value.split(",") if isinstance(value, str) else [str(part) for part in value]
    return frozenset(part.strip() for part in parts if part.strip())


def _log_words(value: object) -> frozenset[str]:
    words = _words(value)
    if "all" in words:
        return frozenset(LOG_WORDS)
    if unknown := sorted(words - set(LOG_WORDS)):
        raise ValueError(f"unknown word {', '.join(unknown)}; valid words are {', '.join(LOG_WORDS)} and all")
    return words


def _count(least: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        try:
            number = int(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else least - 1
        except ValueError:
            number = least - 1
        if number < least:
            raise ValueError(f"valid values are integers from {least}")
        return number

    return parse


def _threads(value: object) -> int | None:
    number = None if value is None else _count(1)(value)
    if number is not None and number > MOST_THREADS:
        raise ValueError(f"valid values are integers from 1 to {MOST_THREADS}")
    return number


def checked_threads(value: object) -> int | None:
    """A number of threads that a user gave, or None. Raises SettingError unless it is from 1 to MOST_THREADS."""
    parsed: int | None = _parsed("num_threads", value, "threads")
    return parsed


def _folder(value: object) -> Path | None:
    if value is None or value == "":
        return None
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError("valid is the path of a folder")
    return Path(value).expanduser()


def _cache_folder(value: object) -> Path:
    return _folder(value) or _default_cache_dir()


def _default_cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")  # the XDG rule: a relative path there is ignored
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "graphc"


def _switch(doc: str, parse: Callable[[object], Any], default: Any = None) -> Any:
    metadata = {"doc": doc, "parse": parse}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """The table of switches. A field `x` is set by the variable GRAPHC_X or by `config(x=...)`."""

    log: frozenset[str] = _switch("what to tell on stderr: words separated by commas", _log_words, frozenset())
    dump: Path | None = _switch("folder that gets numbered files of every level", _folder)  # noqa: RUF009
    verify: bool = _switch("verify the graph after every pass", _bool, False)
    guard_memory: bool = _switch("check every access of compiled code to memory (slow)", _bool, False)
    num_threads: int | None = _switch("threads of a call; default: the cores this process may use", _threads)
    cache_dir: Path = _switch("folder of the cache on disk", _cache_folder, _default_cache_dir)  # noqa: RUF009
    cache: bool = _switch("use the cache on disk", _bool, True)
    fast_math: bool = _switch("allow rewrites that hold in real arithmetic only", _bool, False)
    stabilize: bool = _switch("apply the stabilising table", _bool, True)
    disable: frozenset[str] = _switch("names of passes that are left out", _words, frozenset())
    fold_limit: int = _switch("most elements of a constant that folding may create", _count(0), 65536)

    @property
    def threads(self) -> int:
        """The number of threads of a call: `num_threads`, or the cores that this process may run on."""
        return self.num_threads or usable_cores()


MOST_THREADS = 256  # a typo must not start a thousand of them
# those that change what is compiled
CODE_SETTINGS = ("fast_math", "stabilize", "disable", "fold_limit", "guard_memory")
SWITCHES: dict[str, dataclasses.Field[Any]] = {field.name: field for field in dataclasses.fields(Settings)}


def usable_cores() -> int:
    """The number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _parsed(name: str, value: object, shown: str) -> Any:
    try:
        return SWITCHES[name].metadata["parse"](value)
    except ValueError as error:
        raise SettingError(f"{shown}={value!r}: {error}", hint=f"{name}: {SWITCHES[name].metadata['doc']}") from None


def variable(name: str) -> str:
    """The environment variable of a switch: "log" -> "GRAPHC_LOG"."""
    return f"GRAPHC_{name.upper()}"


def from_environment(environ: Mapping[str, str]) -> Settings:
    """The settings that the GRAPHC_* variables ask for. Raises SettingError for a value that is not valid."""
    valid = {variable(name): name for name in SWITCHES}
    for key in environ:
        if key.startswith("GRAPHC_") and key not in valid:
            warnings.warn(f"graphc has no variable {key}; it has {', '.join(valid)}", stacklevel=2)
    given = {name: _parsed(name, environ[key], key) for key, name in valid.items() if environ.get(key, "") != ""}
    return Settings(**given)


_current: contextvars.ContextVar[Settings | None] = contextvars.ContextVar("graphc_settings", default=None)
_from_environment: Settings | None = None


def current() -> Settings:
    """The settings in force. The environment is read once, at the first use."""
    global _from_environment
    settings = _current.get()
    if settings is not None:
        return settings
    if _from_environment is None:
        _from_environment = from_environment(os.environ)
    return _from_environment


def variable_of_current() -> contextvars.ContextVar[Settings | None]:
    """The variable behind `current`: as long as its value is the same object, the settings are the same."""
    return _current


@contextlib.contextmanager
def config(**changes: Any) -> Iterator[Settings]:
    """`with graphc.config(verify=True):` changes switches inside the block, for this thread or task.

    Values may be what the environment variable would hold, or Python values (bool, int, path, sequence of words).
    Raises SettingError for an unknown switch or value.
    """
    if unknown := sorted(changes.keys() - SWITCHES.keys()):
        names = ", ".join(SWITCHES)
        raise SettingError(f"config has no switch {', '.join(unknown)}", hint=f"the switches are {names}")
    parsed = {name: _parsed(name, value, name) for name, value in changes.items()}
    settings = dataclasses.replace(current(), **parsed)
    reset = _current.set(settings)
    try:
        yield settings
    finally:
        _current.reset(reset)


@contextlib.contextmanager
def using(settings: Settings) -> Iterator[None]:
    """The block runs under `settings`, those of an earlier time: a level that is printed late is made as it ran."""
    reset = _current.set(settings)
    try:
        yield
    finally:
        _current.reset(reset)


def table() -> str:
    """All switches with variable, default and doc: a paragraph for the documentation and the command line."""
    default = Settings()
    lines = []
    for name, field in SWITCHES.items():
        value = getattr(default, name)
        shown = ",".join(sorted(value)) if isinstance(value, frozenset) else ("" if value is None else str(value))
        lines.append(f"{variable(name):20} {field.metadata['doc']}" + (f" [{shown}]" if shown else ""))
    return "\n".join(lines)
