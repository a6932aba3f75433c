"""Every op, one entry each, and the functions that users call. Enter at `registry.OPS` or at the file of a kind.

To add an op, `register(Op(...))` in the file of its kind; to make its function public, name it in that line here.
"""

from graphc.ops import convolution as _convolution  # noqa: F401  # an op that layers call
from graphc.ops import kernel as _kernel  # noqa: F401  # an op without a function
from graphc.ops import random_bits as _random_bits  # noqa: F401  # an op that graphc.random calls
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
    rint,
    round,
    sign,
    square,
    subtract,
    trunc,
)
from graphc.ops.bitwise import (
    bitwise_and,
    bitwise_invert,
    bitwise_left_shift,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
)
from graphc.ops.comparison import equal, greater, greater_equal, isnan, less, less_equal, not_equal
from graphc.ops.contraction import matmul
from graphc.ops.cumulative import cummax, cummin, cumprod, cumsum, cumulative_prod, cumulative_sum
from graphc.ops.floats import copysign, fmod, isfinite, isinf, nan_to_num, positive, signbit
from graphc.ops.functions import logaddexp, logsumexp
from graphc.ops.indexing import scatter_add_along_axis, take_along_axis
from graphc.ops.joining import (
    concat,
    flip,
    meshgrid,
    moveaxis,
    ravel,
    repeat,
    roll,
    split,
    stack,
    tile,
    unstack,
)
from graphc.ops.matrices import eye, linspace, one_hot, tril, triu
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
from graphc.ops.padding import pad
from graphc.ops.picking import gather, take
from graphc.ops.reductions import all, any, argmax, argmin, max, mean, min, prod, sum
from graphc.ops.selection import astype, logical_and, logical_not, logical_or, logical_xor, stop_gradient, where
from graphc.ops.sorting import argsort, bincount, searchsorted, sort, topk
from graphc.ops.sources import arange, dim_value, full, full_like, iota, ones, ones_like, zeros, zeros_like
from graphc.ops.special import erf
from graphc.ops.statistics import count_nonzero, diff, norm, std, var
from graphc.ops.subscripts import einsum, outer, tensordot, vecdot
from graphc.ops.transcendental import (
    exp,
    exp2,
    expm1,
    log,
    log1p,
    log2,
    log10,
    power,
    relu,
    rsqrt,
    sigmoid,
    softplus,
    sqrt,
    tanh,
)
from graphc.ops.trigonometric import acos, acosh, asin, asinh, atan, atan2, atanh, cos, cosh, hypot, sin, sinh, tan
from graphc.ops.updating import scatter

cast = astype
pow = power

__all__ = [
    "abs", "acos", "acosh", "add", "all", "any", "arange", "argmax", "argmin", "argsort", "asin", "asinh", "astype",
    "atan", "atan2", "atanh", "bincount", "bitwise_and", "bitwise_invert", "bitwise_left_shift", "bitwise_or",
    "bitwise_right_shift", "bitwise_xor", "broadcast_to", "cast", "ceil", "clip", "concat", "copysign", "cos", "cosh",
    "count_nonzero", "cummax", "cummin", "cumprod", "cumsum", "cumulative_prod", "cumulative_sum", "diff", "dim_value",
    "divide", "einsum", "equal", "erf", "exp", "exp2", "expand_dims", "expm1", "eye", "flip", "floor", "floor_divide",
    "fmod", "full", "full_like", "gather", "greater", "greater_equal", "hypot", "iota", "isfinite", "isinf", "isnan",
    "less", "less_equal", "linspace", "log", "log1p", "log2", "log10", "logaddexp", "logical_and", "logical_not",
    "logical_or", "logical_xor", "logsumexp", "matmul", "matrix_transpose", "max", "maximum", "mean", "meshgrid", "min",
    "minimum", "moveaxis", "multiply", "nan_to_num", "negative", "norm", "not_equal", "one_hot", "ones", "ones_like",
    "outer", "pad", "permute_dims", "positive", "pow", "power", "prod", "ravel", "reciprocal", "relu", "remainder",
    "repeat", "reshape", "rint", "roll", "round", "rsqrt", "scatter", "scatter_add_along_axis", "searchsorted",
    "sigmoid", "sign", "signbit", "sin", "sinh", "softplus", "sort", "split", "sqrt", "square", "squeeze", "stack",
    "std", "stop_gradient", "subtract", "sum", "swapaxes", "take", "take_along_axis", "tan", "tanh", "tensordot",
    "tile", "topk", "transpose", "tril", "triu", "trunc", "unstack", "var", "vecdot", "where", "zeros", "zeros_like",
]  # fmt: skip
