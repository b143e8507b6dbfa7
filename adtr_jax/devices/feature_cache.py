"""Cached features, in memory or, if they do not fit, in files that later runs reuse.

A file is the arrays, one after the other in float32; then what they are, as JSON: the key, and the
SHA-256 of every `BLOCK` bytes of the arrays; then the SHA-256 of this text.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from adtr_jax.devices import memory
from adtr_jax.files import temporary

Arrays = list[np.ndarray]  # np.memmap, if they are in a file
Fill = Callable[[Arrays], object]
BLOCK = 2**24  # bytes that have a digest of their own
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
    ) -> Arrays:
        """Returns filled float32 arrays, in memory or memory-mapped from a file.

        A file is named by the key, and holds it with the digests of its content: one that is
        damaged, or of another key, is made again. It gets its name when it is complete, so that two
        runs may make the same one.

        Args:
            key: returns all that the values depend on, as JSON values.
            fill: writes the values into the given arrays.
        """
        temporary.sweep(self.directory)
        limit = memory.of_host() if self.limit is None else self.limit
        if 4 * sum(int(np.prod(shape)) for shape in shapes) <= limit:
            arrays = [np.empty(shape, np.float32) for shape in shapes]
            fill(arrays)
            return arrays
        text = json.dumps([key(), shapes], sort_keys=True)
        file = self.directory / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.features"
        if not _is_sound(file, text, _offsets(shapes)[-1]):
            _write(file, text, shapes, fill)
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


def _write(file: Path, key: str, shapes: Sequence[tuple[int, ...]], fill: Fill) -> None:
    """Writes the arrays, and what they are, to a temporary file, which is then renamed."""
    size = _offsets(shapes)[-1]
    with temporary.folder(file.parent, file.stem) as folder:
        part = folder / file.name
        with part.open("w+b") as opened:
            _reserve(opened, size)
            arrays = _mapped(part, shapes, "r+")
            fill([*arrays])
            for array in arrays:
                array.flush()
            text = json.dumps({"key": key, "blocks": [*_digests(opened, size)]}).encode()
            opened.seek(size)
            opened.write(text + hashlib.sha256(text).digest())
            opened.flush()
            os.fsync(opened.fileno())
        part.replace(file)


def _reserve(opened: BinaryIO, size: int) -> None:
    """Reserves the disk space: a disk that fills up later would kill the process at a write."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(opened.fileno(), 0, size)
    else:
        opened.truncate(size)


def _digests(opened: BinaryIO, size: int) -> Iterator[str]:
    """Yields the SHA-256 of every block of the file's first `size` bytes."""
    opened.seek(0)
    for start in range(0, size, BLOCK):
        yield hashlib.sha256(opened.read(min(BLOCK, size - start))).hexdigest()


def _is_sound(file: Path, key: str, size: int) -> bool:
    """Returns whether the file exists, is that of the key, and is undamaged."""
    try:
        with file.open("rb") as opened:
            what = _what(opened, size)
            return what.get("key") == key and what.get("blocks") == [*_digests(opened, size)]
    except OSError:  # it is not there, or an unreadable block of the disk
        return False


def _what(opened: BinaryIO, size: int) -> dict[str, Any]:
    """Returns what is written behind the arrays; {} if it is not whole."""
    opened.seek(size)
    tail = opened.read()
    text, digest = tail[:-_DIGEST], tail[-_DIGEST:]
    return json.loads(text) if hashlib.sha256(text).digest() == digest else {}
