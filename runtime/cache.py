"""The cache on disk: plans found by the graph's text, objects found by a kernel's LLVM IR.

An entry is a file named by the SHA-256 of everything that it depends on, so it is never out of date, only unused.
Writers put a temporary file beside it and rename: readers see a whole entry or none. A header with length and digest
finds truncated and corrupted entries, which are deleted and count as misses. A folder that cannot be read or written
costs one line in the log and nothing else. Above the limit the longest unused entries go first.

Enter at `disk_cache()` (the one that the settings name), `plan_key` and `cached_object`. What a plan's entry holds
is `graphc.runtime.stored`'s business.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from graphc.observe import log
from graphc.runtime.jit import compile_object
from graphc.settings import current
from graphc.target import Target

MAGIC = b"graphc1\n"
_HEAD = len(MAGIC) + 8 + 32  # magic, length, SHA-256 of the content
LIMIT = 1 << 30
_STALE = 3600.0  # seconds after which a temporary file is a dead writer's


class DiskCache:
    """Entries of `kind` ("plan", "object") and key (a hex digest) in one folder, shared by any number of processes.

    No method raises for what the file system does; `hits` and `misses` count what `get` found.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self.folder, self.limit = folder, limit
        self.hits = self.misses = 0
        self._total: int | None = None  # bytes in the folder as far as this process knows
        self._told = False
        self._lock = threading.Lock()

    def _path(self, kind: str, key: str) -> Path:
        return self.folder / f"{key}.{kind}"

    def get(self, kind: str, key: str) -> bytes | None:
        """The entry's content, or None."""
        path = self._path(kind, key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            data = None
        except OSError as error:
            self._tell(error)
            data = None
        content = None if data is None else _content(data)
        if data is not None and content is None:
            log("cache", f"broken entry {path.name}, deleted")
            _remove(path)
        if content is None:
            self.misses += 1
            log("cache", f"miss {path.name}")
            return None
        self.hits += 1
        log("cache", f"hit {path.name}")
        with contextlib.suppress(OSError):  # a read-only folder has no order of use
            os.utime(path)  # used now: evicted later
        return content

    def put(self, kind: str, key: str, content: bytes) -> None:
        """Store an entry; an existing one is replaced."""
        path = self._path(kind, key)
        temporary = self.folder / f"{key}.{os.getpid()}-{threading.get_ident()}-{time.monotonic_ns()}.tmp"
        data = MAGIC + len(content).to_bytes(8, "little") + hashlib.sha256(content).digest() + content
        try:
            self.folder.mkdir(0o700, parents=True, exist_ok=True)  # what is in here is run
            temporary.write_bytes(data)
            os.replace(temporary, path)
        except OSError as error:
            _remove(temporary)
            self._tell(error)
            return
        log("cache", f"wrote {path.name}, {len(data)} bytes")
        with self._lock:
            if self._total is not None:
                self._total += len(data)
            if self._total is None or self._total > self.limit:
                self._evict()

    def drop(self, kind: str, key: str) -> None:
        """Delete an entry whose content makes no sense."""
        _remove(self._path(kind, key))

    def _evict(self) -> None:
        """Count what is there and, above the limit, delete the longest unused until a tenth is free."""
        entries: list[tuple[float, int, Path]] = []
        now = time.time()
        try:
            with os.scandir(self.folder) as files:
                for file in files:
                    try:
                        stat = file.stat()
                    except FileNotFoundError:
                        continue  # another process was quicker
                    if not file.name.endswith(".tmp"):
                        entries.append((stat.st_mtime, stat.st_size, Path(file.path)))
                    elif now - stat.st_mtime > _STALE:
                        _remove(Path(file.path))
        except OSError as error:
            log("cache", f"cannot count {self.folder}: {error}")
            return
        total = sum(size for _, size, _ in entries)
        if total > self.limit:
            entries.sort(key=lambda entry: entry[0])
            for _, size, path in entries:
                if total <= 0.9 * self.limit:
                    break
                _remove(path)
                total -= size
                log("cache", f"evicted {path.name}")
        self._total = total

    def _tell(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            log("cache", f"working without the cache in {self.folder}: {error}")


def _content(data: bytes) -> bytes | None:
    """The content of an entry, or None if it is not what was written."""
    length = int.from_bytes(data[len(MAGIC) : len(MAGIC) + 8], "little")
    content = data[_HEAD:]
    if data[: len(MAGIC)] != MAGIC or len(content) != length:
        return None
    return content if hashlib.sha256(content).digest() == data[_HEAD - 32 : _HEAD] else None


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log("cache", f"cannot delete {path.name}: {error}")


@cache
def _cache_at(folder: Path) -> DiskCache:
    return DiskCache(folder)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_cache_at.cache_clear)  # a lock may have been held by a thread that is gone


def disk_cache() -> DiskCache | None:
    """The cache that the settings name, or None where it is switched off."""
    settings = current()
    return _cache_at(settings.cache_dir) if settings.cache else None


@lru_cache(maxsize=1)
def sources_digest() -> str:
    """A digest of all of graphc's sources: what compiles differently must not find older plans."""
    import graphc

    digest = hashlib.sha256()
    files: list[Path] = []
    for root in map(Path, graphc.__path__):
        for folder, folders, names in os.walk(root, followlinks=True):  # passes and runtime may be links
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            files += [Path(folder) / name for name in sorted(names) if name.endswith((".py", ".options"))]
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


@lru_cache(maxsize=1)
def versions() -> str:
    """The versions of what turns a graph into code besides our own sources."""
    import llvmlite
    import llvmlite.binding as llvm

    return f"llvmlite {llvmlite.__version__}, LLVM {'.'.join(map(str, llvm.llvm_version_info))}, numpy {np.__version__}"


def _digest(parts: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for name, text in parts.items():
        data = text.encode()
        digest.update(f"{name} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()


def plan_key(
    graph: str,
    settings: Mapping[str, Any],
    target: Target,
    constants: Mapping[str, np.ndarray] | None = None,
) -> str:
    """The key of a whole plan: the canonical text of a graph, the settings that change code, the target, versions.

    constants: the arrays that the text only names.
    """
    arrays = [
        f"{name} {array.dtype.str} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
        for name, array in (constants or {}).items()
    ]
    parts = {
        "graph": graph,
        "constants": "\n".join(arrays),
        "settings": repr([(name, _canonical(value)) for name, value in sorted(settings.items())]),
        "target": repr(target),
        "versions": versions(),
        "sources": sources_digest(),
    }
    return _digest(parts)


def _canonical(value: Any) -> Any:
    """A setting's value with a text that is the same in every process: a set has no order of its own."""
    return sorted(value) if isinstance(value, (set, frozenset)) else value


def object_key(ir: str, target: Target) -> str:
    """The key of an object: the text of its module, the target, versions."""
    return _digest({"ir": ir, "target": repr(target), "versions": versions()})


def cached_object(ir: str, target: Target, compile: Callable[[str, Target], bytes] = compile_object) -> bytes:
    """The object of a module, from the cache or compiled and stored there. Raises what `compile` raises."""
    store = disk_cache()
    if store is None:
        return compile(ir, target)
    key = object_key(ir, target)
    found = store.get("object", key)
    if found is None:
        found = compile(ir, target)
        store.put("object", key, found)
    return found
