"""Every op, one entry each, and the functions that users call. Enter at `registry.OPS` or at the file of a kind.

To add an op, `register(Op(...))` in the file of its kind; to make its function public, name it in that line here.
"""

from graphc.ops import kernel as _kernel  # noqa: F401  # an op without a function
from graphc.ops.arithmetic import (
    abs,
    add,
    ceil,
    clip,
    divide,
    floor,
    floor_divide,
    maximum,
    minimum,
    multiply,
    negative,
    reciprocal,
    remainder,
    sign,
    square,
    subtract,
)
from graphc.ops.comparison import equal, greater, greater_equal, isnan, less, less_equal, not_equal
from graphc.ops.contraction import matmul
from graphc.ops.functions import logsumexp
from graphc.ops.indexing import scatter_add_along_axis, take_along_axis
from graphc.ops.movement import (
    broadcast_to,
    expand_dims,
    matrix_transpose,
    permute_dims,
    reshape,
    squeeze,
    swapaxes,
    transpose,
)
from graphc.ops.reductions import all, any, argmax, argmin, max, mean, min, prod, sum
from graphc.ops.selection import astype, logical_and, logical_not, logical_or, logical_xor, stop_gradient, where
from graphc.ops.sources import arange, dim_value, full, full_like, iota, ones, ones_like, zeros, zeros_like
from graphc.ops.subscripts import einsum, outer, tensordot, vecdot
from graphc.ops.transcendental import exp, expm1, log, log1p, power, relu, sigmoid, softplus, sqrt, tanh

cast = astype

__all__ = [
    "abs", "add", "all", "any", "arange", "argmax", "argmin", "astype", "broadcast_to", "cast", "ceil", "clip",
    "dim_value", "divide", "einsum", "equal", "exp", "expand_dims", "expm1", "floor", "floor_divide", "full",
    "full_like", "greater", "greater_equal", "iota", "isnan", "less", "less_equal", "log", "log1p", "logical_and",
    "logical_not", "logical_or", "logical_xor", "logsumexp", "matmul", "matrix_transpose", "max", "maximum", "mean",
    "min", "minimum", "multiply", "negative", "not_equal", "ones", "ones_like", "outer", "permute_dims", "power",
    "prod", "reciprocal", "relu", "remainder", "reshape", "scatter_add_along_axis", "sigmoid", "sign", "softplus",
    "sqrt", "square", "squeeze", "stop_gradient", "subtract", "sum", "swapaxes", "take_along_axis", "tanh", "tensordot",
    "transpose", "vecdot", "where", "zeros", "zeros_like",
]  # fmt: skip
