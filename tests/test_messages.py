"""Error messages word for word: names and types, never a repr with a source line inside; hints that fit."""

from __future__ import annotations

import copy
import math
import operator
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import elsewhere
from graphc.build import Tensor, parameter, placeholder
from graphc.errors import GraphcError
from graphc.nn import functional
from graphc.nn.functional import cross_entropy, mse_loss
from graphc.types import Dim

X, LABELS = placeholder("x", (3, 4)), placeholder("i", (3, 4), "int64")
W, Y = parameter("w", np.ones((5, 4), "float32")), placeholder("y", (3,), "float32")
DTYPES = "bool, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, bfloat16, float32, float64"


def message(build: Callable[[], Any]) -> str:
    """The message and the hint of the error that `build` raises."""
    with pytest.raises(GraphcError) as caught:
        build()
    error = caught.value
    return error.message + (f" | {error.hint}" if error.hint else "")


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: X.sum(7), "sum: there is no axis 7 of x (f32[3,4]) | axes go from -2 to 1"),
        (lambda: X.sum(axis="rows"), "sum: axis must be an int, not 'rows'"),
        (lambda: X[0, 0, 0], "x[...]: too many indices for x (f32[3,4])"),
        (lambda: X[:, 5], "x[...]: index 5 is out of range for axis 1 of x (f32[3,4])"),
        (lambda: X[[5]], "x[...]: index 5 is out of range for axis 0 of x (f32[3,4])"),
        (lambda: X @ W, "matmul: inner sizes differ: x is f32[3,4], w is f32[5,4] (4 != 5)"
         " | the second operand fits transposed: x @ w.T"),
        (lambda: X @ (W * 2), "matmul: inner sizes differ: x is f32[3,4], result of multiply is f32[5,4] (4 != 5)"
         " | the second operand fits transposed: x @ (...).T"),
        (lambda: X @ Y, "matmul: inner sizes differ: x is f32[3,4], y is f32[3] (4 != 3)"
         " | the first operand fits transposed: x.T @ y"),
        (lambda: X @ placeholder("z", (7, 2)), "matmul: inner sizes differ: x is f32[3,4], z is f32[7,2] (4 != 7)"),
        (lambda: graphc.sum([X, X]), "a list with tensors is no array (x is f32[3,4])"
         " | graphc.stack makes one of it"),
        (lambda: graphc.asarray([[1, X], [X, Y]]), "a list with tensors is no array (x is f32[3,4], y is f32[3])"
         " | graphc.stack makes one of it"),
        (lambda: X + graphc.arange(3) * Y, "add: shapes do not broadcast: x is f32[3,4], result of multiply is f64[3]"
         " (sizes 4 and 3 of axis -1) | sizes fit if they are equal or 1; reshape or expand_dims to line the"
         " axes up from the right"),
        (lambda: placeholder("i", (2,), "int64") + X, "add: shapes do not broadcast: i is i64[2], x is f32[3,4]"
         " (sizes 2 and 4 of axis -1) | sizes fit if they are equal or 1; reshape or expand_dims to line the axes up"
         " from the right"),
        (lambda: placeholder("z", (2, 3, 4)).transpose(1, 2), "transpose: axes (1, 2) are no order of the axes of z"
         " (f32[2,3,4]) | swapaxes exchanges two axes"),
        (lambda: X.transpose((0, 1, 1)), "transpose: axes (0, 1, 1) are no order of the axes of x (f32[3,4])"
         " | moveaxis moves some and keeps the others"),
        (lambda: X + None, "add: None is neither a tensor nor a number"),
        (lambda: X + {}, "{}: graphc has no dtype object | use numbers or bools"),
        (lambda: X.astype(X), f"graphc has no dtype Tensor; it has {DTYPES}"),
        (lambda: X.astype("float23"), f"graphc has no dtype 'float23'; it has {DTYPES}"),
        (lambda: X.astype("float128"), f"graphc has no dtype float128; it has {DTYPES}"),
        (lambda: graphc.function([X, X * 2], X), "input 1 of a function is not a placeholder: result of multiply"
         " (f32[3,4]) | inputs are placeholders; parameters need not be listed"),
        (lambda: graphc.function([X], X, updates={X: X}), "updates has a key that is not a parameter: x (f32[3,4])"),
        (lambda: X.eval({X * 2: 1}), "eval takes arrays for placeholders, not for result of multiply (f32[3,4])"),
        (lambda: cross_entropy(X, Y), "cross_entropy: labels must be integers: y is f32[3] | y.astype('int64')"),
        (lambda: cross_entropy(X, X[:, 0].astype("int32")[:2]), "cross_entropy: x (f32[3,4]) needs labels of shape [3],"
         " not result of slice (i32[2])"),
        (lambda: mse_loss(X, Y), "mse_loss: the shapes of x (f32[3,4]) and y (f32[3]) differ"
         " | reshape one of them: a loss does not broadcast"),
        (lambda: np.exp(X), "np.exp does not take a tensor: x (f32[3,4]) has no array yet | use graphc.exp"),
        (lambda: np.spacing(X), "np.spacing does not take a tensor: x (f32[3,4]) has no array yet"
         " | use graphc's functions, or tensor.eval({...})"),
        (lambda: np.sum(X), "np.sum does not take a tensor: x (f32[3,4]) has no array yet | use graphc.sum"),
        (lambda: np.concatenate([X, LABELS]), "np.concatenate does not take a tensor: x (f32[3,4]) has no array yet"
         " | use graphc's functions, or tensor.eval({...})"),
        (lambda: np.add.reduce(X), "np.add.reduce does not take a tensor: x (f32[3,4]) has no array yet"
         " | use graphc's functions, or tensor.eval({...})"),
        (lambda: copy.deepcopy(X), "x (f32[3,4]) is a node of a graph: it cannot be copied or pickled"
         " | graphc.text.save writes graphs, graphc.nn.save the values of parameters"),
        (lambda: pickle.dumps(W), "w (f32[5,4]) is a node of a graph: it cannot be copied or pickled"
         " | graphc.text.save writes graphs, graphc.nn.save the values of parameters"),
    ],
)  # fmt: skip
def test_message(build: Callable[[], Any], text: str) -> None:
    assert message(build) == text


def test_numpys_refusals_are_type_errors_and_operators_still_work() -> None:
    for build in (lambda: np.exp(X), lambda: np.sum(X), lambda: copy.copy(X)):
        with pytest.raises(TypeError):
            build()
    ones = np.ones(4, "float32")
    for left in (ones, ones[0], np.float32(2), 2.0):
        for made in (left + X, left * X, left / X, left - X, left == X, left < X, left**X, left // X, left % X):
            assert isinstance(made, Tensor) and made.shape == (3, 4)
    assert (np.ones((2, 3), "float32") @ X).shape == (2, 4)
    array = np.ones((3, 4), "float32")
    with pytest.raises(TypeError):
        array += X


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("concatenate", "graphc' has no attribute 'concatenate' | hint: write graphc.concat([x, y], axis)"),
        ("softmax", "graphc' has no attribute 'softmax' | hint: write graphc.nn.functional.softmax"),
        ("sofmax", "graphc' has no attribute 'sofmax' | hint: did you mean graphc.nn.functional.softmax?"),
        ("nn.functional.sofmax", "nn.functional' has no attribute 'sofmax' | hint: did you mean softmax?"),
        ("float32", 'hint: write the name of a dtype: "float32", "int64", "bool"'),
        ("nn.GELU", "graphc.nn' has no attribute 'GELU' | hint: did you mean graphc.nn.functional.gelu?"),
        ("nn.BatchNorm2d", "no attribute 'BatchNorm2d' | hint: write graphc.nn.functional.batch_norm"),
        ("nn.GRU", "no attribute 'GRU' | hint: write a Python loop over the steps: x[:, t] is one of them"),
        ("optim.clip_grad_norm_", "hint: write graphc.optim.clip_grad_norm(gradients, max_norm)"),
        ("nn.linear", "graphc.nn' has no attribute 'linear' | hint: did you mean Linear?"),
        ("optim.adamw", "graphc.optim' has no attribute 'adamw' | hint: did you mean AdamW?"),
        ("optim.SDG", "graphc.optim' has no attribute 'SDG' | hint: did you mean SGD?"),
        ("random.randn", "no attribute 'randn' | hint: write graphc.random.Generator(seed).normal(shape)"),
        ("foo", "graphc' has no attribute 'foo'"),
        ("linalg.eye", "graphc.linalg' has no attribute 'eye' | hint: write graphc.eye"),
        ("nonsense", "graphc' has no attribute 'nonsense'"),
        ("__wrapped__", "graphc' has no attribute '__wrapped__'"),
    ],
)
def test_an_unknown_name_says_what_it_is_called_here(name: str, text: str) -> None:
    with pytest.raises(AttributeError) as caught:
        operator.attrgetter(name)(graphc)
    assert str(caught.value).replace("\n  ", " | ").endswith(text)


def test_an_unknown_method_says_what_it_is_called_here() -> None:
    found = {}
    for name in ("unsqueeze", "exp", "summ", "nonsense", "__wrapped__"):
        with pytest.raises(AttributeError) as caught:
            getattr(X, name)
        found[name] = str(caught.value).partition("hint: ")[2]
    assert found == {
        "unsqueeze": "write graphc.expand_dims(x, axis)",
        "exp": "write graphc.exp",
        "summ": "did you mean sum?",
        "nonsense": "",
        "__wrapped__": "",
    }


def test_an_optimiser_says_what_a_step_is_here() -> None:
    text = "the optimiser SGD has no attribute 'zero_grad'\n  hint: write graphc.function"
    with pytest.raises(AttributeError, match=text):
        graphc.optim.SGD().zero_grad()  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'$"):
        graphc.optim.SGD().nonsense()  # type: ignore[attr-defined]


N = Dim.symbol("n")


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: N / 2, "n / 2"), (lambda: 1 / N, "1 / n"), (lambda: N / N, "n / n"), (lambda: 2**N, "2 ** n"),
        (lambda: (N * 2) ** 0.5, "2*n ** 0.5"), (lambda: N < 3, "n < 3"), (lambda: N >= 3, "n >= 3"),
        (lambda: N <= N * 2, "n <= 2*n"), (lambda: N > 1.5, "n > 1.5"), (lambda: math.sqrt(N), "float(n)"),
        (lambda: int(N), "int(n)"),
    ],
)  # fmt: skip
def test_a_size_is_no_number_yet(build: Callable[[], Any], text: str) -> None:
    found, _, hint = message(build).partition(" | ")
    assert found.startswith(f"{text}: ") and found.endswith(" is a size, whose number is only known at a call")
    assert re.fullmatch(r"graphc\.dim_value\(.*n\) is its value in the graph; sizes themselves have \+ - \* // %", hint)


INTS = "must be an int or a sequence of them, not"


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: graphc.roll(X, None), f"roll: shift {INTS} None"),
        (lambda: graphc.roll(X, 1, 0.5), f"roll: axis {INTS} 0.5"),
        (lambda: graphc.moveaxis(X, {0}, 1), f"moveaxis: source {INTS} {{0}}"),
        (lambda: graphc.split(X, 1.5), f"split: indices_or_sections {INTS} 1.5"),
        (lambda: graphc.tile(X, "ab"), f"tile: repetitions {INTS} 'ab'"),
        (lambda: graphc.transpose(X, 1.5), f"transpose: axes {INTS} 1.5"),
        (lambda: graphc.tensordot(X, X, None), "tensordot: axes is an int, or a pair of axes or lists of them, not N"),
        (lambda: graphc.vecdot(X, X, (0, 1)), "vecdot: axis must be an int, not (0, 1)"),
        (lambda: graphc.einsum(X, [0, 1]), "einsum: subscripts are text, not x (f32[3,4])"),
        (lambda: X[0.5:], "x[...]: a slice is made of ints and sizes, not 0.5: x is f32[3,4]"),
        (lambda: X[::"2"], "x[...]: a slice is made of ints and sizes, not '2': x is f32[3,4]"),
        (lambda: placeholder("p", None), "placeholder p: None is no shape"),
        (lambda: placeholder("p", 1.5), "placeholder p: 1.5 is no size"),
        (lambda: graphc.zeros(np.array(0.5)), "shape: array(0.5) is no size"),
        (lambda: graphc.zeros(int), "shape: <class 'int'> is no size"),
        (lambda: functional.max_pool2d(np.ones((1, 1, 4, 4), "f"), 1.5), f"max_pool2d: kernel_size {INTS} 1.5"),
        (lambda: functional.softmax(None), "softmax: x must be a tensor or an array, not None"),
        (lambda: mse_loss(X, target="y"), "mse_loss: target must be a tensor or an array, not 'y'"),
        (lambda: mse_loss(X, 1), "mse_loss: the shapes of x (f32[3,4]) and result of constant (i64[]) differ"),
        (lambda: graphc.round(X, "2"), "round: decimals must be an int, not '2'"),
        (lambda: graphc.topk(X, 1.5), "topk: k must be an int, not 1.5"),
        (lambda: graphc.diff(X, None), "diff: n must be an int, not None"),
        (lambda: functional.group_norm(X, "4"), "group_norm: num_groups must be an int, not '4'"),
        (lambda: graphc.random.Generator(-1), "Generator: a seed is an int from 0 on or None, not -1"),
        (lambda: graphc.random.Generator("0"), "Generator: a seed is an int from 0 on or None, not '0'"),
        (lambda: X.eval([1.0]), "eval takes a dict of arrays for placeholders, not [1.0]"),
        (lambda: functional.layer_norm(X, 4, {}), "layer_norm: weight must be a tensor or an array, not {}"),
    ],
)  # fmt: skip
def test_arguments_of_a_wrong_kind_are_named(build: Callable[[], Any], text: str) -> None:
    assert text in message(build)


def test_ints_and_arrays_of_numpy_are_taken_wherever_python_s_are() -> None:
    a, two = np.arange(12, dtype="f").reshape(3, 4), np.int64(2)
    for ours, theirs in (
        (graphc.roll(X, two, np.int64(1)), np.roll(a, 2, 1)),
        (graphc.roll(X, (1,), (0, 1)), np.roll(a, (1,), (0, 1))),
        (graphc.moveaxis(X, np.int64(0), 1), a.T),
        (graphc.split(X, two, 1)[1], a[:, 2:]),
        (graphc.tile(X, two), np.tile(a, 2)),
        (graphc.tile(X, np.array([2, 1])), np.tile(a, (2, 1))),
        (graphc.tensordot(X, a.T, np.int64(1)), a @ a.T),
        (functional.max_pool1d(X.reshape(1, 3, 4), two).reshape(3, 2), a[:, 1::2]),
        (functional.relu(a - 5), np.maximum(a - 5, 0)),
        (functional.leaky_relu(a), a),
        (mse_loss(X, a + 2), np.float32(4)),
        (functional.embedding([2, 0], a), a[[2, 0]]),
        (placeholder("p", np.int64(3)), np.ones(3)),
        (placeholder("p", np.array(3)), np.ones(3)),
    ):
        if ours.name == "p":
            assert ours.shape == theirs.shape
        else:
            np.testing.assert_array_equal(ours.eval({X: a}), theirs)


def test_a_size_beside_a_tensor_is_its_value() -> None:
    x = placeholder("x", ("n",))
    n = x.shape[0]
    outputs = [x.sum() / n, n / x, x**n, x < n, n * x, graphc.dim_value(n) / 2]  # type: ignore[operator]
    found = graphc.function([x], outputs)(np.array([1, 2, 4], "f"))
    assert [array.tolist() for array in found[2:4]] == [[1, 8, 64], [True, True, False]]
    assert found[1].tolist() == [3, 1.5, 0.75] and found[5] == 1.5


def test_every_name_that_a_hint_gives_exists() -> None:
    for ours in elsewhere.THEIRS:
        for name in re.findall(r"graphc\.([\w.]*\w)", ours):
            assert operator.attrgetter(name)(graphc) and name.split(".")[0] in graphc.__all__, ours
        for name in re.findall(r"\bx\.(\w+)", ours):
            assert hasattr(Tensor, name), ours
    taken = {*graphc.__all__, *dir(Tensor)}
    assert not taken & {name for names in elsewhere.THEIRS.values() for name in names.split()}
