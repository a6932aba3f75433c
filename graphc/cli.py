"""The command line, `python -m graphc`: `dump` prints a saved graph at any level, `docs` writes the
reference manual, `info` prints what this machine gets.

A new command is a function `(options) -> str` with its parser in `_parser`; `main` prints what it returns.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import cast

from graphc import settings, text
from graphc.build import Parameter, Tensor
from graphc.compile import LEVELS, Function, function
from graphc.errors import GraphcError
from graphc.graph import Graph
from graphc.runtime.host import host_target
from graphc.target import NAMED


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0, or 1 after an error of the user's, which goes to stderr."""
    options = _parser().parse_args(arguments)
    try:
        output = cast(str, options.command(options))
    except (GraphcError, OSError) as error:
        print(f"graphc: {error}", file=sys.stderr)
        return 1
    try:
        print(output, flush=True)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="graphc", description="graphc compiles graphs of array operations.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    show = commands.add_parser(
        "dump",
        help="print a saved graph at one level",
        description="Print a graph, saved by graphc.text.save or as the text of fn.ir('graph'), at one level.",
    )
    show.add_argument("file", type=Path, help="what graphc.text.save wrote, or the text of a graph")
    show.add_argument("--level", choices=LEVELS, default="graph", help="default: graph")
    show.set_defaults(command=dump)
    manual = commands.add_parser(
        "docs",
        help="write the reference manual",
        description="Write a Markdown page for each op and function into a folder.",
    )
    manual.add_argument("folder", type=Path, help="such as docs/reference; pages of what is gone are removed")
    manual.set_defaults(command=docs)
    about = commands.add_parser("info", help="print versions, target, cache and settings")
    about.set_defaults(command=info)
    return parser


def dump(options: argparse.Namespace) -> str:
    """The text of a saved graph at a level. Parameters have no values there; no level needs any."""
    graph = text.load(options.file)
    if options.level == "graph":
        return text.to_text(graph).rstrip()
    return compiled(graph).ir(options.level).rstrip()


def compiled(graph: Graph) -> Function:
    """The function of a graph whose inputs are placeholders and parameters."""
    inputs = [Tensor(value) for value in graph.inputs if value.op.name == "placeholder"]
    updates = {Parameter(old): Tensor(new) for old, new in zip(graph.updates, graph.outputs[len(graph.results) :])}
    results = [Tensor(value) for value in graph.results]
    return function(inputs, results, updates=updates, default_updates=False, name=graph.name)


def docs(options: argparse.Namespace) -> str:
    """Write the reference manual; errors are quoted from maths.md beside the folder, if it is there."""
    from graphc import reference  # it imports everything

    names = reference.write(options.folder, options.folder.parent / "maths.md")
    return f"{len(names)} pages in {options.folder}"


def info(options: argparse.Namespace) -> str:
    """Versions, the target of this machine, the cache, and the table of settings."""
    target, now = host_target(), settings.current()
    versions = ", ".join(f"{name} {_version(name)}" for name in ("graphc", "numpy", "llvmlite", "networkx"))
    files = [path for path in now.cache_dir.rglob("*") if path.is_file()] if now.cache_dir.is_dir() else []
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    lines = [
        f"{versions}, python {sys.version.split()[0]}",
        f"target   {target.cpu} ({target.triple}): {target.vector_registers} registers of {target.vector_bytes} bytes, "
        f"L1 {target.l1_bytes // 1024} KiB, L2 {target.l2_bytes // 1024} KiB; named targets: {', '.join(NAMED)}",
        f"cache    {now.cache_dir}: {len(files)} files, {megabytes:.1f} MB{'' if now.cache else ' (off)'}",
        f"threads  {now.threads}",
        "",
        "settings, by environment variable or `with graphc.config(...)` [default]:",
        settings.table(),
    ]
    return "\n".join(lines)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "(not installed, imported from its folder)"
