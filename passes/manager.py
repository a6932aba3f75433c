"""Runs passes and does for them all that a pass should not know of: switching off, verifying, timing, logging, dumping.

Enter at `run`. A pass is a function Graph -> Graph in an entry `Pass`; its name is what the log prints, what the dumped
file is called, and what `config(disable="name")` switches off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.errors import GraphcError, InternalError
from graphc.graph import Graph
from graphc.observe import Observer, log, reproducer
from graphc.settings import current
from graphc.text import to_text
from graphc.verify import verify


@dataclass(frozen=True)
class Pass:
    """One step of the pipeline: `run` rewrites the graph, for the `reason`; `instead` runs where `run` is disabled."""

    name: str
    run: Callable[[Graph], Graph]
    reason: str
    instead: Callable[[Graph], Graph] | None = None


def run(passes: Sequence[Pass], graph: Graph, observer: Observer | None = None) -> Graph:
    """`graph` after all passes. InternalError, naming the pass, if one breaks the graph or fails."""
    observer = observer or Observer(graph.name)
    settings = current()
    if settings.verify:
        verify(graph, after="build")
    for each in passes:
        function = each.instead if each.name in settings.disable else each.run
        if function is None:
            log("passes", f"{each.name}: disabled")
            continue
        start = time.perf_counter()
        with observer.step(each.name):
            result = _guarded(each.name, function, graph)
        seconds = time.perf_counter() - start
        if result.outputs == graph.outputs and result.updates == graph.updates:
            continue
        if settings.verify:
            verify(result, after=each.name)
        _tell(each.name, graph, result, seconds)
        observer.level(each.name, lambda graph=result: to_text(graph))  # type: ignore[misc]
        graph = result
    return graph


def _tell(name: str, before: Graph, after: Graph, seconds: float) -> None:
    log("passes", lambda: f"{name}: {len(before.order())} -> {len(after.order())} nodes in {1e3 * seconds:.2f} ms")


def _guarded(name: str, function: Callable[[Graph], Graph], graph: Graph) -> Graph:
    try:
        return function(graph)
    except (GraphcError, InternalError):
        raise
    except Exception as error:
        raise InternalError(f"pass {name} failed: {error!r}", reproducer(to_text(graph))) from error
