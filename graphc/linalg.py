"""Linear algebra under the names of the array API's `linalg` and of `numpy.linalg`: the functions of `graphc.ops`."""

from typing import TYPE_CHECKING

from graphc.elsewhere import of_module
from graphc.ops.contraction import matmul
from graphc.ops.linalg import (
    SlogdetResult,
    cholesky,
    cross,
    det,
    diagonal,
    inv,
    matrix_norm,
    matrix_power,
    slogdet,
    solve,
    solve_triangular,
    trace,
    vector_norm,
)
from graphc.ops.movement import matrix_transpose
from graphc.ops.statistics import norm
from graphc.ops.subscripts import outer, tensordot, vecdot

__all__ = [
    "SlogdetResult", "cholesky", "cross", "det", "diagonal", "inv", "matmul", "matrix_norm", "matrix_power",
    "matrix_transpose", "norm", "outer", "slogdet", "solve", "solve_triangular", "tensordot", "trace", "vecdot",
    "vector_norm",
]  # fmt: skip

if not TYPE_CHECKING:  # for people's mistakes; a type checker finds them itself
    __getattr__ = of_module(__name__, __all__)
