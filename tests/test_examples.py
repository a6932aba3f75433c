"""The examples as a user runs them, and the training helpers."""

import gzip
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from graphc.errors import ArgumentError, ShapeError
from graphc.train import Progress, minibatches

ROOT = Path(__file__).resolve().parent.parent


def run_digits(*arguments: str, cwd: Path = ROOT) -> list[str]:
    """The lines that the example prints; pipes are no terminal, so there is no bar."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GRAPHC_")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "train_digits.py"), *arguments],
        cwd=cwd,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout and not done.stderr
    return done.stdout.splitlines()


def test_digits_reach_their_accuracy() -> None:
    lines = run_digits()
    epochs = [line for line in lines if line.startswith("epoch")]
    assert len(epochs) == 40
    pattern = r"epoch +\d+  loss \d+\.\d{4}  accuracy [01]\.\d{4}  \d+\.\d{3} ms a step"
    assert all(re.fullmatch(pattern, line) for line in epochs), epochs
    assert lines[-2] == "saved and reloaded: the same predictions"
    match = re.fullmatch(r"test accuracy (0\.\d{4})", lines[-1])
    assert match and float(match[1]) >= 0.97


def test_equal_seeds_train_to_the_same_digits_on_any_number_of_threads() -> None:
    def without_times(lines: list[str]) -> list[str]:
        return [re.sub(r"  [\d.]+ ms a step", "", line) for line in lines if "epoch" in line]

    one = without_times(run_digits("--epochs", "2", "--threads", "1", "--seed", "3"))
    assert len(one) == 2 and one == without_times(run_digits("--epochs", "2", "--threads", "2", "--seed", "3"))
    assert one != without_times(run_digits("--epochs", "2", "--threads", "1", "--seed", "4"))


def test_dump_writes_every_level(tmp_path: Path) -> None:
    run_digits("--epochs", "1", "--dump", str(tmp_path / "levels"))
    texts = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "levels").iterdir()}
    assert sorted(texts) == [
        "00-graph.txt", "01-optimized.txt", "02-program.txt", "03-loops.txt", "04-llvm.ll", "05-asm.s"
    ]  # fmt: skip
    assert "matmul(" in texts["00-graph.txt"] and "train_digits.py:" in texts["00-graph.txt"]
    assert "define " in texts["04-llvm.ll"] and "\tret" in texts["05-asm.s"]


def write_idx(path: Path, array: np.ndarray) -> None:
    """An IDX file of unsigned bytes; gzipped if its name says so."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    data = header + array.astype("u1").tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.mark.parametrize(("dot", "suffix"), [("-", ""), (".", ".gz")])
def test_mnist_files_plain_and_gzipped(tmp_path: Path, dot: str, suffix: str) -> None:
    """Ten classes of 28x28 images, each a bright row of its own in noise: learned at once."""
    rng = np.random.default_rng(0)
    for stem, rows in (("train", 300), ("t10k", 50)):
        labels = rng.integers(0, 10, rows)
        images = rng.integers(0, 60, (rows, 28, 28))
        images[np.arange(rows), 2 * labels + 4] = 255
        write_idx(tmp_path / f"{stem}-images{dot}idx3-ubyte{suffix}", images)
        write_idx(tmp_path / f"{stem}-labels{dot}idx1-ubyte{suffix}", labels)
    lines = run_digits("--mnist", str(tmp_path))
    assert lines[0].startswith("300 images of 784 pixels")
    assert len([line for line in lines if line.startswith("epoch")]) == 5
    assert lines[-1] == "test accuracy 1.0000"


def test_idx_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from idx import load_idx, load_mnist

    path = tmp_path / "x"
    path.write_bytes(bytes([0, 0, 0x0B, 1]) + (2).to_bytes(4, "big") + b"\x01\x00\xff\xff")
    assert load_idx(path).tolist() == [256, -1]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"11 bytes are not a header of 8 and an array of shape \[2\]"):
        load_idx(path)
    path.write_bytes(b"<html>")
    with pytest.raises(ValueError, match="is not an IDX file"):
        load_idx(path)
    with pytest.raises(FileNotFoundError, match=r"holds none of train-images-idx3-ubyte, train-images-idx3-ubyte.gz"):
        load_mnist(tmp_path)


def started(*arguments: str) -> subprocess.Popen[str]:
    """An example that runs on."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GRAPHC_")}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT / "examples",
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_mnist_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    process = started("train_digits.py", "--mnist", str(tmp_path / "nowhere"))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and re.fullmatch(r"train_digits: .*nowhere holds none of .*\n", errors), errors
    for stem, kind in (("train-images", "idx3"), ("train-labels", "idx1")):
        write_idx(tmp_path / f"{stem}-{kind}-ubyte.gz", np.zeros((20, 2, 2) if kind == "idx3" else 20))
    cut = tmp_path / "train-labels-idx1-ubyte.gz"
    cut.write_bytes(cut.read_bytes()[:-12])
    process = started("train_digits.py", "--mnist", str(tmp_path))
    _, errors = process.communicate(timeout=60)
    wanted = rf"train_digits: {re.escape(str(cut))} is cut off or damaged: .*\n"
    assert process.returncode == 1 and re.fullmatch(wanted, errors), errors


def test_control_c_stops_the_training_with_one_line() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits "ignored"
    try:
        process = started("train_digits.py", "--epochs", "100000")
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.stdout is not None and process.stdout.readline().startswith("1437 images")
    process.stdout.readline()  # the first epoch
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors == "train_digits: stopped\n"


def test_levels_may_be_read_in_part() -> None:
    with started("levels.py", "graph", "optimized", "asm") as process:
        assert process.stdout is not None and process.stdout.readline() == "--- graph\n"
        process.stdout.close()
        assert process.stderr is not None and process.stderr.read() == ""
    assert process.returncode == 0


def test_minibatches_take_every_row_once() -> None:
    x, y = np.arange(10), np.arange(10) * 2
    assert [len(a) for a, _ in minibatches(x, y, size=4)] == [4, 4, 2]
    shuffled = list(minibatches(x, y, size=4, generator=np.random.default_rng(0)))
    rows = np.concatenate([a for a, _ in shuffled])
    assert sorted(rows) == list(range(10)) and list(rows) != list(range(10))
    assert all(np.array_equal(2 * a, b) for a, b in shuffled)
    assert list(minibatches(np.empty((0, 3)), size=2)) == []
    with pytest.raises(ShapeError, match="the arrays have 10, 9 rows"):
        minibatches(x, y[:9], size=4)
    with pytest.raises(ArgumentError, match="1 arrays in batches of 0"):
        minibatches(x, size=0)


def test_progress_prints_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("training", total=3) as progress:
        progress.advance(2)
        progress.line("epoch 1")
    assert capsys.readouterr().out == "epoch 1\n" and progress.done == 2


def test_progress_draws_a_bar_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with Progress("training", total=3) as progress:
        progress.advance(3)
        progress.line("epoch [1]")
    printed = capsys.readouterr().out
    assert "epoch [1]" in printed and "training" in printed and "3/3" in printed
