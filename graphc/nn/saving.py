"""State dicts on disk: `.npz` files of plain arrays, which NumPy alone can read and which can hold no code."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from graphc.errors import ArgumentError, fail
from graphc.files import path_and_content, replaced

Path = str | os.PathLike[str]


def save(path: Path | Mapping[str, ArrayLike], state: Mapping[str, ArrayLike] | Path) -> None:
    """Write `state` to `path` as an .npz file; also as `save(state, path)`, PyTorch's order: the str is the path.

    The file is replaced as a whole: a reader never sees half of one. Arrays are written with their names as they are
    (`numpy.savez` cannot hold one called "file"). Raises ArgumentError unless `state` maps names to arrays.
    """
    target, content = path_and_content("nn.save", path, state)
    if not isinstance(content, Mapping):
        hint = "pass model.state_dict() or optimizer.state_dict()"
        fail(ArgumentError, f"nn.save writes a mapping from names to arrays, not a {type(content).__name__}", hint)
    with replaced(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for key, value in content.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(value), allow_pickle=False)


def load(path: Path) -> dict[str, np.ndarray]:
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
