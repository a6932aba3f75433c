"""What a reference page says of an op, derived from its entry: dtypes, shapes, gradient, special values, examples.

Nothing here is written by hand for one op: rules are asked, references are evaluated, examples are run. Each function
gives Markdown text. `graphc.reference` puts the pages together; one more fact is a function here, called there.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import product
from types import ModuleType
from typing import Any, cast

import numpy as np

import graphc
from graphc import ops, random
from graphc.build import Tensor, placeholder
from graphc.errors import GraphcError
from graphc.graph import Graph, Op, Value, topological_order
from graphc.nn import functional
from graphc.ops.lowering import Elementwise, ScatterInto
from graphc.ops.registry import NAN
from graphc.ops.samples import Operand, Sample
from graphc.stabilize import scalar_value
from graphc.text import canonical_text
from graphc.types import DTYPES, Dim, DType, TensorType, float32, float64

_INFIX = {  # op -> how it is written, and how tightly it binds
    "add": ("+", 4), "subtract": ("-", 4), "multiply": ("*", 5), "divide": ("/", 5), "equal": ("==", 1),
    "not_equal": ("!=", 1), "less": ("<", 1), "less_equal": ("<=", 1), "greater": (">", 1), "greater_equal": (">=", 1),
    "logical_and": ("&", 3), "logical_or": ("|", 2),
}  # fmt: skip
_SIGN, _CLOSED = 6, 7  # of -x; of what needs no brackets
_LONGEST = 110  # characters of a gradient in one line
_PRECISION = 5  # digits of printed examples
SPECIAL = (-np.inf, -1.0, -0.0, 0.0, 1.0, np.inf, np.nan)


# dtypes


def accepted(op: Op) -> dict[DType, tuple[DType, ...]]:
    """The dtypes that the type rule takes for the operands that have no dtype of their own -> those of the results."""
    found: dict[DType, tuple[DType, ...]] = {}
    for sample in op.samples():
        if all(o.dtype for o in sample.operands):
            continue
        for dtype in DTYPES:
            types = tuple(TensorType(o.dtype or dtype, o.shape) for o in sample.operands)
            try:
                results = op.type_rule(types, sample.attrs)
            except GraphcError:
                continue
            found.setdefault(dtype, tuple(t.dtype for t in results))
    return found


def dtypes(op: Op, function: Callable[..., Any] | None) -> str:
    """Which dtypes there are, what they give, and what the public function converts before."""
    rule = accepted(op)
    if not rule:
        tried = {dtype for sample in op.samples() for dtype in sample.dtypes}
        return f"{_names(tried)}." if tried else "any."
    if all("dtype" in sample.attrs for sample in op.samples()):
        return f"{_names(rule)}; the result has the one that `dtype` names."
    same = [d for d, results in rule.items() if set(results) == {d}]
    parts = [f"{_names(same)}: the result has the dtype of the operands"] if same else []
    others: dict[tuple[DType, ...], list[DType]] = {}
    for dtype, results in rule.items():
        if dtype not in same:
            others.setdefault(results, []).append(dtype)
    parts += [f"{_names(found)} {'give' if len(found) > 1 else 'gives'} {', '.join(d.name for d in results)}"
              for results, found in others.items()]  # fmt: skip
    converted: dict[DType, list[DType]] = {}
    arity = max(len(sample.operands) for sample in op.samples())
    for dtype in DTYPES if isinstance(op.lowering, Elementwise) else ():
        if dtype not in rule and function is not None:
            try:
                result = function(*(placeholder("x", (3,), dtype) for _ in range(arity)))
            except (GraphcError, TypeError):
                continue
            converted.setdefault(result.dtype, []).append(dtype)
    kept = [d for d in DTYPES if converted.get(d) == [d]]
    parts += [f"the function leaves {_names(kept)} as they are"] if kept else []
    parts += [f"the function makes {to.name} of {_names(found)}" for to, found in converted.items() if to not in kept]
    return "; ".join(parts) + "."


def _names(found: Iterable[DType]) -> str:
    """The dtypes in words: `all`, or families and single names."""
    left = [d for d in DTYPES if d in set(found)]
    if left == list(DTYPES):
        return "all dtypes"
    parts = []
    for family, word in (("i", "signed integers"), ("u", "unsigned integers"), ("f", "floats")):
        members = [d for d in DTYPES if d.kind == family]
        if all(d in left for d in members):
            parts.append(word)
            left = [d for d in left if d not in members]
    parts = ["integers", *parts[2:]] if parts[:2] == ["signed integers", "unsigned integers"] else parts
    return ", ".join([*(d.name for d in left), *parts])


# shapes


def operand_names(op: Op, function: Callable[..., Any] | None) -> list[str]:
    """What the operands are called: as the public function of that name calls them."""
    count = max((len(s.operands) for s in op.samples()), default=0)
    if isinstance(op.lowering, ScatterInto):
        return ["x", "indices", "updates"]
    if function is not None:
        names = list(inspect.signature(function).parameters)
        if len(names) >= count and "arrays" not in names[:count]:
            return names[:count]
    return ["x", "y", "z"][:count] if count <= 3 else [f"x{i}" for i in range(count)]


def shapes(op: Op, names: Sequence[str]) -> str:
    """One shape for all, or the types of some samples."""
    if isinstance(op.lowering, Elementwise):
        return "operands and result have one shape; the function broadcasts." if len(names) > 1 else "any; kept."
    shown: dict[str, None] = {}
    for sample in op.samples():
        dtype = float32 if float32 in sample.dtypes else sample.dtypes[0]
        types = [TensorType(o.dtype or dtype, o.shape) for o in sample.operands]
        results = op.type_rule(tuple(types), sample.attrs)
        given = ", ".join(f"{n} {t}" for n, t in zip(names, types))
        attrs = ", ".join(f"{k}={_attribute(v)}" for k, v in sample.attrs.items())
        line = f"{given}{'; ' if given and attrs else ''}{attrs} gives {', '.join(map(str, results))}"
        if len(types) <= len(names) and all(n != 0 for o in sample.operands for n in o.shape):
            shown.setdefault(line)
    lines = list(shown)
    chosen = list(dict.fromkeys([*lines[:2], *lines[-1:]]))
    return "such as" + "".join(f"\n  - `{line}`" for line in chosen) if chosen else "any."


def _attribute(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_attribute, value))}]"
    return str(value)


# gradients


def gradient(op: Op, names: Sequence[str]) -> str:
    """The gradient rule as it answers, with `g` for the cotangent; or the written reason that there is none."""
    if op.gradient is None:
        return f"none: {op.exempt['gradient']}."
    if op.samples is tuple:
        return "as its description says."
    sample = next((s for s in op.samples() if float32 in s.dtypes and s.smooth), None)
    sample = sample or next(s for s in op.samples() if float32 in s.dtypes)
    if isinstance(op.lowering, Elementwise):
        sample = Sample(tuple(Operand((Dim.symbol("n"),), o.dtype) for o in sample.operands), sample.attrs)
    inputs = [placeholder(n, cast(Any, o.shape), o.dtype or float32) for n, o in zip(names, sample.operands)]
    results = graphc.build.apply(op, *inputs, **sample.attrs)
    outputs = results if isinstance(results, tuple) else (results,)
    cotangents = [placeholder("g", t.shape, t.dtype) if t.dtype.is_float else None for t in outputs]
    parts = op.gradient(outputs[0].ref.node, cotangents)
    known = {t.ref: n for t, n in zip(inputs, names)}
    known |= {t.ref: "result" for t in outputs} | {t.ref: "g" for t in cotangents if t is not None}
    lines, blocks = [], []
    for name, part, x in zip(names, parts, inputs, strict=True):
        if not x.dtype.is_float:
            continue
        text = "0 (nothing flows)" if part is None else expression(part.ref, known)
        if part is None or len(text) <= _LONGEST:
            lines.append(f"\n  - {name}: `{text}`")
        else:
            blocks.append(_block(name, part, [*inputs, *(t for t in cotangents if t is not None)]))
    return "`g` being the cotangent of the result" + "".join(lines + blocks)


def _block(name: str, part: Tensor, inputs: Sequence[Tensor]) -> str:
    text = canonical_text(Graph(tuple(t.ref for t in inputs), (part.ref,), (), "gradient")).rstrip()
    return f"\n  - {name}:\n\n    ```text\n" + "".join(f"    {line}\n" for line in text.splitlines()) + "    ```"


def expression(value: Value, known: dict[Value, str]) -> str:
    """A value in algebra, over the values that have names. Broadcasts of scalars are the scalar."""
    texts: dict[Value, tuple[str, int]] = {v: (name, _CLOSED) for v, name in known.items()}
    for node in topological_order([value.node]):
        for output in node.outputs:
            if output not in texts:
                texts[output] = _term(output, texts)
    return texts[value][0]


def _term(value: Value, texts: dict[Value, tuple[str, int]]) -> tuple[str, int]:
    """The text of one node, and how tightly it binds."""
    node, number = value.node, scalar_value(value)
    if number is not None:
        return f"{number:.6g}", _CLOSED if number >= 0 else _SIGN
    parts = [texts[v] for v in node.inputs]
    if sum(len(text) for text, _ in parts) > 4 * _LONGEST:
        return "." * (_LONGEST + 1), _CLOSED  # too long to be shown in a line
    if node.op.name in _INFIX:
        sign, binds = _INFIX[node.op.name]
        return f"{_within(parts[0], binds)} {sign} {_within(parts[1], binds + 1)}", binds
    if node.op.name in ("negative", "logical_not"):
        return ("-" if node.op.name == "negative" else "~") + _within(parts[0], _SIGN), _SIGN
    attrs = [f"{k}={_attribute(v)}" for k, v in node.attrs.items()]
    if node.op.name == "constant":
        attrs = [np.array2string(node.attrs["data"].array, separator=", ")]
    return f"{node.op.name}({', '.join([*(text for text, _ in parts), *attrs])})", _CLOSED


def _within(part: tuple[str, int], binds: int) -> str:
    text, own = part
    return text if own >= binds else f"({text})"


# NaN, special values and errors


def nan(op: Op) -> str:
    return op.nan or NAN[type(op.lowering)]


def special_values(op: Op, names: Sequence[str]) -> str:
    """A table of an elementwise function of one or two floats at infinities, zeros and NaN, by its reference."""
    if not isinstance(op.lowering, Elementwise) or len(names) > 2 or op.name in ("cast", "stop_gradient"):
        return ""
    if op.reference is None or float64 not in accepted(op):
        return ""
    pairs = np.array(list(product(SPECIAL, repeat=len(names)))).T
    with np.errstate(all="ignore"):
        (found,) = op.reference([np.ascontiguousarray(column) for column in pairs], next(iter(op.samples())).attrs)
    head = [_number(v) for v in SPECIAL]
    if len(names) == 1:
        rows = [[names[0], *head], ["result", *map(_number, found)]]
    else:
        table = found.reshape(len(SPECIAL), -1)
        rows = [[f"{names[0]} \\ {names[1]}", *head]] + [[h, *map(_number, row)] for h, row in zip(head, table)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _number(value: Any) -> str:
    return str(bool(value)) if isinstance(value, np.bool_) else f"{value:.4g}"


def error(op: Op, measured: dict[str, list[str]]) -> str:
    """The measured error, or what is promised, or that the bits are the reference's."""
    if op.name in measured:
        return "; ".join(measured[op.name])
    if op.ulp:
        return f"at most {', '.join(f'{u:g} ULP in {d}' for d, u in op.ulp.items())}: the bound that tests hold it to."
    kind = type(op.lowering).__name__
    if kind == "Contraction" or op.name in ("sum", "prod", "cumsum", "cumprod"):
        return "that of rounding each step of the fold once, in an order that follows from the sizes alone."
    if kind == "Matrices" and op.gradient is not None:
        return "that of elimination in the dtype, with fma: what it amounts to depends on the matrix."
    if kind.startswith("Scatter") and "add" in op.name:
        return "that of adding in index order, each addition rounded once."
    return "none: the result has the bits of NumPy's."


# examples


PACKAGES: dict[str, ModuleType] = {"graphc": ops, "graphc.nn.functional": functional, "graphc.random": random}


def functions() -> dict[str, tuple[str, Callable[..., Any]]]:
    """Every public function by the name of its page: how it is called from outside, and itself."""
    found: dict[str, tuple[str, Callable[..., Any]]] = {}
    for package, module in PACKAGES.items():
        for name in module.__all__:
            function, page = getattr(module, name), f"random.{name}" if module is random else name
            if not inspect.isclass(function):
                found.setdefault(page, (f"{package}.{name}", function))
    return found


@cache
def namespace(package: str = "graphc") -> dict[str, str]:
    """The names that an example in a docstring may use -> how they are called from outside. Those of the docstring's
    own package come before others."""
    names = {"constant": "graphc.constant", "inf": "np.inf", "nan": "np.nan"}
    for page, (called, _) in functions().items():
        if not page.startswith("random."):
            names.setdefault(page, called)
    return names | {name: f"{package}.{name}" for name in PACKAGES[package].__all__}


class _Qualified(ast.NodeTransformer):
    """`softmax([nan])` as `graphc.nn.functional.softmax([np.nan])`."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.parse(self.names.get(node.id, node.id), mode="eval").body


def qualified(code: str, package: str) -> str | None:
    """An expression of a docstring as a user types it; None if it uses names that only the text knows."""
    tree, names = ast.parse(code, mode="eval"), namespace(package)
    if not {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} <= names.keys():
        return None
    return ast.unparse(_Qualified(names).visit(tree))


_IN_TEXT = re.compile(r"`([a-z_][a-z_.0-9]*\([^`]*\))` is ")


def example_of(function: Callable[..., Any] | None, op: Op | None) -> str | None:
    """An expression to run: the entry's, one out of the documentation (`f(1.0)` is 2.0), or one for elementwise ops."""
    if op is not None and op.example:
        return op.example
    package = "graphc.random" if getattr(function, "__module__", "") == "graphc.random" else "graphc"
    doc = inspect.getdoc(function) if function is not None else op.doc if op else ""
    for code in _IN_TEXT.findall((doc or "").replace("\n", " ")):
        if found := qualified(code, package):
            return found
    if op is None or "example" in op.exempt or not isinstance(op.lowering, Elementwise):
        return None
    kinds = {d.kind for d in accepted(op)}
    low = min((o.domain[0] for s in op.samples() for o in s.operands), default=0.25)
    first = "[1.5, 2.0, 4.0]" if low > 1 else "[-1.5, 0.0, 2.5]" if not _positive(op) else "[0.25, 1.0, 4.0]"
    if max((o.domain[1] for s in op.samples() for o in s.operands), default=2.0) < 1:
        first = "[-0.5, 0.0, 0.8]"
    rows = [first, "[2.0, 2.0, 2.0]"]
    rows = ["[12, 10]", "[10, 3]"] if "f" not in kinds else rows
    rows = ["[True, True, False]", "[True, False, False]"] if kinds == {"b"} else rows
    arity = max(len(s.operands) for s in op.samples())
    return f"graphc.{op.name}({', '.join(rows[:arity])})"


def _positive(op: Op) -> bool:
    return any(o.positive for s in op.samples() for o in s.operands)


def run(example: str) -> tuple[str, Any]:
    """The example as a user types it (tensors evaluated), and its value."""
    value = eval(example, {"graphc": graphc, "np": np})
    if isinstance(value, Tensor):
        plain = isinstance(ast.parse(example, mode="eval").body, (ast.Call, ast.Subscript, ast.Attribute))
        code = f"{example}.eval()" if plain else f"({example}).eval()"
    elif isinstance(value, tuple) and value and all(isinstance(v, Tensor) for v in value):
        code = f"[t.eval() for t in {example}]"
    else:
        code = example
    return code, eval(code, {"graphc": graphc, "np": np})


def session(example: str) -> str:
    """The example as an interactive session, with what it prints."""
    code, value = run(example)
    lines = [">>> import graphc"] + ([">>> import numpy as np"] if "np." in code else [])
    with np.printoptions(precision=_PRECISION):
        return "\n".join([*lines, f">>> {code}", repr(value)])


def made_of(example: str) -> list[str]:
    """The ops in the graph of an example's result; broadcasts and conversions if there is nothing else."""
    value = eval(example, {"graphc": graphc, "np": np})
    tensors = [t for t in (value if isinstance(value, tuple) else (value,)) if isinstance(t, Tensor)]
    names = dict.fromkeys(node.op.name for node in topological_order([t.ref.node for t in tensors]))
    made = [n for n in names if n not in ("constant", "placeholder", "parameter")]
    return [n for n in made if n not in ("broadcast_to", "cast")] or made
