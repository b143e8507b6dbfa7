"""Cached features, in memory or, if they do not fit, in files that later runs reuse."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from adtr_jax.devices import memory
from adtr_jax.devices.checked_array import CheckedArray, block_digests, rows_per_block
from adtr_jax.files.scratch import reserve

Arrays = list[np.ndarray]  # np.memmap, if they are in a file
Fill = Callable[[Arrays], object]
_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class FeatureCache:
    """Where features are cached.

    Attributes:
        directory: for the files; created on the first write.
        limit: bytes of main memory that features may take; None: `memory.of_host()`.
    """

    directory: Path
    limit: int | None = None

    def arrays(
        self,
        key: Callable[[], Mapping[str, Any]],
        shapes: Sequence[tuple[int, ...]],
        fill: Fill,
        dtypes: Sequence[DTypeLike] | None = None,
    ) -> list[np.ndarray] | list[CheckedArray]:
        """Returns filled arrays, in memory or memory-mapped from a file.

        A file is named by the key and ends with digests of its blocks, which are checked where they
        are read. One that is cut, or whose digests are damaged, is made again. It gets its name
        when it is complete, so that two runs may make the same one.

        Args:
            key: returns all that the values depend on, as JSON values.
            fill: writes the values into the given arrays.
            dtypes: of the arrays, wider ones first; None: float32 throughout.
        """
        like = _like(shapes, dtypes)
        limit = memory.of_host() if self.limit is None else self.limit
        if _offsets(like)[-1] <= limit:
            arrays = [np.empty(each.shape, each.dtype) for each in like]
            fill(arrays)
            return arrays
        text = json.dumps([key(), shapes], sort_keys=True)
        file = self.directory / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.features"
        digests = _read_digests(file, like)
        if digests is None:
            _write(file, like, fill)
            digests = _read_digests(file, like)
            assert digests is not None
        mapped = _mapped(file, like, "r")
        return [
            CheckedArray(array, part, file) for array, part in zip(mapped, digests, strict=True)
        ]


def _like(
    shapes: Sequence[tuple[int, ...]], dtypes: Sequence[DTypeLike] | None
) -> list[np.ndarray]:
    """Returns arrays of these shapes and types that take no memory."""
    dtypes = dtypes or [np.float32] * len(shapes)
    return [
        np.broadcast_to(np.zeros((), dtype), shape)
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]


def _offsets(like: Arrays) -> list[int]:
    """Returns the byte offsets of the arrays in the file, and the end of the last one."""
    return [0, *np.cumsum([array.nbytes for array in like]).tolist()]


def _blocks(like: Arrays) -> list[int]:
    """Returns the number of each array's blocks."""
    return [-(-len(array) // rows_per_block(array)) for array in like]


def _mapped(file: Path, like: Arrays, mode: Literal["r", "r+"]) -> list[np.memmap]:
    return [
        np.memmap(file, array.dtype, mode, offset, array.shape)
        for offset, array in zip(_offsets(like), like, strict=False)
    ]


def _write(file: Path, like: Arrays, fill: Fill) -> None:
    """Writes the arrays, their digests and the digest of these; the file then gets its name.

    Its pages are in the file system's hands: they take memory only as long as there is some.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    size = _offsets(like)[-1]
    # In a temporary folder, so that the file gets the permissions of the user's umask.
    with tempfile.TemporaryDirectory(prefix=f".{file.stem}-", dir=file.parent) as folder:
        part = Path(folder) / file.name
        with part.open("w+b") as opened:
            reserve(opened, size + _DIGEST * (sum(_blocks(like)) + 1))
            arrays = _mapped(part, like, "r+")
            fill([*arrays])
            for array in arrays:
                array.flush()
            digests = b"".join(block_digests(array).tobytes() for array in arrays)
            opened.seek(size)
            opened.write(digests + hashlib.sha256(digests).digest())
            opened.flush()
            os.fsync(opened.fileno())
        part.replace(file)


def _read_digests(file: Path, like: Arrays) -> list[np.ndarray] | None:
    """Returns the digests of each array's blocks; None: the file is not there, cut or damaged."""
    size, blocks = _offsets(like)[-1], _blocks(like)
    length = _DIGEST * sum(blocks)
    if not file.is_file() or file.stat().st_size != size + length + _DIGEST:
        return None
    try:
        with file.open("rb") as opened:
            opened.seek(size)
            digests, own = opened.read(length), opened.read()
    except OSError:  # an unreadable block of the disk
        return None
    if hashlib.sha256(digests).digest() != own:
        return None
    table = np.frombuffer(digests, np.uint8).reshape(-1, _DIGEST)
    return np.split(table, np.cumsum(blocks)[:-1])
