"""Cached features, in memory or, if they do not fit, in files that later runs reuse."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from adtr_jax.devices import memory

Arrays = list[np.ndarray]  # np.memmap, if they are in a file
Fill = Callable[[Arrays], object]
_DIGEST = hashlib.sha256().digest_size
_CHUNK = 2**24  # bytes per read when checking a file


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
    ) -> Arrays:
        """Returns filled float32 arrays, in memory or memory-mapped from a file.

        A file is named by the key and holds the digest of its content: a damaged one is made again.
        It gets its name when it is complete, so that two runs may make the same one.

        Args:
            key: returns all that the values depend on, as JSON values.
            fill: writes the values into the given arrays.
        """
        limit = memory.of_host() if self.limit is None else self.limit
        if 4 * sum(int(np.prod(shape)) for shape in shapes) <= limit:
            arrays = [np.empty(shape, np.float32) for shape in shapes]
            fill(arrays)
            return arrays
        text = json.dumps([key(), shapes], sort_keys=True)
        file = self.directory / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.features"
        if not _sound(file, _offsets(shapes)[-1]):
            _write(file, shapes, fill)
        return [*_mapped(file, shapes, "r")]


def _offsets(shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """Returns the byte offsets of the arrays in the file, and the end of the last one."""
    sizes = [4 * int(np.prod(shape)) for shape in shapes]
    return [0, *np.cumsum(sizes).tolist()]


def _mapped(
    file: Path, shapes: Sequence[tuple[int, ...]], mode: Literal["r", "r+"]
) -> list[np.memmap]:
    return [
        np.memmap(file, np.float32, mode, offset, shape)
        for offset, shape in zip(_offsets(shapes), shapes, strict=False)
    ]


def _write(file: Path, shapes: Sequence[tuple[int, ...]], fill: Fill) -> None:
    """Writes the arrays and their digest to a temporary file, which is then renamed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    size = _offsets(shapes)[-1]
    # In a temporary folder, so that the file gets the permissions of the user's umask.
    with tempfile.TemporaryDirectory(prefix=f".{file.stem}-", dir=file.parent) as folder:
        part = Path(folder) / file.name
        with part.open("w+b") as opened:
            _reserve(opened, size + _DIGEST)
            arrays = _mapped(part, shapes, "r+")
            fill([*arrays])
            for array in arrays:
                array.flush()
            digest = _digest(opened, size)
            opened.seek(size)
            opened.write(digest)
            opened.flush()
            os.fsync(opened.fileno())
        part.replace(file)


def _reserve(opened: BinaryIO, size: int) -> None:
    """Reserves the disk space: a disk that fills up later would kill the process at a write."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(opened.fileno(), 0, size)
    else:
        opened.truncate(size)


def _digest(opened: BinaryIO, size: int) -> bytes:
    """Returns the SHA-256 of the file's first `size` bytes."""
    digest = hashlib.sha256()
    opened.seek(0)
    while size and (piece := opened.read(min(size, _CHUNK))):
        digest.update(piece)
        size -= len(piece)
    return digest.digest()


def _sound(file: Path, size: int) -> bool:
    """Returns whether the file exists, complete and undamaged."""
    if not file.is_file() or file.stat().st_size != size + _DIGEST:
        return False
    try:
        with file.open("rb") as opened:
            return _digest(opened, size) == opened.read()
    except OSError:  # an unreadable block of the disk
        return False
