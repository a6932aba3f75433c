"""The reference manual: a Markdown page for each op and each function, made of the registry and of docstrings.

`pages()` gives file name -> text, `write(folder)` writes them; so does `python -m graphc docs docs/reference`. A test
makes them anew and compares, and runs their examples. What a page says of an op is in `graphc.reference_facts`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphc import ops, reference_facts
from graphc.errors import ArgumentError
from graphc.graph import Op
from graphc.nn import functional
from graphc.ops.registry import OPS

_BEHIND = "Behind functions and gradients"
_INTRODUCTION = """# Reference

A page for each function and each op, made by `python -m graphc docs docs/reference` out of the docstrings and entries
of the code. *Functions* are called as `graphc.NAME`, those of networks as `graphc.nn.functional.NAME`, with tensors,
arrays, lists or numbers; they promote dtypes as NumPy 2 does, and broadcast. *Ops* are the nodes that graphs are made
of: a function of the same name builds one, other functions build several. Gradients and special values on the pages
are the answers of the rules and references themselves; every example is run by the tests, printed as with
`numpy.set_printoptions(precision=5)`. Derivatives of functions, and kinks: `docs/differentiation.md`. How errors are
measured: `docs/maths.md`.
"""


def write(folder: Path, maths: Path | None = None) -> list[str]:
    """Write all pages into `folder`, remove those of what is gone, and give the names of the files."""
    made = pages(maths)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.md"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
    return sorted(made)


def pages(maths: Path | None = None) -> dict[str, str]:
    """Every page by its file name. `maths`: docs/maths.md, whose table of measured errors is quoted.

    Raises ArgumentError for a public function without an example in its documentation.
    """
    measured = _measured(maths)
    functions = _functions()
    names = sorted({*functions, *OPS})
    made = {f"{name}.md": _page(name, functions.get(name), OPS.get(name), measured) for name in names}
    return {**made, "README.md": _index(functions)}


def _functions() -> dict[str, Callable[..., Any]]:
    """The public functions by name."""
    return {**{n: getattr(functional, n) for n in functional.__all__}, **{n: getattr(ops, n) for n in ops.__all__}}


def _page(name: str, function: Callable[..., Any] | None, op: Op | None, measured: dict[str, list[str]]) -> str:
    where = "graphc" if name in ops.__all__ else "graphc.nn.functional"
    parts = [f"# {name}"]
    doc = op.doc if op is not None else ""
    if function is not None:
        parts.append(f"`{where}.{name}{_signature(function)}`")
        doc = inspect.getdoc(function) or doc
    parts.append(doc)
    other = function.__name__ if function is not None else name
    if other != name and _functions().get(other) is function:
        parts.append(f"Another name of {_link(other)}.")
        if op is None:
            return "\n\n".join([*parts, *_example(name, function, OPS.get(other))]) + "\n"
    if op is not None:
        if function is not None and doc != op.doc:
            parts.append(f"The op `{name}`: {op.doc}")
        parts.append(_facts(op, function, measured))
    parts += _example(name, function, op)
    if op is not None:
        table = reference_facts.special_values(op, reference_facts.operand_names(op, function))
        parts += [f"## Special values\n\n{table}"] if table else []
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def _example(name: str, function: Callable[..., Any] | None, op: Op | None) -> list[str]:
    """The section of the example, and of a composition the ops of its graph."""
    example = reference_facts.example_of(function, op)
    if example is None:
        if op is not None and "example" in op.exempt:
            return []
        raise ArgumentError(f"graphc.{name} has no example: write \"`{name}(...)` is ...\" into its docstring")
    section = [f"## Example\n\n```python\n{reference_facts.session(example)}\n```"]
    made = [] if op is not None else reference_facts.made_of(example)
    return [*section, f"Made of {', '.join(map(_link, made))}."] if made else section


def _signature(function: Callable[..., Any]) -> str:
    """The parameters with their defaults, without types: the text says those."""
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in inspect.signature(function).parameters.values()]
    return str(inspect.Signature(plain))


def _facts(op: Op, function: Callable[..., Any] | None, measured: dict[str, list[str]]) -> str:
    names = reference_facts.operand_names(op, function)
    lines = [f"- **Formula**: `{op.formula}`"]
    if op.samples is not tuple:
        lines.append(f"- **Shapes**: {reference_facts.shapes(op, names)}")
        lines.append(f"- **Dtypes**: {reference_facts.dtypes(op, function)}")
    lines.append(f"- **Gradient**: {reference_facts.gradient(op, names)}")
    lines.append(f"- **NaN**: {reference_facts.nan(op)}")
    if op.lowering is not None:
        lines.append(f"- **Error**: {reference_facts.error(op, measured)}")
    return "\n".join(lines)


def _measured(maths: Path | None) -> dict[str, list[str]]:
    """Function -> what docs/maths.md measured: `0.921 ULP in float32 over all 2^32 inputs`."""
    found: dict[str, list[str]] = {}
    text = maths.read_text(encoding="utf-8") if maths is not None and maths.is_file() else ""
    for name, short, inputs, ulp in re.findall(r"^\| (\w+) \| (f32|f64) \| ([^|]+) \| ([\d.]+) \|", text, re.M):
        dtype, over = {"f32": "float32", "f64": "float64"}[short], inputs.strip()
        over = over.replace("all 2^32", "all 2^32 inputs").replace("every 1009th", "every 1009th input")
        found.setdefault(name, []).append(f"{ulp} ULP measured in {dtype} ({over})")
    return found


# The index


def _index(functions: dict[str, Callable[..., Any]]) -> str:
    families = _families()
    lines = [_INTRODUCTION]
    for title, names in families.items():
        lines += [f"## {title}\n", "| | |", "|---|---|"]
        lines += [f"| {_link(name)} | {_summary(name, functions)} |" for name in sorted(names)] + [""]
    return "\n".join(lines).rstrip() + "\n"


def _link(name: str) -> str:
    return f"[{name}]({name}.md)"


def _summary(name: str, functions: dict[str, Callable[..., Any]]) -> str:
    """The first sentence of the documentation."""
    doc = inspect.getdoc(functions[name]) if name in functions else OPS[name].doc
    first = re.split(r"(?<=[.;])\s", (doc or "").strip(), maxsplit=1)[0].rstrip(".;")
    return first.replace("\n", " ").replace("|", "\\|")


def _families() -> dict[str, list[str]]:
    """Titles -> names: the first line of the module that a function is imported from, as `graphc.ops` does."""
    found: dict[str, list[str]] = {}
    for package in (ops, functional):
        tree = ast.parse(inspect.getsource(package))
        owner = {alias.asname or alias.name: node.module for node in tree.body if isinstance(node, ast.ImportFrom)
                 for alias in node.names}  # fmt: skip
        for name in package.__all__:
            if package is functional and name in ops.__all__:
                continue
            function = getattr(package, name)
            module = owner.get(name) or owner.get(function.__name__) or package.__name__
            doc = importlib.import_module(module).__doc__ or module
            title = doc.strip().splitlines()[0].rstrip(".").split(":")[0]
            found.setdefault(title, []).append(name)
    found[_BEHIND] = [name for name in OPS if name not in ops.__all__]
    return found
