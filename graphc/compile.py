"""`function()`: the whole compiler in reading order.

    user's tensors -> Graph (freeze) -> passes -> Program -> loop IR -> LLVM IR -> objects -> Executable

A compiled plan is looked up in the cache on disk before any pass runs; a function found there makes its levels again
only when somebody asks for them with `ir`. To follow one function, read `function`, `_compiled` and `Levels` here.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from graphc import settings
from graphc.bounds import bounds_of
from graphc.build import Parameter, Tensor
from graphc.errors import ArgumentError, GraphcError, InternalError, SourceLine
from graphc.extents import extents
from graphc.freeze import Frozen, freeze, packer
from graphc.graph import Graph, origin_of
from graphc.observe import Observer, log, reproducer
from graphc.picture import digraph
from graphc.runtime.executable import Executable
from graphc.target import Target
from graphc.text import canonical_text, constants_of, to_text

LEVELS = ("graph", "optimized", "program", "loops", "llvm", "asm")


class Levels:
    """Every level of one graph, each made when it is first asked for. The same code makes what runs and what prints."""

    def __init__(self, graph: Graph, target: Target, settings_used: settings.Settings, observer: Observer) -> None:
        self.graph, self.target, self.settings, self.observer = graph, target, settings_used, observer
        self.take: Callable[[str, str], None] | None = None  # name and LLVM IR of a kernel as soon as it is lowered
        self._emitted: dict[str, str] = {}

    @cached_property
    def optimized(self) -> Graph:
        from graphc.passes.pipeline import optimize

        with settings.using(self.settings), self.observer.step("passes"):
            return optimize(self.graph, self.observer)

    @cached_property
    def program(self) -> Any:
        from graphc.loops.lower import lower
        from graphc.loops.program_text import verify_program

        with settings.using(self.settings), self.observer.step("lower"):
            program = lower(self.optimized, self.target, self._emit)
            verify_program(program)
            if self.settings.guard_memory:
                from graphc.loops.guard import guard

                return guard(program)
            return program

    def _emit(self, kernel: Any) -> None:
        """The LLVM IR of a kernel, while others wait to be lowered, if somebody takes it already."""
        if self.take is not None:
            from graphc.llvm.emit import emit

            with self.observer.step("emit"):
                ir = self._emitted[kernel.name] = emit(kernel, self.target)
            self.take(kernel.name, ir)

    @cached_property
    def modules(self) -> dict[str, str]:
        """The LLVM IR of each kernel."""
        from graphc.llvm.emit import emit
        from graphc.loops.check import check_kernel

        kernels = self.program.kernels
        if self._emitted:
            return self._emitted
        with self.observer.step("emit"):
            if self.settings.verify:
                for kernel in kernels.values():
                    check_kernel(kernel)
            return {name: emit(kernel, self.target) for name, kernel in kernels.items()}

    def text(self, level: str) -> str:
        """The text of a level; ArgumentError for a level that does not exist."""
        if level == "graph":
            return to_text(self.graph)
        if level == "optimized":
            return to_text(self.optimized)
        if level in ("program", "loops"):
            from graphc.loops.program_text import print_loops, print_program

            return print_program(self.program) if level == "program" else print_loops(self.program)
        if level == "llvm":
            return "\n".join(self.modules.values())
        if level == "asm":
            from graphc.runtime.jit import compile_assembly

            return "\n".join(compile_assembly(ir, self.target) for ir in self.modules.values())
        raise ArgumentError(f"there is no level {level!r}", hint=f"the levels are {', '.join(LEVELS)}")


@dataclass(frozen=True)
class _Native:
    """What the runtime needs of a compiled function."""

    program: Any
    objects: Mapping[str, bytes]
    scratch: Mapping[str, int]
    finishes: frozenset[str]


class _Caller:
    """The usual way into an executable: it flattens the nest of `out` and packs the results."""

    def __init__(self, frozen: Frozen, executable: Executable) -> None:
        self._flatten, self._run, self._pack = frozen.flatten_out, executable.run, packer(frozen.nest)

    def __call__(self, *args: Any, out: Any = None, **named: Any) -> Any:
        if out is not None:
            out = self._flatten(out)
        return self._pack(self._run(args, named, out))


class Function:
    """A compiled function. Call it with arrays, by position or by placeholder name; NumPy in, NumPy out.

    `ir(level)` prints any level of the code that runs, `parameters` maps names to parameters, `kernels` names its
    native functions, `compile_count` says how often it was compiled (once) and `native_calls` how many native calls
    its calls have made (one each).
    """

    compile_count = 1

    def __init__(self, frozen: Frozen, levels: Levels, executable: Executable, kernels: tuple[str, ...]) -> None:
        self._frozen, self._levels, self._executable = frozen, levels, executable
        self.kernels = kernels
        self.name = frozen.graph.name
        self.parameters = frozen.parameters
        self._caller = _Caller(frozen, executable)
        self._call = executable.direct(self._caller) if isinstance(frozen.nest, Tensor) else self._caller

    def __call__(self, *args: Any, out: Any = None, **named: Any) -> Any:
        """Run once. `out`: arrays for the results, in the nest that the outputs have (None: a new array)."""
        if out is None and not named:
            return self._call(*args)
        return self._call(*args, out=out, **named)

    @property
    def native_calls(self) -> int:
        return self._executable.native_calls

    @property
    def graph(self) -> Graph:
        """The graph as the user built it (what `ir("graph")` prints)."""
        return self._levels.graph

    @property
    def program(self) -> Any:
        """Buffers, regions and tasks of the code that runs."""
        return self._executable.program

    def ir(self, level: str) -> str:
        """The text of one level: graph, optimized, program, loops, llvm or asm."""
        return self._levels.text(level)

    def digraph(self, level: str = "optimized") -> Any:
        """The level "graph" or "optimized" as a networkx DiGraph (see `graphc.picture`)."""
        if level not in ("graph", "optimized"):
            raise ArgumentError(f"no digraph of level {level!r}", hint="the levels are graph and optimized")
        return digraph(self._levels.graph if level == "graph" else self._levels.optimized)

    def __repr__(self) -> str:
        graph, program = self._levels.graph, self.program
        updates = {v.node.attrs["name"] for v in graph.updates}
        lines = [f"function {self.name}"]
        for value in graph.inputs:
            name = value.node.attrs["name"]
            lines.append(f"  {value.op.name:11} {name}: {value.type}" + ("  (updated)" if name in updates else ""))
        lines += [f"  {'output':11} {v.type}" for v in graph.results]
        counts = f"{_counted(len(self.kernels), 'kernel')} in {_counted(len(program.regions), 'region')}"
        lines.append(f"  {counts}: {', '.join(self.kernels)}")
        held = sum(p.value.nbytes for p in self.parameters.values())
        temps = [b.type.nbytes for b in program.buffers.values() if b.kind == "temp"]
        total = sum(temps) if temps else 0
        lines.append(f"  {held} bytes of parameters, {total} bytes of temporaries before they share memory")
        return "\n".join(lines)


def function(
    inputs: Sequence[Tensor],
    outputs: Any,
    updates: Mapping[Parameter, Tensor] | None = None,
    *,
    default_updates: bool = True,
    name: str | None = None,
    threads: int | None = None,
) -> Function:
    """Compile a function of placeholders to native code.

    inputs: placeholders, in call order. outputs: a tensor or any nest of tuples, lists and dicts; a call returns the
    same nest. updates: parameter -> its next value (same type); every next value and output reads the old values.
    default_updates: also apply the `default_update` of parameters that the graph uses. threads: of a call, None for
    the setting at the time of the call. Symbolic dimensions serve every size without another compilation.

    Raises ArgumentError, ShapeError or DTypeError for inputs, outputs and updates that do not fit together.
    """
    frozen = freeze(inputs, outputs, updates or {}, default_updates, name)
    threads = settings.checked_threads(threads)
    observer = Observer(frozen.graph.name)
    levels = Levels(frozen.graph, _host(), settings.current(), observer)
    observer.level("graph", lambda: levels.text("graph"))
    try:
        with _no_collections():
            native, kernels = _compiled(levels)
    except GraphcError:
        raise
    except Exception as error:
        what = str(error) if isinstance(error, InternalError) else f"{type(error).__name__}: {error}"
        path = reproducer(to_text(frozen.graph))
        raise InternalError(f"compiling {frozen.graph.name} failed: {what}", path) from error
    if settings.current().dump is not None:
        for level in LEVELS[2:]:
            observer.level(level, levels.text(level))
    log("program", lambda: _printed(native.program))
    executable = _executable(frozen, levels, native, threads)
    observer.finish()
    return Function(frozen, levels, executable, kernels)


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Without Python's cycle collector, which would look at all that the process has each time that some thousand
    objects are made: 5 % of a compilation, more in a large process. What cycles there are it finds afterwards.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _printed(program: Any) -> str:
    from graphc.loops.program_text import print_program

    return print_program(program)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _host() -> Target:
    from graphc.runtime.host import host_target

    return host_target()


def _compiled(levels: Levels) -> tuple[_Native, tuple[str, ...]]:
    """The plan and objects, from the cache on disk or compiled and put there.

    Somebody who asks the passes to tell what they do, or to be verified, gets passes that run: only objects are read.
    """
    from graphc.runtime.cache import cached_object, disk_cache, plan_key
    from graphc.runtime.stored import load_plan, store_plan

    cache, key = disk_cache(), ""
    watched = levels.settings.verify or not levels.settings.log.isdisjoint(settings.WORDS_OF_PASSES)
    with levels.observer.step("cache"):
        if cache is not None:
            used = {name: getattr(levels.settings, name) for name in settings.CODE_SETTINGS}
            key = plan_key(canonical_text(levels.graph), used, levels.target, constants_of(levels.graph))
            found = None if watched else load_plan(cache, key)
            if found is not None:
                return _Native(*found), tuple(found[0].kernels)
    from graphc.llvm.scratch import scratch_bytes

    objects = _objects(levels, lambda ir: cached_object(ir, levels.target))
    program = levels.program
    scratch = {name: scratch_bytes(kernel) for name, kernel in program.kernels.items()}
    finishes = frozenset(name for name, kernel in program.kernels.items() if kernel.finish)
    if cache is not None:
        store_plan(cache, key, program, objects, scratch, finishes)
    return _Native(program, objects, scratch, finishes), tuple(program.kernels)


def _objects(levels: Levels, make: Callable[[str], bytes]) -> Mapping[str, bytes]:
    """The object of each kernel. Of several kernels LLVM compiles one while the next are lowered, on another core.

    Not where the program is looked at, or changed, as a whole before its kernels are emitted.
    """
    observer, several = levels.observer, sum(node.op.name == "kernel" for node in levels.optimized.order()) > 1
    if not several or settings.usable_cores() == 1 or levels.settings.verify or levels.settings.guard_memory:
        modules = levels.modules
        with observer.step("machine code"):
            return {name: make(ir) for name, ir in modules.items()}
    from graphc.runtime.beside import Beside

    with Beside(make) as beside:
        levels.take = beside.start
        try:
            _ = levels.program
        finally:
            levels.take = None
        with observer.step("machine code"):
            objects = beside.objects()
    observer.seconds["machine code/in all, beside the others"] = beside.seconds
    return objects


def _executable(frozen: Frozen, levels: Levels, native: _Native, threads: int | None) -> Executable:
    from graphc.runtime.jit import Library
    from graphc.runtime.plan import LoadedKernel

    library = Library()
    names = list(native.objects)
    addresses = library.load(list(native.objects.values()), names) if names else {}
    kernels = {n: LoadedKernel(addresses[n], n in native.finishes, native.scratch[n]) for n in names}
    states = {name: p.state for name, p in frozen.parameters.items()}
    lines: dict[str, tuple[SourceLine, ...]] = {}
    for value in frozen.graph.inputs:
        origin = origin_of(value.node)
        lines[value.node.attrs["name"]] = origin.lines if origin else ()
    return Executable(
        native.program, kernels, states,
        lines=lines, checks=lambda: levels.program.checks, threads=threads, keep=library,
        limits=bounds_of(v.type.shape for v in frozen.graph.inputs), extents=extents(frozen.graph),
    )  # fmt: skip
