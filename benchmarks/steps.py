"""Whole training steps of four small networks against PyTorch eager: an MLP, a CNN, a transformer block, a GRU.

    python benchmarks/steps.py [--networks mlp cnn transformer gru] [--threads 1 2] [--rounds 15]

Needs PyTorch (the README of this folder says how to install it). A step is forward, backward, clipping where the
network has it, and the optimiser, on one batch, from equal initial weights; the losses of the first ten steps are
compared before anything is timed. graphc compiles the step as it is written here, from plain functions, with a
symbolic batch; PyTorch runs the functions that it has for the same, and its fused optimisers. The rounds take turns in
one process: the ratio is the median of those within a round, and the interval holds the middle half of them. The exit
status is 1 where graphc is slower.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as theirs
from turns import in_turns, ratio

import graphc
import graphc.nn.functional as ours

Array = np.ndarray[Any, Any]
Weights = Mapping[str, Any]
HEADS, TIME = 4, 20
BATCHES = 4  # that go round, so that nothing is learnt by heart
COMPARED = 10  # steps whose losses are compared
RNG = np.random.default_rng(0)


def mlp(w: Weights, x: graphc.Tensor, labels: graphc.Tensor) -> tuple[graphc.Tensor, dict[Any, Any]]:
    """784-256-256-10 with relu. Returns the loss and the updates of what no optimiser moves, as all of these do."""
    hidden = ours.relu(x @ w["w1"] + w["b1"])
    hidden = ours.relu(hidden @ w["w2"] + w["b2"])
    return ours.cross_entropy(hidden @ w["w3"] + w["b3"], labels), {}


def torch_mlp(w: Weights, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    hidden = theirs.relu(x @ w["w1"] + w["b1"])
    hidden = theirs.relu(hidden @ w["w2"] + w["b2"])
    return theirs.cross_entropy(hidden @ w["w3"] + w["b3"], labels)


def cnn(w: Weights, x: graphc.Tensor, labels: graphc.Tensor) -> tuple[graphc.Tensor, dict[Any, Any]]:
    """Twice convolution, batch norm, relu and max pooling, then a linear layer, for images of 28 x 28."""
    updates: dict[Any, Any] = {}
    for layer in "12":
        y = ours.conv2d(x, w["conv" + layer], padding=1)
        for name, value in (("mean", y.mean((0, 2, 3))), ("var", y.var((0, 2, 3), correction=1))):
            updates[w[name + layer]] = 0.9 * w[name + layer] + 0.1 * value
        normal = ours.batch_norm(y, None, None, w["scale" + layer], w["shift" + layer])
        x = ours.max_pool2d(ours.relu(normal), 2)
    return ours.cross_entropy(x.reshape(x.shape[0], -1) @ w["w"] + w["b"], labels), updates


def torch_cnn(w: Weights, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    for layer in "12":
        y = theirs.conv2d(x, w["conv" + layer], padding=1)
        running = w["mean" + layer], w["var" + layer]
        normal = theirs.batch_norm(y, *running, w["scale" + layer], w["shift" + layer], training=True)
        x = theirs.max_pool2d(theirs.relu(normal), 2)
    return theirs.cross_entropy(x.flatten(1) @ w["w"] + w["b"], labels)


def transformer(w: Weights, words: graphc.Tensor, labels: graphc.Tensor) -> tuple[graphc.Tensor, dict[Any, Any]]:
    """A pre-norm encoder block over embedded words, with a linear layer that tells a word for each place."""
    x = ours.embedding(words, w["words"]) + w["places"]
    batch, time_, width = x.shape

    def heads(y: graphc.Tensor) -> graphc.Tensor:
        return y.reshape(batch, time_, HEADS, width // HEADS).transpose((0, 2, 1, 3))

    y = ours.layer_norm(x, width, w["scale1"], w["shift1"])
    query, key, value = (heads(y @ w[name]) for name in ("query", "key", "value"))
    scores = ours.softmax(query @ key.swapaxes(-1, -2) / (width // HEADS) ** 0.5)
    x = x + (scores @ value).transpose((0, 2, 1, 3)).reshape(batch, time_, width) @ w["out"]
    y = ours.layer_norm(x, width, w["scale2"], w["shift2"])
    x = x + ours.gelu(y @ w["up"] + w["up_bias"]) @ w["down"] + w["down_bias"]
    return ours.cross_entropy((x @ w["last"]).swapaxes(1, 2), labels), {}


def torch_transformer(w: Weights, words: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    x = theirs.embedding(words, w["words"]) + w["places"]
    batch, time_, width = x.shape

    def heads(y: torch.Tensor) -> torch.Tensor:
        return y.reshape(batch, time_, HEADS, width // HEADS).transpose(1, 2)

    y = theirs.layer_norm(x, (width,), w["scale1"], w["shift1"])
    query, key, value = (heads(y @ w[name]) for name in ("query", "key", "value"))
    attended = theirs.scaled_dot_product_attention(query, key, value)
    x = x + attended.transpose(1, 2).reshape(batch, time_, width) @ w["out"]
    y = theirs.layer_norm(x, (width,), w["scale2"], w["shift2"])
    x = x + theirs.gelu(y @ w["up"] + w["up_bias"]) @ w["down"] + w["down_bias"]
    return theirs.cross_entropy((x @ w["last"]).transpose(1, 2), labels)


def gru(w: Weights, x: graphc.Tensor, labels: graphc.Tensor) -> tuple[graphc.Tensor, dict[Any, Any]]:
    """A GRU unrolled over 20 places, with PyTorch's formulas, and a linear layer on its last state."""
    size = w["hidden"].shape[0]
    state = graphc.zeros((x.shape[0], size), "float32")
    for place in range(TIME):
        own = x[:, place] @ w["input"] + w["input_bias"]
        past = state @ w["hidden"] + w["hidden_bias"]
        reset = ours.sigmoid(own[:, :size] + past[:, :size])
        keep = ours.sigmoid(own[:, size : 2 * size] + past[:, size : 2 * size])
        new = ours.tanh(own[:, 2 * size :] + reset * past[:, 2 * size :])
        state = (1 - keep) * new + keep * state
    return ours.cross_entropy(state @ w["w"] + w["b"], labels), {}


def torch_gru(w: Weights, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    cell = [w["input"].T, w["hidden"].T, w["input_bias"], w["hidden_bias"]]
    start = torch.zeros(1, x.shape[0], w["hidden"].shape[0])
    output, _ = torch.gru(x, start, cell, True, 1, 0.0, True, False, True)
    return theirs.cross_entropy(output[:, -1] @ w["w"] + w["b"], labels)


@dataclass
class Network:
    """One of them: the sizes of its weights, what a batch is, and the optimiser of both."""

    ours: Callable[..., tuple[graphc.Tensor, dict[Any, Any]]]
    theirs: Callable[..., torch.Tensor]
    shapes: dict[str, tuple[int, ...]]
    inputs: tuple[int, ...]  # the shape of a batch
    labels: tuple[int, ...]
    classes: int
    optimizer: str
    settings: dict[str, float]
    clip: float = 0.0  # the largest global norm of the gradients, 0 for any
    words: int = 0  # the inputs are integers below this, 0 for floats

    def weights(self) -> dict[str, Array]:
        """Initial values: batch norm's and layer norm's parts by their meaning, the others uniform by their inputs."""
        found = {}
        for name, shape in self.shapes.items():
            inputs = int(np.prod(shape[1:] if name.startswith("conv") else shape[:1]))
            found[name] = (RNG.uniform(-1, 1, shape) / np.sqrt(inputs)).astype("float32")
            if name.startswith(("scale", "shift", "mean", "var")):
                found[name] = np.full(shape, float(name.startswith(("scale", "var"))), "float32")
        return found

    def batches(self) -> list[tuple[Array, Array]]:
        def one() -> Array:
            return RNG.integers(0, self.words, self.inputs) if self.words else RNG.random(self.inputs, "float32")

        return [(one(), RNG.integers(0, self.classes, self.labels)) for _ in range(BATCHES)]

    def trained(self) -> list[str]:
        return [name for name in self.shapes if not name.startswith(("mean", "var"))]


NETWORKS = {
    "mlp": Network(
        mlp, torch_mlp,
        {"w1": (784, 256), "b1": (256,), "w2": (256, 256), "b2": (256,), "w3": (256, 10), "b3": (10,)},
        (128, 784), (128,), 10, "Adam", {"lr": 1e-4},
    ),
    "cnn": Network(
        cnn, torch_cnn,
        {"conv1": (16, 1, 3, 3), "scale1": (16,), "shift1": (16,), "mean1": (16,), "var1": (16,),
         "conv2": (32, 16, 3, 3), "scale2": (32,), "shift2": (32,), "mean2": (32,), "var2": (32,),
         "w": (32 * 7 * 7, 10), "b": (10,)},
        (32, 1, 28, 28), (32,), 10, "SGD", {"lr": 1e-3, "momentum": 0.9},
    ),
    "transformer": Network(
        transformer, torch_transformer,
        {"words": (1000, 128), "places": (64, 128), "scale1": (128,), "shift1": (128,), "query": (128, 128),
         "key": (128, 128), "value": (128, 128), "out": (128, 128), "scale2": (128,), "shift2": (128,),
         "up": (128, 512), "up_bias": (512,), "down": (512, 128), "down_bias": (128,), "last": (128, 1000)},
        (8, 64), (8, 64), 1000, "AdamW", {"lr": 1e-4}, clip=1.0, words=1000,
    ),
    "gru": Network(
        gru, torch_gru,
        {"input": (32, 192), "input_bias": (192,), "hidden": (64, 192), "hidden_bias": (192,), "w": (64, 10),
         "b": (10,)},
        (32, TIME, 32), (32,), 10, "SGD", {"lr": 1e-2, "momentum": 0.9},
    ),
}  # fmt: skip


def graphc_step(network: Network, weights: Mapping[str, Array], threads: int) -> Callable[[Array, Array], Any]:
    """The compiled step, with a symbolic batch."""
    w = {name: graphc.parameter(name, array) for name, array in weights.items()}
    x = graphc.placeholder("x", ("batch", *network.inputs[1:]), "int64" if network.words else "float32")
    labels = graphc.placeholder("labels", ("batch", *network.labels[1:]), "int64")
    loss, updates = network.ours(w, x, labels)
    trained = [w[name] for name in network.trained()]
    gradients = dict(zip(trained, graphc.grad(loss, trained), strict=True))
    if network.clip:
        gradients, _ = graphc.optim.clip_grad_norm(gradients, network.clip)
    optimizer = getattr(graphc.optim, network.optimizer)(**network.settings)
    updates |= optimizer.updates_from(gradients)
    return graphc.function([x, labels], loss, updates=updates, name=network.ours.__name__, threads=threads)


def torch_step(network: Network, weights: Mapping[str, Array]) -> Callable[[Array, Array], Any]:
    """The same step in PyTorch eager."""
    w = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
    trained = [w[name].requires_grad_() for name in network.trained()]
    optimizer = getattr(torch.optim, network.optimizer)(trained, fused=True, **network.settings)

    def step(x: Array, labels: Array) -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = network.theirs(w, torch.from_numpy(x), torch.from_numpy(labels))
        loss.backward()  # type: ignore[no-untyped-call]
        if network.clip:
            torch.nn.utils.clip_grad_norm_(trained, network.clip)
        optimizer.step()
        return loss.item()

    return step


def measure(name: str, threads: int, rounds: int) -> tuple[float, str]:
    """The ratio of one network, and its row of the table."""
    torch.set_num_threads(threads)
    network = NETWORKS[name]
    weights, batches = network.weights(), network.batches()
    start = time.perf_counter()
    step = graphc_step(network, weights, threads)
    compiled = time.perf_counter() - start
    steps = [step, torch_step(network, weights)]
    losses = [[float(step(*batch)) for batch in itertools.islice(itertools.cycle(batches), COMPARED)] for step in steps]
    if not np.allclose(*losses, rtol=1e-4):
        raise SystemExit(f"{name}: the losses differ: {losses}")
    rounds_of = [itertools.cycle(batches) for _ in steps]
    ways = [lambda step=step, left=left: step(*next(left)) for step, left in zip(steps, rounds_of, strict=True)]
    a, b = in_turns(ways, rounds)
    low, _, high = statistics.quantiles([y / x for x, y in zip(a, b, strict=True)], n=4)
    times = " | ".join(f"{1e6 * statistics.median(seconds):.0f}" for seconds in (a, b))
    times += f" | {ratio(b, a):.2f} ({low:.2f} to {high:.2f})"
    return ratio(b, a), f"| {name} | {threads} | {times} | {compiled:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print("| network | threads | graphc, us | PyTorch, us | PyTorch / graphc | compiled in, s |")
    print("|---|---|---|---|---|---|", flush=True)
    ratios = []
    for name, threads in itertools.product(options.networks, options.threads):
        found, row = measure(name, threads, options.rounds)
        ratios.append(found)
        print(row, flush=True)
    raise SystemExit(0 if min(ratios) >= 1 else 1)


if __name__ == "__main__":
    main()
