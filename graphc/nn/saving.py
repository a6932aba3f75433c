"""State dicts on disk: `.npz` files of plain arrays, which NumPy alone can read and which can hold no code."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from graphc.errors import ArgumentError


def save(state: Mapping[str, ArrayLike], path: str | os.PathLike[str]) -> None:
    """Write `state` to `path` as an .npz file. The file is replaced as a whole: a reader never sees half of one.

    Arrays are written with their names as they are (`numpy.savez` cannot hold one called "file").
    """
    target = os.fspath(path)
    temporary = f"{target}.{os.getpid()}.tmp"
    try:
        with zipfile.ZipFile(temporary, "w") as archive:
            for key, value in state.items():
                with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(value), allow_pickle=False)
        os.replace(temporary, target)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def load(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name. Raises ArgumentError for a file that is none, or that holds objects."""
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    arrays[name.removesuffix(".npy")] = np.lib.format.read_array(member, allow_pickle=False)
    except (ValueError, zipfile.BadZipFile) as error:
        raise ArgumentError(f"{os.fspath(path)} is not an .npz file of plain arrays: {error}") from error
    return arrays
