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
from graphc.ops.registry import OPS

Function = Callable[..., Any]
Functions = dict[str, tuple[str, Function]]
_BEHIND = "Behind functions and gradients"
_INTRODUCTION = """# Reference

A page for each array function of `graphc`, `graphc.nn.functional` and `graphc.random`, and for each op, made by
`python -m graphc docs docs/reference` out of the docstrings and entries of the code. *Functions* are called as each
page shows: array functions with tensors, arrays, lists or numbers, those of `nn.functional` with tensors (some take
arrays too); they promote dtypes as NumPy 2 does, and broadcast.
*Ops* are the nodes that graphs are made of: a function of the same name builds one, other
functions build several. Gradients and special values on the pages are the answers of the rules and references
themselves; every example is run by the tests, printed as with `numpy.set_printoptions(precision=5)`. Derivatives of
functions, and kinks: `docs/differentiation.md`. How errors are
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
    functions = reference_facts.functions()
    names = sorted({*functions, *OPS})
    made = {}
    for name in names:
        called, function = functions.get(name, (name, None))
        made[f"{name}.md"] = _page(name, called, function, OPS.get(name), measured)
    return {**made, "README.md": _index(functions)}


def _page(name: str, called: str, function: Function | None, op: Op | None, measured: dict[str, list[str]]) -> str:
    parts = [f"# {name}"]
    doc = op.doc if op is not None else ""
    if function is not None:
        parts.append(f"`{called}{_signature(function)}`")
        doc = inspect.getdoc(function) or doc
    parts.append(doc)
    other = function.__name__ if function is not None else name
    if other != name and reference_facts.functions().get(other, ("", None))[1] is function:
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


def _example(name: str, function: Function | None, op: Op | None) -> list[str]:
    """The section of the example, and of a composition the ops of its graph."""
    example = reference_facts.example_of(function, op)
    if example is None:
        if op is not None and "example" in op.exempt:
            return []
        raise ArgumentError(f"graphc.{name} has no example: write \"`{name}(...)` is ...\" into its docstring")
    section = [f"## Example\n\n```python\n{reference_facts.session(example)}\n```"]
    made = [] if op is not None else reference_facts.made_of(example)
    return [*section, f"Made of {', '.join(map(_link, made))}."] if made else section


def _signature(function: Function) -> str:
    """The parameters with their defaults, without types: the text says those."""
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in inspect.signature(function).parameters.values()]
    return str(inspect.Signature(plain))


def _facts(op: Op, function: Function | None, measured: dict[str, list[str]]) -> str:
    names = reference_facts.operand_names(op, function)
    lines = [f"- **Formula**: `{op.formula}`"]
    if op.samples is not tuple:
        lines.append(f"- **Shapes**: {reference_facts.shapes(op, names)}")
        lines.append(f"- **Dtypes**: {reference_facts.dtypes(op, function)}")
    lines.append(f"- **Gradient**: {reference_facts.gradient(op, names)}")
    if "differences" in op.exempt:
        lines.append(f"  - not compared with finite differences: {op.exempt['differences']}")
    if "slope" in op.exempt:
        lines.append(f"  - {op.exempt['slope']}")
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


def _index(functions: Functions) -> str:
    families = _families()
    lines = [_INTRODUCTION]
    for title, names in families.items():
        lines += [f"## {title}\n", "| | |", "|---|---|"]
        lines += [f"| {_link(name)} | {_summary(name, functions)} |" for name in sorted(names)] + [""]
    return "\n".join(lines).rstrip() + "\n"


def _link(name: str) -> str:
    return f"[{name}]({name}.md)"


def _summary(name: str, functions: Functions) -> str:
    """The first sentence of the documentation."""
    doc = inspect.getdoc(functions[name][1]) if name in functions else OPS[name].doc
    first = re.split(r"(?<=[.;])\s", (doc or "").strip(), maxsplit=1)[0].rstrip(".;")
    return first.replace("\n", " ").replace("|", "\\|")


def _families() -> dict[str, list[str]]:
    """Titles -> names: the first line of the module that a function is imported from, as `graphc.ops` does."""
    found: dict[str, list[str]] = {}
    for package, module in reference_facts.PACKAGES.items():
        tree = ast.parse(inspect.getsource(module))
        owner = {alias.asname or alias.name: node.module for node in tree.body if isinstance(node, ast.ImportFrom)
                 for alias in node.names}  # fmt: skip
        for page, (called, function) in reference_facts.functions().items():
            if called.rpartition(".")[0] == package:
                source = owner.get(page) or owner.get(function.__name__) or package
                doc = importlib.import_module(source).__doc__ or source
                title = doc.strip().splitlines()[0].rstrip(".").split(":")[0]
                found.setdefault(title, []).append(page)
    found[_BEHIND] = [name for name in OPS if name not in ops.__all__]
    return found
