"""The table of algebraic rules: one a line, under the algebra that it says, with what it keeps.

Enter at `RULES`. bits: the same bits for every operand, NaN, infinities, signed zeros, empty arrays and integers that
wrap included (the bits inside of a NaN are not counted). ulp: within a few units in the last place. real: equal in
real arithmetic only, used under `config(fast_math=True)`. What is missing is missing on purpose: x + 0.0 turns -0.0
into 0.0, x * 0.0 is NaN for infinities, x - x is NaN for them too, x / x as well. To add a rule, add a line:
tests/test_rules.py tries it on every special value.
"""

from __future__ import annotations

from graphc.graph import Value
from graphc.passes.patterns import BITS, REAL, Rule, number_of, ops, rule


def integers(*values: Value) -> bool:
    """Side condition: the operands are integers."""
    return all(v.type.dtype.is_integer for v in values)


def floats(*values: Value) -> bool:
    """Side condition: the operands are floats."""
    return all(v.type.dtype.is_float for v in values)


def ordered(*values: Value) -> bool:
    """Side condition: no operand can be NaN."""
    return not any(v.type.dtype.is_float for v in values)


def signed(*values: Value) -> bool:
    """Side condition: the operands have a sign (of an unsigned integer, -x is a large one)."""
    return all(v.type.dtype.kind in "if" for v in values)


def constant_last(x: Value, c: Value) -> bool:
    """Side condition: the second operand is a number, the first is none."""
    return number_of(c) is not None and number_of(x) is None


# fmt: off
RULES: tuple[Rule, ...] = (
    # -(-x) = x
    rule(lambda x: ops.negative(-x), lambda x: x, BITS),
    # x + (-y) = x - y;  (-x) + y = y - x;  x - (-y) = x + y
    rule(lambda x, y: x + (-y), lambda x, y: x - y, BITS),
    rule(lambda x, y: (-x) + y, lambda x, y: y - x, BITS),
    rule(lambda x, y: x - (-y), lambda x, y: x + y, BITS),
    # (-x) * (-y) = x * y;  (-x) / (-y) = x / y
    rule(lambda x, y: (-x) * (-y), lambda x, y: x * y, BITS),
    rule(lambda x, y: (-x) / (-y), lambda x, y: x / y, BITS, floats),
    # x - 0 = x, for -0.0 too;  x + (-0.0) = x;  0 - x differs from -x at x = 0.0, except for integers
    rule(lambda x: x - 0, lambda x: x, BITS),
    rule(lambda x: x + -0.0, lambda x: x, BITS, floats),
    rule(lambda x: -0.0 + x, lambda x: x, BITS, floats),
    rule(lambda x: -0.0 - x, lambda x: -x, BITS, floats),
    rule(lambda x: 0 - x, lambda x: -x, BITS, integers),
    # n + 0 = n;  n * 0 = 0;  n - n = 0  of integers
    rule(lambda x: x + 0, lambda x: x, BITS, integers),
    rule(lambda x: 0 + x, lambda x: x, BITS, integers),
    rule(lambda x: x * 0, lambda x: 0, BITS, integers),
    rule(lambda x: 0 * x, lambda x: 0, BITS, integers),
    rule(lambda x: x - x, lambda x: 0, BITS, integers),
    # 1 * x = x;  -1 * x = -x;  x / 1 = x;  n // 1 = n
    rule(lambda x: x * 1, lambda x: x, BITS),
    rule(lambda x: 1 * x, lambda x: x, BITS),
    rule(lambda x: x * -1, lambda x: -x, BITS),
    rule(lambda x: -1 * x, lambda x: -x, BITS),
    rule(lambda x: x / 1, lambda x: x, BITS, floats),
    rule(lambda x: x / -1, lambda x: -x, BITS, floats),
    rule(lambda x: x // 1, lambda x: x, BITS, integers),
    # max(x, x) = min(x, x) = x;  ||x|| = |-x| = |x|;  relu, floor and ceil once
    rule(lambda x: ops.maximum(x, x), lambda x: x, BITS),
    rule(lambda x: ops.minimum(x, x), lambda x: x, BITS),
    rule(lambda x: ops.abs(ops.abs(x)), lambda x: ops.abs(x), BITS),
    rule(lambda x: ops.abs(-x), lambda x: ops.abs(x), BITS, signed),
    rule(lambda x: ops.relu(ops.relu(x)), lambda x: ops.relu(x), BITS),
    rule(lambda x: ops.floor(ops.floor(x)), lambda x: ops.floor(x), BITS),
    rule(lambda x: ops.ceil(ops.ceil(x)), lambda x: ops.ceil(x), BITS),
    # a cut of the gradient is the value
    rule(lambda x: ops.stop_gradient(x), lambda x: x, BITS),
    # where(c, x, x) = x;  where(true, x, y) = x;  where(not c, x, y) = where(c, y, x)
    rule(lambda c, x: ops.where(c, x, x), lambda c, x: x, BITS),
    rule(lambda x, y: ops.where(True, x, y), lambda x, y: x, BITS),
    rule(lambda x, y: ops.where(False, x, y), lambda x, y: y, BITS),
    rule(lambda c, x, y: ops.where(ops.logical_not(c), x, y), lambda c, x, y: ops.where(c, y, x), BITS),
    # where(c, where(c, x, y), z) = where(c, x, z)
    rule(lambda c, x, y, z: ops.where(c, ops.where(c, x, y), z), lambda c, x, y, z: ops.where(c, x, z), BITS),
    rule(lambda c, x, y, z: ops.where(c, x, ops.where(c, y, z)), lambda c, x, y, z: ops.where(c, x, z), BITS),
    # not not b = b;  b and b = b or b = b;  b and true = b or false = b;  b xor false = b;  b xor b = false
    rule(lambda b: ops.logical_not(ops.logical_not(b)), lambda b: b, BITS),
    rule(lambda b: ops.logical_and(b, b), lambda b: b, BITS),
    rule(lambda b: ops.logical_or(b, b), lambda b: b, BITS),
    rule(lambda b: ops.logical_xor(b, b), lambda b: False, BITS),
    rule(lambda b: ops.logical_and(b, True), lambda b: b, BITS),
    rule(lambda b: ops.logical_and(True, b), lambda b: b, BITS),
    rule(lambda b: ops.logical_and(b, False), lambda b: False, BITS),
    rule(lambda b: ops.logical_and(False, b), lambda b: False, BITS),
    rule(lambda b: ops.logical_or(b, False), lambda b: b, BITS),
    rule(lambda b: ops.logical_or(False, b), lambda b: b, BITS),
    rule(lambda b: ops.logical_or(b, True), lambda b: True, BITS),
    rule(lambda b: ops.logical_or(True, b), lambda b: True, BITS),
    rule(lambda b: ops.logical_xor(b, False), lambda b: b, BITS),
    rule(lambda b: ops.logical_xor(False, b), lambda b: b, BITS),
    # not (x = y) is x != y;  not (x < y) is x >= y only where nothing is NaN
    rule(lambda x, y: ops.logical_not(ops.equal(x, y)), lambda x, y: ops.not_equal(x, y), BITS),
    rule(lambda x, y: ops.logical_not(ops.not_equal(x, y)), lambda x, y: ops.equal(x, y), BITS),
    rule(lambda x, y: ops.logical_not(ops.less(x, y)), lambda x, y: ops.greater_equal(x, y), BITS, ordered),
    rule(lambda x, y: ops.logical_not(ops.less_equal(x, y)), lambda x, y: ops.greater(x, y), BITS, ordered),
    rule(lambda x, y: ops.logical_not(ops.greater(x, y)), lambda x, y: ops.less_equal(x, y), BITS, ordered),
    rule(lambda x, y: ops.logical_not(ops.greater_equal(x, y)), lambda x, y: ops.less(x, y), BITS, ordered),
    # x = x is true where nothing is NaN
    rule(lambda x: ops.equal(x, x), lambda x: True, BITS, ordered),
    rule(lambda x: ops.not_equal(x, x), lambda x: False, BITS, ordered),
    # real arithmetic, under fast_math:  x + 0 = x;  x * 0 = 0;  x - x = 0;  x / x = 1;  x / c = x * (1 / c)
    rule(lambda x: x + 0, lambda x: x, REAL, floats),
    rule(lambda x: 0 + x, lambda x: x, REAL, floats),
    rule(lambda x: x * 0, lambda x: 0, REAL, floats),
    rule(lambda x: 0 * x, lambda x: 0, REAL, floats),
    rule(lambda x: x - x, lambda x: 0, REAL, floats),
    rule(lambda x: x / x, lambda x: 1, REAL, floats),
    rule(lambda x, c: x / c, lambda x, c: x * ops.divide(1, c), REAL, constant_last),
    # log(exp(x)) = x;  exp(log(x)) = x;  sqrt(x) * sqrt(x) = x
    rule(lambda x: ops.log(ops.exp(x)), lambda x: x, REAL),
    rule(lambda x: ops.exp(ops.log(x)), lambda x: x, REAL),
    rule(lambda x: ops.sqrt(x) * ops.sqrt(x), lambda x: x, REAL),
)
# fmt: on
