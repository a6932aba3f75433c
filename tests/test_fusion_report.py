"""GRAPHC_LOG=fusion: each kernel in plain words, and the rule because of which a value is stored."""

import numpy as np
import pytest

import graphc
from graphc import nn, ops
from graphc.build import parameter, placeholder
from graphc.graph import Graph
from graphc.passes.pipeline import optimize
from graphc.settings import config


def test_the_log_says_what_was_fused_and_why_the_rest_was_not(capsys: pytest.CaptureFixture[str]) -> None:
    x, w = placeholder("x", ("n", 8)), parameter("w", np.ones((8, 4), "float32"))
    hidden = ops.relu(x @ w)
    outputs = [ops.exp(hidden - hidden.max(1, keepdims=True)).sum(1), (hidden @ w.T).sum(0)]
    with config(log="fusion"):
        optimize(Graph((x.ref, w.ref), (*(t.ref for t in outputs), (w * 0.5).ref), (w.ref,)))
    told = capsys.readouterr().err
    assert "Domain" not in told and "None" not in told
    wanted = [
        "graphc fusion: a matmul of [n,4]: matmul relu\n",
        "\n    result of relu is stored for matmul: a kernel holds one matmul\n",
        "\n    result of relu is stored for max: their loops differ: a matmul of [n,4] against rows of [n,4],"
        " reduced over axis 1\n",
        "graphc fusion: rows of [n,4], reduced over axis 1: max subtract exp sum\n",
        "graphc fusion: rows of [8,4], of updates: multiply\n",
    ]
    assert not [text for text in wanted if text not in told], told


def test_what_feeds_the_contractions_of_a_backward_pass_is_an_epilogue(capsys: pytest.CaptureFixture[str]) -> None:
    """So relu and dropout in the backward pass of an MLP are no passes over memory of their own."""
    first, last = nn.Linear(5, 6, generator=1), nn.Linear(6, 4, generator=2)
    model = nn.Sequential(a=first, relu=nn.ReLU(), drop=nn.Dropout(0.5), b=last)
    x, t = placeholder("x", (7, 5), "float32"), placeholder("t", (7, 4), "float32")
    loss = ((model(x) - t) ** 2).mean()
    with config(log="fusion"):
        graphc.function([x, t], [loss, *graphc.grad(loss, list(model.parameters()))])
    kernel, feeding = "", []
    for line in capsys.readouterr().err.splitlines():
        if line.startswith("graphc fusion: "):
            kernel = line
        elif " is stored for matmul:" in line:
            feeding.append(kernel)
    assert len(feeding) == 3  # relu with dropout forward; the gradients of both layers
    assert all(text.startswith("graphc fusion: a matmul of ") for text in feeding), feeding
