"""Cached features, in memory or, if they do not fit, in files that later runs reuse.

A file is the arrays, one after the other; the SHA-256 of each of their blocks (`checked_array`);
the key, as JSON; and the SHA-256 of these digests and the key.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from adtr_jax.devices import memory
from adtr_jax.devices.checked_array import CheckedArray, block_digests, rows_per_block
from adtr_jax.files import temporary
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

        A file is named by the key, and holds it with the digests of its blocks, which are checked
        where they are read. One that is cut, of another key, or whose digests are damaged is made
        again. It gets its name when it is complete, so that two runs may make the same one.

        Args:
            key: returns all that the values depend on, as JSON values.
            fill: writes the values into the given arrays.
            dtypes: of the arrays, wider ones first; None: float32 throughout.
        """
        temporary.sweep(self.directory)
        like = _like(shapes, dtypes)
        limit = memory.of_host() if self.limit is None else self.limit
        if _offsets(like)[-1] <= limit:
            arrays = [np.empty(each.shape, each.dtype) for each in like]
            fill(arrays)
            return arrays
        text = json.dumps([key(), shapes], sort_keys=True)
        file = self.directory / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.features"
        digests = _read_digests(file, like, text)
        if digests is None:
            _write(file, like, text, fill)
            digests = _read_digests(file, like, text)
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


def _write(file: Path, like: Arrays, key: str, fill: Fill) -> None:
    """Writes the arrays and what tells that they are sound; the file then gets its name.

    Its pages are in the file system's hands: they take memory only as long as there is some.
    """
    size = _offsets(like)[-1]
    with temporary.folder(file.parent, file.stem) as folder:
        part = folder / file.name
        with part.open("w+b") as opened:
            reserve(opened, size + _tail(like, key))
            arrays = _mapped(part, like, "r+")
            fill([*arrays])
            for array in arrays:
                array.flush()
            told = b"".join(block_digests(array).tobytes() for array in arrays) + key.encode()
            opened.seek(size)
            opened.write(told + hashlib.sha256(told).digest())
            opened.flush()
            os.fsync(opened.fileno())
        part.replace(file)


def _tail(like: Arrays, key: str) -> int:
    """Returns how many bytes follow the arrays in the file."""
    return _DIGEST * (sum(_blocks(like)) + 1) + len(key.encode())


def _read_digests(file: Path, like: Arrays, key: str) -> list[np.ndarray] | None:
    """Returns the digests of each array's blocks; None: the file is not there, or is another."""
    size, blocks = _offsets(like)[-1], _blocks(like)
    if not file.is_file() or file.stat().st_size != size + _tail(like, key):
        return None
    try:
        with file.open("rb") as opened:
            opened.seek(size)
            tail = opened.read()
    except OSError:  # an unreadable block of the disk
        return None
    told, own = tail[:-_DIGEST], tail[-_DIGEST:]
    digests = told[: _DIGEST * sum(blocks)]
    if hashlib.sha256(told).digest() != own or told[len(digests) :] != key.encode():
        return None
    table = np.frombuffer(digests, np.uint8).reshape(-1, _DIGEST)
    return np.split(table, np.cumsum(blocks)[:-1])
