"""Reads the text of a size back: `parse_size(str(size)) == size`. Enter at `parse_size`."""

from __future__ import annotations

import ast

from graphc.sizes import CALLS, Dim, Size, floordiv


def parse_size(text: str) -> Size:
    """The size that `str(size)` printed."""
    return _size_of_ast(ast.parse(text.strip(), mode="eval").body)


def _size_of_ast(node: ast.expr) -> Size:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name):
        return Dim.symbol(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_size_of_ast(node.operand)
    if isinstance(node, ast.BinOp):
        a, b = _size_of_ast(node.left), _size_of_ast(node.right)
        if isinstance(node.op, ast.Add):
            return a + b
        if isinstance(node.op, ast.Sub):
            return a - b
        if isinstance(node.op, ast.Mult):
            return a * b
        if isinstance(node.op, ast.FloorDiv):
            return floordiv(a, b)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
        return CALLS[node.func.id](_size_of_ast(node.args[0]), _size_of_ast(node.args[1]))
    raise ValueError(f"not a size: {ast.unparse(node)}")
