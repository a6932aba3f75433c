"""Loop kernels as text that reads like Python, in the grammar of `graphc.loops.ir`. Enter at `print_kernel`.

A new expression or statement needs an entry in `_expression`, `_LINES` or `_BLOCKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.loops import ir

_INFIX = {
    "or_": ("|", 1), "xor": ("^", 2), "and_": ("&", 3),
    "eq": ("==", 0), "ne": ("!=", 0), "lt": ("<", 0), "le": ("<=", 0), "gt": (">", 0), "ge": (">=", 0),
    "shl": ("<<", 4), "add": ("+", 5), "sub": ("-", 5), "mul": ("*", 6), "div": ("/", 6),
    "floordiv": ("//", 6), "mod": ("%", 6),
}  # fmt: skip
_ATOM = 9  # binds tighter than every operator


def print_kernel(kernel: ir.LoopKernel) -> str:
    """The kernel's text: its routines, its parameters, its body, and its finish if it has one."""
    lines = [f"# {comment}" for comment in kernel.comments]
    for routine in kernel.routines:
        lines += [f"routine {routine.name}({_parameters(routine)}):", *print_block(routine.body, "    ")]
    lines.append(f"def {kernel.name}({_parameters(kernel)}) for chunk in 0..{kernel.chunks}:")
    lines += print_block(kernel.body, "    ")
    if kernel.finish:
        lines += ["finish:", *print_block(kernel.finish, "    ")]
    return "\n".join(lines) + "\n"


def _parameters(of: ir.LoopKernel | ir.Routine) -> str:
    parameters = ", ".join(
        f"{b.name}: {b.dtype}[{b.size}]{' writable' if b.writable else ''}{f' align {b.align}' if b.align > 1 else ''}"
        for b in of.buffers
    )
    return f"{parameters}; {', '.join(of.sizes)}" if of.sizes else parameters


def print_block(statements: Sequence[ir.Stmt], indent: str = "") -> list[str]:
    """The lines of a block."""
    if not statements:
        return [indent + "pass"]
    lines: list[str] = []
    for statement in statements:
        simple = _LINES.get(type(statement))
        if simple:
            lines.append(indent + simple(statement))
        else:
            lines += _BLOCKS[type(statement)](statement, indent)
    return lines


def print_statement(statement: ir.Stmt, indent: str = "") -> list[str]:
    """The lines of one statement, blocks inside it included."""
    return print_block([statement], indent)


def print_expression(expr: ir.Expr) -> str:
    """The text of an expression."""
    if type(expr) is ir.Var or (type(expr) is ir.Reg and not expr.index):  # most are; all kernels are printed
        return expr.name
    return _expression(expr)[0]


def _wrap(expr: ir.Expr, level: int) -> str:
    if type(expr) is ir.Var:
        return expr.name
    text, binds = _expression(expr)
    return text if binds >= level else f"({text})"


def _expression(expr: ir.Expr) -> tuple[str, int]:
    """The text and how tightly its outermost operator binds."""
    if isinstance(expr, ir.Const):
        return _constant(expr), _ATOM
    if isinstance(expr, ir.Var):
        return expr.name, _ATOM
    if isinstance(expr, ir.Reg):
        return expr.name + _indices(expr.index), _ATOM
    if isinstance(expr, ir.Load):
        verb = "" if expr.vtype.lanes == 1 else f"{_verb('load', 'gather', expr.index)}{expr.vtype.lanes} "
        text = f"{verb}{expr.buffer}[{print_expression(expr.index)}]{_where(expr.mask)}"
        return text, _ATOM if not verb and expr.mask is None else -1
    return _op(expr)


def _op(expr: ir.Op) -> tuple[str, int]:
    if expr.name in _INFIX and len(expr.args) == 2:
        sign, binds = _INFIX[expr.name]
        left, right = _wrap(expr.args[0], binds + (binds == 0)), _wrap(expr.args[1], binds + 1)
        tight = binds == 6 and expr.vtype == ir.I64
        return f"{left}{sign}{right}" if tight else f"{left} {sign} {right}", binds
    arguments = [print_expression(a) for a in expr.args]
    name = expr.name
    if name in ("cast", "bitcast"):
        name = f"{name} {expr.vtype.dtype}"
    elif name in ("splat", "lanes"):
        name = f"{name}{expr.vtype.lanes}"
    return f"{name}({', '.join(arguments)})", _ATOM


def _constant(expr: ir.Const) -> str:
    dtype, value = expr.vtype.dtype, expr.value
    if dtype.kind == "b":
        return str(bool(value))
    if dtype.kind == "f":
        text = repr(float(value))
        return text if dtype.itemsize == 4 else f"{text}{dtype}"
    return str(int(value)) if dtype.name == "int64" else f"{int(value)}{dtype}"


def _indices(index: Sequence[ir.Expr]) -> str:
    return "".join([f"[{print_expression(i)}]" for i in index]) if index else ""


def _where(mask: ir.Expr | None) -> str:
    return "" if mask is None else f" where {print_expression(mask)}"


def _verb(scalar: str, vector: str, index: ir.Expr) -> str:
    return scalar if index.vtype.lanes == 1 else vector


def _carry(names: Sequence[str]) -> str:
    return f" carry {', '.join(names)}" if names else ""


def _type(vtype: ir.VType) -> str:
    return "" if vtype is ir.I64 or vtype == ir.I64 else f": {vtype}"


def _let(s: ir.Let) -> str:
    return f"{s.var.name}{_type(s.var.vtype)} = {print_expression(s.value)}"


def _declare(s: ir.Declare) -> str:
    return f"{s.name}{''.join(f'[{n}]' for n in s.shape)}: {s.vtype} = {print_expression(s.init)}"


def _assign(s: ir.Assign) -> str:
    return f"{s.target.name}{_indices(s.target.index)} := {print_expression(s.value)}"


def _store(s: ir.Store) -> str:
    lanes = s.value.vtype.lanes
    verb = "" if lanes == 1 else f"{_verb('store', 'scatter', s.index)}{lanes} "
    return f"{verb}{s.buffer}[{print_expression(s.index)}] = {print_expression(s.value)}{_where(s.mask)}"


def _scratch(s: ir.Scratch) -> str:
    return f"scratch {s.name}: {s.dtype}[{s.size}]"


def _fail(s: ir.Fail) -> str:
    return f"fail {s.node} at {print_expression(s.index)} if {print_expression(s.condition)}"


def _prefetch(s: ir.Prefetch) -> str:
    return f"prefetch {s.buffer}[{print_expression(s.index)}]{' for writing' if s.write else ''}"


def _call(s: ir.Call) -> str:
    buffers = ", ".join(f"{buffer}[{print_expression(index)}]" for buffer, index in s.buffers)
    sizes = f"; {', '.join(map(print_expression, s.sizes))}" if s.sizes else ""
    return f"call {s.routine}({buffers}{sizes})"


def _for(s: ir.For, indent: str) -> list[str]:
    kind = "unroll " if s.kind == "unroll" else ""
    step = f" step {s.step}" if s.step != 1 else ""
    bounds = f"{_wrap(s.start, 5)}..{_wrap(s.stop, 5)}"
    head = f"{indent}for {s.var} in {kind}{bounds}{step}{_carry(s.carry)}:"
    return [head, *print_block(s.body, indent + "    ")]


def _if(s: ir.If, indent: str) -> list[str]:
    lines = [f"{indent}if {print_expression(s.condition)}{_carry(s.carry)}:", *print_block(s.then, indent + "    ")]
    if s.orelse:
        lines += [f"{indent}else:", *print_block(s.orelse, indent + "    ")]
    return lines


def _comment(s: ir.Comment, indent: str) -> list[str]:
    return [f"{indent}# {line}" for line in s.text.splitlines()]


_LINES: dict[type, Callable[[Any], str]] = {
    ir.Let: _let,
    ir.Declare: _declare,
    ir.Assign: _assign,
    ir.Store: _store,
    ir.Scratch: _scratch,
    ir.Fail: _fail,
    ir.Prefetch: _prefetch,
    ir.Call: _call,
}
_BLOCKS: dict[type, Callable[[Any, str], list[str]]] = {ir.For: _for, ir.If: _if, ir.Comment: _comment}
