"""Arrays that may be larger than the memory, for as long as they are used."""

import os
import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Shaped
from numpy.typing import DTypeLike

IN_MEMORY = 2**28  # bytes


def scratch(directory: Path, shape: tuple[int, ...], dtype: DTypeLike) -> Shaped[np.ndarray, "..."]:
    """Returns an array to write to; above `IN_MEMORY` it is in a temporary file.

    The file is in the folder, which is created if necessary, and vanishes with the array, or with
    the process. The system holds its pages in memory only as long as there is some.

    Raises:
        OSError: there is no room for the file.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if size <= IN_MEMORY:
        return np.empty(shape, dtype)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory) as file:
        reserve(file, size)
        return np.memmap(file, dtype, "r+", 0, shape)


def reserve(opened: BinaryIO, size: int) -> None:
    """Reserves the disk space: a disk that fills up later would kill the process at a write."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(opened.fileno(), 0, size)
    else:
        opened.truncate(size)
