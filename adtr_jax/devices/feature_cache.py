"""Features in memory, or, where they do not fit, in files that later runs find again."""

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

Arrays = list[np.ndarray]  # np.memmap, where they are in a file
Fill = Callable[[Arrays], object]
_DIGEST = hashlib.sha256().digest_size
_CHUNK = 2**24  # bytes that are read at once to check a file


@dataclass(frozen=True)
class FeatureCache:
    """Where features are kept.

    Attributes:
        directory: for the files; made when there is one to write.
        limit: bytes of main memory that features may take; None: what `memory` says.
    """

    directory: Path
    limit: int | None = None

    def arrays(
        self,
        key: Callable[[], Mapping[str, Any]],
        shapes: Sequence[tuple[int, ...]],
        fill: Fill,
    ) -> Arrays:
        """Float32 arrays of these shapes, filled; in memory or mapped into it from a file.

        A file is named by the key, and holds the digest of its content: one that was damaged is
        made again. It gets its name when it is complete, so that two runs may make the same one.

        Args:
            key: says all that the values depend on, as JSON values.
            shapes: of the arrays.
            fill: writes the values into the arrays that it is given.
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
    """Where the arrays begin in the file; and where the last one ends."""
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
    """Writes the arrays and their digest to a file of another name, which is then renamed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    size = _offsets(shapes)[-1]
    # A folder of its own, so that the file gets the permissions that the user's umask gives.
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
    """Takes the disc space now: a disc that fills up later would kill the process at a write."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(opened.fileno(), 0, size)
    else:
        opened.truncate(size)


def _digest(opened: BinaryIO, size: int) -> bytes:
    """The SHA-256 of the file's first `size` bytes."""
    digest = hashlib.sha256()
    opened.seek(0)
    while size and (piece := opened.read(min(size, _CHUNK))):
        digest.update(piece)
        size -= len(piece)
    return digest.digest()


def _sound(file: Path, size: int) -> bool:
    """Whether the file is there, complete and undamaged."""
    if not file.is_file() or file.stat().st_size != size + _DIGEST:
        return False
    try:
        with file.open("rb") as opened:
            return _digest(opened, size) == opened.read()
    except OSError:  # a block that the disc cannot read
        return False
