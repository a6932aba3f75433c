"""Reads IDX files, the format of MNIST (yann.lecun.com/exdb/mnist): a header of sizes, then the bytes of one array.

Enter at `load_mnist(folder)`; nothing is downloaded.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def load_idx(path: Path) -> np.ndarray:
    """The array in an IDX file, plain or gzipped (by its first bytes). Raises ValueError for anything else."""
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path} is cut off or damaged: {error}") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in DTYPES:
        raise ValueError(f"{path} is not an IDX file")
    dtype, rank = np.dtype(DTYPES[data[2]]), data[3]
    start = 4 + 4 * rank
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, start, 4))
    if len(data) != start + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{path}: {len(data)} bytes are not a header of {start} and an array of shape {list(shape)}")
    return np.frombuffer(data, dtype, offset=start).reshape(shape)


def load_mnist(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images, training labels, test images and test labels from the four IDX files in `folder`.

    Both spellings are found (`train-images-idx3-ubyte`, `train-images.idx3-ubyte`), with or without `.gz`.
    Raises FileNotFoundError, which lists the names.
    """
    arrays = []
    for stem, kind in (
        ("train-images", "idx3"),
        ("train-labels", "idx1"),
        ("t10k-images", "idx3"),
        ("t10k-labels", "idx1"),
    ):
        names = [f"{stem}{dot}{kind}-ubyte{suffix}" for dot in "-." for suffix in ("", ".gz")]
        found = [folder / name for name in names if (folder / name).is_file()]
        if not found:
            raise FileNotFoundError(f"{folder} holds none of {', '.join(names)}")
        arrays.append(load_idx(found[0]))
    return arrays[0], arrays[1], arrays[2], arrays[3]
