"""All rows of the table, and rows of other sizes. Enter at `rows`.

A size is `MxKxN`: a product of so many rows, steps and columns in the forms NN, NT and TN, which has no target.
"""

from __future__ import annotations

from collections.abc import Sequence

import rows_attention
import rows_convolution
import rows_copies
import rows_memory
import rows_products
from measuring import Row

ROWS = [*rows_products.ROWS, *rows_convolution.ROWS, *rows_memory.ROWS, *rows_attention.ROWS, *rows_copies.ROWS]


def rows(sizes: Sequence[str] = ()) -> list[Row]:
    """The rows of these sizes, or without any those of the table. SystemExit for what is no size."""
    found = []
    for size in sizes:
        parts = size.split("x")
        if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
            raise SystemExit(f"{size} is no size of a product: write rows x steps x columns, such as 100x64x17")
        m, k, n = map(int, parts)
        found += [rows_products.matmul("matmul-other", m, k, n, form, 0.0) for form in rows_products.FORMS]
    return found or ROWS
