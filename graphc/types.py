"""What a value is: its dtype, its sizes and its type (`f32[batch,128]`).

A size is an `int` or a `Dim`, a polynomial over named dimensions, floor divisions, minima and maxima, kept in a
canonical form so that equal expressions are equal objects by `==`. The loop lowering uses the same class for index
arithmetic, with loop variables as further names. Enter at `TensorType`, `DType.of` and `Dim.symbol`.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Union

import numpy as np


@dataclass(frozen=True)
class DType:
    """An element type. `kind` is NumPy's letter (b, i, u, f) or t for the token of ordered effects."""

    name: str
    short: str
    kind: str
    itemsize: int

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype in native byte order."""
        return _NUMPY[self.name]

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_integer(self) -> bool:
        return self.kind in "iu"

    def __str__(self) -> str:
        return self.short

    @staticmethod
    def of(spec: object) -> DType:
        """The DType for a name ("float32" or "f32"), a NumPy dtype or scalar type, `bool`, `int` or `float`.

        Raises TypeError for a dtype that graphc does not have.
        """
        if isinstance(spec, DType):
            return spec
        if isinstance(spec, str) and spec in _BY_NAME:
            return _BY_NAME[spec]
        if isinstance(spec, np.dtype) and spec in _BY_NUMPY:
            return _BY_NUMPY[spec]
        name = np.dtype(spec).name  # type: ignore[call-overload]
        if name not in _BY_NAME:
            raise TypeError(f"graphc has no dtype {name}; it has {', '.join(d.name for d in DTYPES)}")
        return _BY_NAME[name]


bool_ = DType("bool", "bool", "b", 1)
int8, int16, int32, int64 = (DType(f"int{8 * n}", f"i{8 * n}", "i", n) for n in (1, 2, 4, 8))
uint8, uint16, uint32, uint64 = (DType(f"uint{8 * n}", f"u{8 * n}", "u", n) for n in (1, 2, 4, 8))
float32, float64 = DType("float32", "f32", "f", 4), DType("float64", "f64", "f", 8)
DTYPES = (bool_, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float32, float64)
token = DType("token", "token", "t", 0)  # the type of the link between ordered effects; never an array

_BY_NAME = {d.name: d for d in (*DTYPES, token)} | {d.short: d for d in DTYPES}
_NUMPY = {d.name: np.dtype(d.name) for d in DTYPES}
_BY_NUMPY = {numpy: _BY_NAME[name] for name, numpy in _NUMPY.items()}


def promote(*dtypes: DType) -> DType:
    """NumPy 2's promotion of the dtypes of arrays (NEP 50)."""
    if all(d is dtypes[0] for d in dtypes):
        return dtypes[0]
    return DType.of(np.result_type(*(d.numpy for d in dtypes)))


@dataclass(frozen=True)
class Call:
    """An atom that is no polynomial: `fn` is "floordiv", "min" or "max" of two sizes."""

    fn: str
    args: tuple[Size, Size]

    def __str__(self) -> str:
        a, b = self.args
        if self.fn == "floordiv":
            return f"{_wrapped(a)}//{_wrapped(b)}"
        return f"{self.fn}({a},{b})"


Atom = Union[str, Call]
Monomial = tuple[Atom, ...]
Size = Union[int, "Dim"]


class Dim:
    """A size that is not a constant: a sum of integer multiples of products of atoms.

    Build one with `Dim.symbol("batch")` and `+ - * //`; operations give an `int` where the names cancel.
    """

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms
        self._hash = hash(terms)

    @staticmethod
    @cache
    def symbol(name: str) -> Dim:
        """The dimension called `name`. Equal names are equal sizes."""
        return Dim((((name,), 1),))

    @staticmethod
    def from_terms(terms: Mapping[Monomial, int]) -> Size:
        kept = sorted(((m, c) for m, c in terms.items() if c), key=_term_order)
        if not kept:
            return 0
        if len(kept) == 1 and kept[0][0] == ():
            return kept[0][1]
        return Dim(tuple(kept))

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Dim) and self.terms == other.terms)

    def __hash__(self) -> int:
        return self._hash

    def __add__(self, other: Size) -> Size:
        total = dict(self.terms)
        for monomial, factor in terms_of(other):
            total[monomial] = total.get(monomial, 0) + factor
        return Dim.from_terms(total)

    __radd__ = __add__

    def __neg__(self) -> Size:
        return self * -1

    def __sub__(self, other: Size) -> Size:
        return self + (-other)

    def __rsub__(self, other: Size) -> Size:
        return -self + other

    def __mul__(self, other: Size) -> Size:
        total: dict[Monomial, int] = {}
        for m1, c1 in self.terms:
            for m2, c2 in terms_of(other):
                key = tuple(sorted(m1 + m2, key=str))
                total[key] = total.get(key, 0) + c1 * c2
        return Dim.from_terms(total)

    __rmul__ = __mul__

    def __floordiv__(self, other: Size) -> Size:
        return floordiv(self, other)

    def __rfloordiv__(self, other: int) -> Size:
        return floordiv(other, self)

    def __mod__(self, other: Size) -> Size:
        return self - other * floordiv(self, other)

    def __str__(self) -> str:
        text = ""
        for monomial, factor in self.terms:
            sign = "-" if factor < 0 else ("+" if text else "")
            factors = [str(abs(factor))] if abs(factor) != 1 or not monomial else []
            text += sign + "*".join(factors + [_factor_text(a, len(monomial) + len(factors)) for a in monomial])
        return text

    __repr__ = __str__


def _term_order(term: tuple[Monomial, int]) -> tuple[int, str]:
    return (-len(term[0]), "*".join(map(str, term[0])))


def _wrapped(size: Size) -> str:
    simple = isinstance(size, int) or (len(size.terms) == 1 and size.terms[0][1] == 1 and len(size.terms[0][0]) == 1)
    text = str(size)
    return text if simple and "//" not in text else f"({text})"


def _factor_text(atom: Atom, count: int) -> str:
    return f"({atom})" if isinstance(atom, Call) and atom.fn == "floordiv" and count > 1 else str(atom)


def terms_of(size: Size) -> tuple[tuple[Monomial, int], ...]:
    """The (product of atoms, factor) pairs whose sum is `size`."""
    if isinstance(size, Dim):
        return size.terms
    return (((), size),) if size else ()


def floordiv(a: Size, b: Size) -> Size:
    """`a // b`, exact where every term of `a` is a multiple of `b`."""
    if b == 0:
        raise ZeroDivisionError("a dimension divided by zero")
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if b == 1 or a == 0:
        return a
    if a == b:
        return 1  # a size of 0 never divides: the shape rules test for emptiness first
    inner = _quotient(a)
    if inner is not None:
        return floordiv(inner[0], inner[1] * b)  # (x // y) // b
    divided = [_divide_term(t, b) for t in terms_of(a)]
    whole = Dim.from_terms(_summed(t for t in divided if t is not None))
    rest = Dim.from_terms(_summed(t for t, d in zip(terms_of(a), divided, strict=True) if d is None))
    if rest == 0:
        return whole
    if isinstance(rest, int) and isinstance(b, int) and 0 <= rest < b:
        return whole
    return whole + Dim((((Call("floordiv", (rest, b)),), 1),))


def _quotient(a: Size) -> tuple[Size, Size] | None:
    """(x, y) if `a` is x // y."""
    terms = terms_of(a)
    if len(terms) == 1 and terms[0][1] == 1 and len(terms[0][0]) == 1:
        (atom,) = terms[0][0]
        if isinstance(atom, Call) and atom.fn == "floordiv":
            return atom.args
    return None


def _summed(terms: Iterable[tuple[Monomial, int]]) -> dict[Monomial, int]:
    total: dict[Monomial, int] = {}
    for monomial, factor in terms:
        total[monomial] = total.get(monomial, 0) + factor
    return total


def _divide_term(term: tuple[Monomial, int], by: Size) -> tuple[Monomial, int] | None:
    """`term / by` if it is exact for every value of the names, else None."""
    monomial, factor = term
    divisor = terms_of(by)
    if len(divisor) != 1 or factor % divisor[0][1]:
        return None
    atoms = list(monomial)
    for atom in divisor[0][0]:
        if atom not in atoms:
            return None
        atoms.remove(atom)
    return tuple(atoms), factor // divisor[0][1]


def minimum(a: Size, b: Size) -> Size:
    """The smaller of two sizes."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    return a if a == b else Dim((((Call("min", (a, b)),), 1),))


def maximum(a: Size, b: Size) -> Size:
    """The larger of two sizes."""
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    return a if a == b else Dim((((Call("max", (a, b)),), 1),))


def ceildiv(a: Size, b: Size) -> Size:
    """`a / b` rounded up."""
    return floordiv(a + b - 1, b)


CALLS: dict[str, Callable[[Size, Size], Size]] = {"floordiv": floordiv, "min": minimum, "max": maximum}


def substitute(size: Size, values: Mapping[str, Size]) -> Size:
    """`size` with names replaced; an `int` when every name has an integer value."""
    if isinstance(size, int):
        return size
    total: Size = 0
    for monomial, factor in size.terms:
        product: Size = factor
        for atom in monomial:
            if isinstance(atom, Call):
                a, b = (substitute(arg, values) for arg in atom.args)
                product = product * (CALLS[atom.fn](a, b) if b != 0 or atom.fn != "floordiv" else 0)
            else:
                product = product * values.get(atom, Dim.symbol(atom))
        total = total + product
    return total


def evaluate(size: Size, values: Mapping[str, int]) -> int:
    """The value of `size` for given values of all its names (KeyError when one is missing)."""
    if isinstance(size, int):
        return size
    result = substitute(size, values)
    if not isinstance(result, int):
        raise KeyError(f"{size} needs a value for {', '.join(sorted(symbols(result)))}")
    return result


def symbols(size: Size) -> frozenset[str]:
    """All names in `size`."""
    if isinstance(size, int):
        return frozenset()
    found: set[str] = set()
    for monomial, _ in size.terms:
        for atom in monomial:
            found |= {atom} if isinstance(atom, str) else symbols(atom.args[0]) | symbols(atom.args[1])
    return frozenset(found)


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


Shape = tuple[Size, ...]


def product(sizes: Iterable[Size]) -> Size:
    """The product of sizes: 1 for none."""
    return math.prod(sizes)


@dataclass(frozen=True)
class TensorType:
    """The type of a value: its dtype and its shape, printed as `f32[batch,128]`."""

    dtype: DType
    shape: Shape = ()

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Size:
        """The number of elements."""
        return product(self.shape)

    @property
    def nbytes(self) -> Size:
        return self.size * self.dtype.itemsize

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    def with_shape(self, shape: Iterable[Size]) -> TensorType:
        return TensorType(self.dtype, tuple(shape))

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"

    @staticmethod
    def parse(text: str) -> TensorType:
        """The type that `str(type)` printed."""
        name, _, rest = text.strip().partition("[")
        if name not in _BY_NAME or not rest.endswith("]"):
            raise ValueError(f"not a type: {text}")
        return TensorType(_BY_NAME[name], tuple(parse_size(part) for part in _split_commas(rest[:-1])))


def _split_commas(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for position, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]] if text.strip() else []


def broadcast_shapes(*shapes: Shape) -> Shape:
    """NumPy's broadcasting. A named size fits itself and 1, nothing else; ValueError names the two that do not fit."""
    rank = max((len(s) for s in shapes), default=0)
    result: list[Size] = []
    for axis in range(-rank, 0):
        size: Size = 1
        for shape in shapes:
            other = shape[axis] if -axis <= len(shape) else 1
            if size == 1:
                size = other
            elif other not in (1, size):
                raise ValueError(f"sizes {size} and {other} of axis {axis}")
        result.append(size)
    return tuple(result)
