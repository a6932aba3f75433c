"""Train a classifier of handwritten digits; every training step is one call of one native function.

    python examples/train_digits.py                    the 1797 8x8 images that come with scikit-learn
    python examples/train_digits.py --mnist DIR        MNIST, from the four IDX files that you have
    python examples/train_digits.py --dump DIR         also write the step at every level, from graph to assembly

Start reading at `train`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from idx import load_mnist

import graphc
from graphc.nn import Linear, ReLU, Sequential, load, save
from graphc.nn.functional import cross_entropy
from graphc.optim import Adam
from graphc.train import Progress, minibatches

BATCH = 128
LEVELS = {"graph": "txt", "optimized": "txt", "program": "txt", "loops": "txt", "llvm": "ll", "asm": "s"}


class Data(NamedTuple):
    """Images as f32[rows, pixels] in 0..1, labels as i64[rows]."""

    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def digits() -> Data:
    """scikit-learn's digits, always the same fifth of them for testing."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    images, labels = (bunch.data[order] / 16).astype("float32"), bunch.target[order].astype("int64")
    split = len(labels) * 4 // 5
    return Data(images[:split], labels[:split], images[split:], labels[split:])


def mnist(folder: Path) -> Data:
    """MNIST as it is split by its authors."""
    images, labels, test_images, test_labels = load_mnist(folder)
    flat = [(a.reshape(len(a), -1) / 255).astype("float32") for a in (images, test_images)]
    return Data(flat[0], labels.astype("int64"), flat[1], test_labels.astype("int64"))


def network(pixels: int, seed: int) -> Sequential:
    """pixels -> 128 ReLU -> 10 logits."""
    generator = np.random.default_rng(seed)
    return Sequential(
        hidden=Linear(pixels, 128, generator=generator), relu=ReLU(), output=Linear(128, 10, generator=generator)
    )


def train(data: Data, epochs: int, seed: int, threads: int | None, dump: Path | None) -> float:
    """Train, print a line an epoch, check that saved parameters predict the same; the accuracy on the test images."""
    pixels = data.images.shape[1]
    model = network(pixels, seed)
    x = graphc.placeholder("x", ("batch", pixels), "float32")
    y = graphc.placeholder("y", ("batch",), "int64")
    logits = model(x)
    loss = cross_entropy(logits, y)
    optimizer = Adam(lr=3e-3)

    start = time.perf_counter()
    updates = optimizer.updates(loss, model.parameters())
    step = graphc.function([x, y], loss, updates=updates, name="step", threads=threads)
    predict = graphc.function([x], logits.argmax(axis=1), name="predict", threads=threads)
    print(f"{len(data.images)} images of {pixels} pixels; compiled in {time.perf_counter() - start:.2f} s", flush=True)
    if dump is not None:
        write_levels(step, dump)

    shuffle = np.random.default_rng(seed + 1)
    steps = -(-len(data.images) // BATCH)
    with Progress("training", total=epochs * steps) as progress:
        for epoch in range(1, epochs + 1):
            total, seconds = 0.0, 0.0
            for images, labels in minibatches(data.images, data.labels, size=BATCH, generator=shuffle):
                start = time.perf_counter()
                total += float(step(images, labels)) * len(labels)
                seconds += time.perf_counter() - start
                progress.advance()
            right = accuracy(predict(data.test_images), data.test_labels)
            mean = total / len(data.images)
            each = 1e3 * seconds / steps
            progress.line(f"epoch {epoch:3}  loss {mean:.4f}  accuracy {right:.4f}  {each:.3f} ms a step")

    predicted = predict(data.test_images)
    check_saving(model, predicted, data, threads)
    return accuracy(predicted, data.test_labels)


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """The share of labels that are right."""
    return float(np.mean(predicted == labels))


def check_saving(model: Sequential, predicted: np.ndarray, data: Data, threads: int | None) -> None:
    """Save the parameters, load them into a new network, and compare what it predicts."""
    restored = network(data.images.shape[1], seed=0)
    with tempfile.TemporaryDirectory() as folder:
        save(model.state_dict(), Path(folder) / "digits.npz")
        restored.load_state_dict(load(Path(folder) / "digits.npz"))
    x = graphc.placeholder("x", ("batch", data.images.shape[1]), "float32")
    again = graphc.function([x], restored(x).argmax(axis=1), name="predict", threads=threads)
    if not np.array_equal(again(data.test_images), predicted):
        raise SystemExit("the reloaded network predicts something else")
    print("saved and reloaded: the same predictions")


def write_levels(step: graphc.Function, folder: Path) -> None:
    """Write what the step is at every level, from the graph to the assembly that runs."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (level, suffix) in enumerate(LEVELS.items()):  # named as GRAPHC_DUMP names them
        (folder / f"{number:02d}-{level}.{suffix}").write_text(step.ir(level), encoding="utf-8")
    print(f"wrote {', '.join(LEVELS)} to {folder}")


def main() -> int:
    """Run the command; 0, 1 where the images cannot be read, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, metavar="DIR", help="train on MNIST's IDX files in DIR, plain or gzipped")
    parser.add_argument("--dump", type=Path, metavar="DIR", help="write every level of the compiled step to DIR")
    parser.add_argument("--epochs", type=int, help="passes over the training images (default: 40, MNIST: 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the initial parameters and of the order of the images")
    parser.add_argument("--threads", type=int, help="threads of a call (default: all cores)")
    options = parser.parse_args()
    epochs = options.epochs if options.epochs is not None else (40 if options.mnist is None else 5)
    try:
        data = digits() if options.mnist is None else mnist(options.mnist)
    except (OSError, ValueError) as error:
        print(f"train_digits: {error}", file=sys.stderr)
        return 1
    try:
        result = train(data, epochs, options.seed, options.threads, options.dump)
    except KeyboardInterrupt:
        print("train_digits: stopped", file=sys.stderr)
        return 130
    print(f"test accuracy {result:.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
