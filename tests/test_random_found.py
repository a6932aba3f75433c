"""What random graphs found, each shrunk and kept under a name that tells what broke."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

import graphc
from graphc.build import Tensor, placeholder
from graphc.errors import IndexRangeError
from tests.random_checks import compare


def agrees(outputs: Sequence[Tensor], feeds: Mapping[Tensor, np.ndarray], disable: Sequence[str] = ()) -> None:
    """Compiled is interpreted, for whole numbers or what does not sum: to the bit."""
    with graphc.config(verify=True, cache=False, disable=tuple(disable)):
        compiled = graphc.function(list(feeds), list(outputs))
    results = compiled(*feeds.values())
    compare([t.ref for t in outputs], {x.ref: array for x, array in feeds.items()}, results, whole=True)


def numbers(*shape: int, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(1).integers(-3, 4, shape).astype(dtype)


def test_a_row_whose_size_moved_to_another_axis() -> None:
    """The result was stored with the strides of the full shape, far behind its buffer."""
    x = placeholder("x", (5, 5, 1), "float64")
    agrees([graphc.argmin(x, axis=1, keepdims=True).transpose(2, 0, 1), graphc.floor(x)], {x: numbers(5, 5, 1)})
    n = placeholder("n", ("n", 3), "uint8")
    feeds = {n: np.arange(21, dtype="uint8").reshape(7, 3)}
    agrees([graphc.prod(n, axis=1, keepdims=True).transpose(1, 0)], feeds, disable=["simplify"])


def test_a_gather_from_a_computed_scalar() -> None:
    x, y = placeholder("x", (), "int64"), placeholder("y", (64,), "uint8")
    one = x.reshape(1) + x.reshape(1)
    agrees([graphc.take_along_axis(one, y, axis=0)], {x: np.array(3), y: np.zeros(64, "uint8")})


def test_a_gather_with_one_index_for_all_lanes() -> None:
    """The check was put in front of its address, and the vector read had a mask of one lane."""
    x, y = placeholder("x", ("n", 5), "float64"), placeholder("y", (1, 1), "int64")
    row = graphc.take_along_axis(x, graphc.broadcast_to(y, (1, 5)), axis=0) * 2.0
    agrees([row], {x: numbers(16, 5), y: np.array([[15]])})
    with graphc.config(cache=False):
        compiled = graphc.function([x, y], row)
    for rows in (16, 0):  # of an empty axis there is no element to read instead
        with pytest.raises(IndexRangeError, match="out of range"):
            compiled(numbers(rows, 5), np.array([[16]]))


def test_a_matmul_of_a_transpose_reshaped_back() -> None:
    """(i // n) // 4 and i // (4 * n) were two different indices."""
    x, w = placeholder("x", ("a", 4, "b", "c"), "float64"), placeholder("w", ("c", 3), "float64")
    a, _, b, c = x.shape
    agrees([x.reshape(a * b * 4, c) @ w], {x: numbers(2, 4, 3, 5), w: numbers(5, 3)})


def test_a_size_and_an_iota_that_are_outputs_too() -> None:
    x = placeholder("x", ("n",), "float64")
    size, places = graphc.dim_value(x.shape[0]), graphc.iota((3, 4), "float32")
    beside = graphc.argmin(x, axis=0, keepdims=True) - size
    spread = graphc.broadcast_to(places, (2, 3, 4)) / graphc.broadcast_to(graphc.abs(places) + 1, (2, 3, 4))
    agrees([size, beside, places, spread], {x: numbers(7)})


def test_an_iota_as_an_operand_of_a_matmul() -> None:
    x = placeholder("x", (1, 3), "float32")
    places = graphc.iota((1,), "float32")
    agrees([places.reshape(1, 1) @ x, places], {x: numbers(1, 3, dtype="float32")})


def test_rows_of_nothing() -> None:
    """Flattened indices were divided by a size of 0."""
    x, y = placeholder("x", (2, 1, 2, 33), "float64"), placeholder("y", (2, 1, 1, 33), "float64")
    feeds = {x: numbers(2, 1, 2, 33), y: numbers(2, 1, 1, 33)}
    least = graphc.minimum(x[:, 0:0], graphc.broadcast_to(y, (2, 0, 2, 33)))
    agrees([least, x.transpose(1, 2, 0, 3)], feeds)
    agrees([least], feeds, disable=["simplify", "fold_constants", "merge_duplicates", "remove_dead", "fuse"])


def test_a_slice_of_one_element() -> None:
    x = placeholder("x", (1, 1, 1), "float64")
    agrees([(x != 0.0)[:, ::-1, ::-1]], {x: numbers(1, 1, 1)})


def test_an_epilogue_holds_elementwise_nodes_only() -> None:
    """A gather, or a transposed square, of the result's shape was taken into the matmul's kernel."""
    x, i = placeholder("x", (4, 4), "float64"), placeholder("i", (4, 4), "uint16")
    feeds = {x: numbers(4, 4), i: np.arange(16, dtype="uint16").reshape(4, 4) % 4}
    picked = graphc.take_along_axis(x, i, axis=1)
    agrees([graphc.abs(picked) + x @ x], feeds)
    agrees([x.T + x @ x, x.T], feeds)


def test_a_scatter_of_computed_scalars() -> None:
    i, x = placeholder("i", (1,), "int64"), placeholder("x", (1,), "int8")
    feeds = {i: np.array([0]), x: np.array([5], "int8")}
    agrees([graphc.scatter_add_along_axis(i, x // x.reshape(()), 0, 2)], feeds)


def test_a_total_of_what_follows_from_a_total() -> None:
    """max, then the sum of what is less by it: both totals of one scalar that is spread."""
    x = placeholder("x", (), "float64")
    row = graphc.broadcast_to(x, (16,))
    less = row - row.max(axis=0, keepdims=True)
    agrees([less / (less.sum(axis=0, keepdims=True) + 1.0)], {x: np.array(2.0)}, disable=["merge_duplicates"])


def test_a_reduction_of_one_element() -> None:
    """The loops of a kernel without any axis asked for the last one."""
    x = placeholder("x", (1, 1), "float64")
    agrees([graphc.argmax(x * x, axis=0), (x * x).sum()], {x: numbers(1, 1)})


def test_a_backward_slice_of_nothing() -> None:
    """max(n - 1, -1) // 2 + 1 elements: for n = 0 the native code divided an unsigned -1."""
    x = placeholder("x", ("n",), "int64")
    for size in (0, 1, 2, 5):
        agrees(
            [graphc.iota((4, x.shape[0]), "int64", 1)[:, -1::-2].sum(axis=(0, 1))], {x: numbers(size, dtype="int64")}
        )


def test_a_transposed_iota_as_an_operand_of_a_matmul() -> None:
    x = placeholder("x", (1, 1), "float32")
    disable = ["stabilize", "simplify", "fold_constants", "merge_duplicates", "remove_dead", "fuse"]
    agrees([x @ graphc.iota((1, 1), "float32", 1).T], {x: numbers(1, 1, dtype="float32")}, disable)


def test_a_matmul_of_batches_of_nothing() -> None:
    x, y = placeholder("x", (16, 0, 4, 5), "float64"), placeholder("y", (16, 0, 5, 3), "float64")
    agrees([x @ y], {x: numbers(16, 0, 4, 5), y: numbers(16, 0, 5, 3)})


def test_the_position_of_a_loop_is_no_buffer() -> None:
    """The loop over blocks of a long argmax was called b3, as the fourth buffer is."""
    x = placeholder("x", ("n",), "float64")
    agrees([x.max(axis=0), x.min(axis=0), x.argmax(axis=0)], {x: numbers(3000)})


@pytest.mark.parametrize("step", [2, 3, 4])
def test_slices_of_a_reversed_axis_put_back(step: int) -> None:
    """(3 - r) // 3 became 1 + (-r) // 3, and native code divides what is not negative: it read far away."""
    x = placeholder("x", ("n", 4, 5), "float64")
    part = x[:, ::-1][:, ::step]
    weights = placeholder("w", part.shape, "float64")
    shape = (7, -(-4 // step), 5)
    agrees([graphc.grad((part * weights).sum(), x)], {weights: numbers(*shape), x: numbers(7, 4, 5)})
